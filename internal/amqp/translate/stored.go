package translate

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
)

// This file converts a message that came over AMQP to its stored form and back. The broker, its
// rules and the other doors read a message's content type and headers as text. The opaque part has
// the rest of the property block. It also says how to rebuild the block from both, byte for byte.
//
//	'A' flags(1) length(1) exchange  moved(2)  fields  block
//
// moved has the flags of the properties that are stored outside the block. The content type is
// stored as the message's content type, and the other properties as its first headers. If moved has
// the flag of the headers table, fields are a number (uvarint) and that number of fields. If a
// field's name and value equal those of the next header, only its type is stored. Any other field
// is fieldShown or fieldWhole, followed by the whole field. fieldShown means that the next header
// is a text made from the field. block is a property block of everything else.
//
// The older form has the whole block. It is still read, and it is written where it is shorter:
//
//	'a' flags(1) length(1) exchange  block
//
// An older version of this program reads a message in the newer form as one from another door.
const (
	opaqueWhole = 'a'
	opaqueRest  = 'A'

	// OpaqueDeaths is a flag: this door wrote the x-death in the block. A client's own x-death has
	// no meaning.
	OpaqueDeaths = 1 << 0

	fieldWhole = 0
	fieldShown = 1
)

// Store returns the stored form of a property block: the opaque part, and the headers that other
// doors see. p is the parsed block. The message was published to exchange. contentType is the
// message's content type.
func Store(flags byte, exchange string, p *wire.Properties, contentType string) ([]byte, []surgetank.Header) {
	whole := opaqueHead(opaqueWhole, flags, exchange, 128)
	whole = p.Append(whole)
	rest, headers, ok := storeRest(flags, exchange, p, contentType, len(whole))
	if ok {
		return rest, headers
	}
	return whole, textHeaders(p, surgetank.MaxHeaderBytes-len(whole)-len(contentType))
}

func opaqueHead(form, flags byte, exchange string, more int) []byte {
	o := make([]byte, 0, 3+len(exchange)+more)
	return append(append(o, form, flags, byte(len(exchange))), exchange...)
}

// storeRest makes the newer form. It returns false if the older form, whole, is not longer, or if
// only the older form fits.
func storeRest(flags byte, exchange string, p *wire.Properties, contentType string, whole int) ([]byte, []surgetank.Header, bool) {
	count := 0
	for range p.Headers.All() {
		count++
	}
	const overhead = 2 + binary.MaxVarintLen16 // moved, and the number of fields
	b := textBudget{room: surgetank.MaxHeaderBytes - whole - len(contentType) - overhead - count}
	left, moved := *p, p.Flags&wire.HasHeaders
	if p.Flags&wire.HasContentType != 0 && string(p.ContentType) == contentType {
		moved |= wire.HasContentType
	}
	for _, f := range propertyHeaders {
		if v := *f.field(p); p.Flags&f.flag == 0 {
			continue
		} else if !utf8.Valid(v) {
			return nil, nil, false
		} else if b.add(f.name, string(v), len(v)+1) {
			moved |= f.flag
		}
	}
	o := opaqueHead(opaqueRest, flags, exchange, whole)
	o = binary.BigEndian.AppendUint16(o, moved)
	if p.Flags&wire.HasHeaders != 0 {
		o = binary.AppendUvarint(o, uint64(count))
		for name, v := range p.Headers.All() {
			text, has := textOf(v)
			shown, verbatim := showText(text)
			var scratch [8]byte
			again, ok := valueOf(v.Tag, text, scratch[:0])
			same := has && verbatim && ok && bytes.Equal(again, v.Data)
			saved := 0
			if same {
				saved = len(name) + len(v.Data)
			}
			switch added := has && b.add(string(name), shown, saved); {
			case added && same:
				o = append(o, v.Tag)
			case added:
				o = wire.Table(append(o, fieldShown)).Add(string(name), v)
			default:
				o = wire.Table(append(o, fieldWhole)).Add(string(name), v)
			}
		}
	}
	left.Flags &^= moved
	o = left.Append(o)
	return o, b.headers, b.room >= 0 && len(o) < whole
}

// textBudget collects the headers that other doors see, as far as they fit.
type textBudget struct {
	room    int // bytes
	headers []surgetank.Header
}

// add adds a header if it fits. saved is the number of bytes that the opaque part then does not
// need.
func (b *textBudget) add(name, value string, saved int) bool {
	cost := len(name) + len(value) - saved
	if name == "" || cost > b.room || len(b.headers) == surgetank.MaxHeaders {
		return false
	}
	b.room -= cost
	b.headers = append(b.headers, surgetank.Header{Name: name, Value: value})
	return true
}

// showText returns the form of a text that other doors show, and whether it is the unchanged text.
// Other doors show UTF-8 only. For other bytes, different values still have different forms.
func showText(s string) (shown string, verbatim bool) {
	if utf8.ValidString(s) {
		return s, true
	}
	return "base64:" + base64.StdEncoding.EncodeToString([]byte(s)), false
}

// valueOf is the reverse of textOf. It appends to dst the encoding of the value that has the type
// tag and the text form text. It returns false if the type has no such value. Different values can
// have one text, so Store compares the result.
func valueOf(tag byte, text string, dst []byte) ([]byte, bool) {
	switch tag {
	case 'S', 'x':
		return append(dst, text...), true
	case 't':
		if text == "true" {
			return append(dst, 1), true
		}
		return append(dst, 0), text == "false"
	case 'f', 'd':
		f, err := strconv.ParseFloat(text, 64)
		if tag == 'f' {
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(f))), err == nil
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), err == nil
	case 'T':
		t, err := time.Parse(time.RFC3339, text)
		return binary.BigEndian.AppendUint64(dst, uint64(t.Unix())), err == nil
	case 'L':
		n, err := strconv.ParseUint(text, 10, 64)
		return binary.BigEndian.AppendUint64(dst, n), err == nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch tag {
	case 'b', 'B':
		return append(dst, byte(n)), err == nil
	case 's', 'u':
		return binary.BigEndian.AppendUint16(dst, uint16(n)), err == nil
	case 'I', 'i':
		return binary.BigEndian.AppendUint32(dst, uint32(n)), err == nil
	case 'l':
		return binary.BigEndian.AppendUint64(dst, uint64(n)), err == nil
	}
	return dst, false
}

// StoredForm is the AMQP form of a stored message.
type StoredForm struct {
	Flags    byte   // OpaqueDeaths
	Exchange []byte // shares the message's memory
	Block    []byte // the property block
}

// ReadStored reads the AMQP form of a message. It returns false for a message from another door,
// and for one whose headers do not fit its opaque part. The block is either built in buf or shares
// the message's memory. ReadStored returns the grown buf for the next message.
func ReadStored(m *surgetank.Message, buf []byte) (f StoredForm, scratch []byte, ok bool) {
	form, f, rest, ok := cutOpaque(*door.Opaque(m))
	switch {
	case !ok:
		return f, buf, false
	case form == opaqueWhole:
		f.Block = rest
		return f, buf, len(rest) >= 2 // a block has at least its flags
	}
	f.Block, buf, ok = whole(m, rest, buf[:0])
	return f, buf, ok
}

// cutOpaque parses the head, which is equal in both forms.
func cutOpaque(o []byte) (form byte, f StoredForm, rest []byte, ok bool) {
	if len(o) < 3 || o[0] != opaqueWhole && o[0] != opaqueRest || len(o) < 3+int(o[2]) {
		return 0, f, nil, false
	}
	n := 3 + int(o[2])
	return o[0], StoredForm{Flags: o[1], Exchange: o[3:n:n]}, o[n:], true
}

// whole rebuilds the property block of the newer form in buf. Its intermediate data comes before
// the block in buf.
func whole(m *surgetank.Message, rest, buf []byte) (block, scratch []byte, ok bool) {
	if len(rest) < 2 {
		return nil, buf, false
	}
	moved, rest := binary.BigEndian.Uint16(rest), rest[2:]
	if moved == wire.HasContentType && len(m.Headers) == 0 {
		return withContentType(m.ContentType, rest, buf)
	}
	strs := bits.OnesCount16(moved &^ (wire.HasContentType | wire.HasHeaders))
	if strs > len(m.Headers) {
		return nil, buf, false
	}
	used := strs
	if moved&wire.HasHeaders != 0 {
		var n int
		if buf, rest, n, ok = wholeTable(m.Headers[strs:], rest, buf); !ok {
			return nil, buf, false
		}
		used += n
	}
	table := buf
	p, err := wire.ParseProperties(rest)
	if err != nil || p.Flags&moved != 0 || used != len(m.Headers) { // the headers were changed after the publish
		return nil, buf, false
	}
	p.Flags |= moved
	p.Headers = table
	if moved&wire.HasContentType != 0 {
		buf, p.ContentType = appendText(buf, m.ContentType)
	}
	next := 0
	for _, f := range propertyHeaders {
		if moved&f.flag == 0 {
			continue
		}
		h := &m.Headers[next]
		if h.Name != f.name || len(h.Value) > 255 || !utf8.ValidString(h.Value) {
			return nil, buf, false
		}
		buf, *f.field(&p) = appendText(buf, h.Value)
		next++
	}
	at := len(buf)
	buf = p.Append(buf)
	return buf[at:], buf, next == strs && len(p.ContentType) <= 255 && utf8.Valid(p.ContentType)
}

// withContentType puts a content type into a property block that has none. It need not parse the
// block, because the content type is the first of the values. For most messages the result is the
// whole block.
func withContentType(contentType string, left, buf []byte) (block, scratch []byte, ok bool) {
	if len(left) < 2 || len(contentType) > 255 || !utf8.ValidString(contentType) {
		return nil, buf, false
	}
	flags := binary.BigEndian.Uint16(left)
	buf = binary.BigEndian.AppendUint16(buf, flags|wire.HasContentType)
	buf = append(append(buf, byte(len(contentType))), contentType...)
	buf = append(buf, left[2:]...)
	return buf, buf, flags&wire.HasContentType == 0
}

// appendText appends a text to buf and returns the copy.
func appendText(buf []byte, s string) (grown, text []byte) {
	at := len(buf)
	buf = append(buf, s...)
	return buf, buf[at:len(buf):len(buf)]
}

// wholeTable appends the headers table to buf. It returns the bytes after the fields in rest, and
// the number of headers that the fields used.
func wholeTable(headers []surgetank.Header, rest, buf []byte) (table, after []byte, used int, ok bool) {
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > wire.MaxTableElements {
		return buf, nil, 0, false
	}
	rest = rest[n:]
	for range count {
		if len(rest) == 0 {
			return buf, nil, 0, false
		}
		tag := rest[0]
		rest = rest[1:]
		if tag != fieldWhole {
			if used++; used > len(headers) {
				return buf, nil, 0, false
			}
		}
		if tag == fieldWhole || tag == fieldShown {
			left, err := wire.Table(rest).Rest()
			if err != nil {
				return buf, nil, 0, false
			}
			buf, rest = append(buf, rest[:len(rest)-len(left)]...), left
			continue
		}
		h := &headers[used-1]
		if len(h.Name) > 255 || !utf8.ValidString(h.Name) {
			return buf, nil, 0, false
		}
		buf = append(append(append(buf, byte(len(h.Name))), h.Name...), tag)
		if tag == 'S' || tag == 'x' {
			buf = binary.BigEndian.AppendUint32(buf, uint32(len(h.Value)))
		}
		if buf, ok = valueOf(tag, h.Value, buf); !ok {
			return buf, nil, 0, false
		}
	}
	return buf, rest, used, true
}
