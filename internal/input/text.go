package input

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
)

// text reads an input as UTF-8. It removes a byte order mark, and converts UTF-16 with a mark.
// Other bytes are unchanged. Before it returns the first bytes, it reads as few bytes as possible,
// so that a terminal's lines are returned one by one.
type text struct {
	in      io.Reader
	sniffed bool
	head    []byte // bytes read and not returned yet
	order   binary.ByteOrder

	raw   []byte // UTF-16 bytes read and not converted yet
	high  rune   // the first half of a surrogate pair, or 0
	out   []byte // converted bytes, not returned yet
	space []byte // memory of out
	bad   error  // the error in the UTF-16 text after out
	end   error
}

var (
	markUTF8 = []byte{0xef, 0xbb, 0xbf}
	markBE   = []byte{0xfe, 0xff}
	markLE   = []byte{0xff, 0xfe}
)

// Text converts an input in memory. It returns data itself, or a part of it, unless data is UTF-16.
func Text(data []byte) ([]byte, error) {
	if bytes.HasPrefix(data, markUTF8) {
		return data[len(markUTF8):], nil
	}
	order, skip, err := encoding(data[:min(4, len(data))])
	if err != nil || order == nil {
		return data, err
	}
	t := &text{in: bytes.NewReader(data[skip:]), sniffed: true, order: order}
	return io.ReadAll(t)
}

// Mark returns the encoding of the byte order mark at the start of an input: "UTF-8", "UTF-16", or
// "" if there is none.
func Mark(data []byte) (of string) {
	switch {
	case bytes.HasPrefix(data, markUTF8):
		return "UTF-8"
	case bytes.HasPrefix(data, markLE), bytes.HasPrefix(data, markBE):
		return "UTF-16"
	}
	return ""
}

// encoding finds the encoding by the first four bytes of an input, or by all bytes of a shorter
// input.
func encoding(b []byte) (order binary.ByteOrder, skip int, err error) {
	refuse := func(name, from string) (binary.ByteOrder, int, error) {
		return nil, 0, surgetank.FieldErrorf("line", "the input is %s; convert it, as with: iconv -f %s -t UTF-8", name, from)
	}
	four := len(b) >= 4
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe, 0, 0}):
		return refuse("UTF-32", "UTF-32")
	case four && bytes.Equal(b[:4], []byte{0, 0, 0xfe, 0xff}):
		return refuse("UTF-32", "UTF-32")
	case bytes.HasPrefix(b, markLE):
		return binary.LittleEndian, 2, nil
	case bytes.HasPrefix(b, markBE):
		return binary.BigEndian, 2, nil
	case four && b[0] != 0 && b[1] == 0 && b[2] != 0 && b[3] == 0:
		return refuse("UTF-16 without a byte order mark, as it seems", "UTF-16LE")
	case four && b[0] == 0 && b[1] != 0 && b[2] == 0 && b[3] != 0:
		return refuse("UTF-16 without a byte order mark, as it seems", "UTF-16BE")
	}
	return nil, 0, nil
}

// Read returns UTF-8.
func (t *text) Read(p []byte) (int, error) {
	if !t.sniffed {
		if err := t.sniff(); err != nil {
			return 0, err
		}
	}
	if t.order != nil {
		return t.convert(p)
	}
	if len(t.head) > 0 {
		n := copy(p, t.head)
		t.head = t.head[n:]
		return n, nil
	}
	if t.end != nil {
		return 0, t.end
	}
	return t.in.Read(p)
}

// sniff reads the first bytes to find the encoding: two bytes, or four if the first two do not look
// like UTF-8 text.
func (t *text) sniff() error {
	var b [4]byte
	n := 0
	for need := 2; n < need && t.end == nil; {
		var k int
		k, t.end = t.in.Read(b[n:need])
		n += k
		if n == 2 && (b[0] == 0 || b[1] == 0 || b[0] == 0xff || b[0] == 0xef) {
			need = 4
		}
	}
	t.sniffed, t.head = true, b[:n]
	if bytes.HasPrefix(t.head, markUTF8) {
		t.head = t.head[len(markUTF8):]
		return nil
	}
	order, skip, err := encoding(t.head)
	if err != nil {
		return err
	}
	if t.order = order; order != nil {
		t.raw = append(t.raw, t.head[skip:]...)
	}
	return nil
}

// convert converts UTF-16 to UTF-8.
func (t *text) convert(p []byte) (int, error) {
	for len(t.out) == 0 {
		if t.bad != nil {
			return 0, t.bad
		}
		used := 0
		t.out = t.space[:0]
		for ; used+1 < len(t.raw) && t.bad == nil; used += 2 {
			r := rune(t.order.Uint16(t.raw[used:]))
			switch {
			case t.high != 0:
				whole := utf16.DecodeRune(t.high, r)
				if whole == utf8.RuneError {
					t.bad = badUTF16()
					continue
				}
				t.out, t.high = utf8.AppendRune(t.out, whole), 0
			case r >= 0xdc00 && r < 0xe000:
				t.bad = badUTF16()
			case utf16.IsSurrogate(r):
				t.high = r
			default:
				t.out = utf8.AppendRune(t.out, r)
			}
		}
		t.space = t.out
		t.raw = append(t.raw[:0], t.raw[used:]...)
		if len(t.out) > 0 || t.bad != nil {
			continue
		}
		if t.end != nil {
			if errors.Is(t.end, io.EOF) && (len(t.raw) > 0 || t.high != 0) {
				return 0, surgetank.FieldErrorf("line", "the input ends in the midst of a UTF-16 character; is it complete?")
			}
			return 0, t.end
		}
		have := len(t.raw)
		t.raw = append(t.raw, make([]byte, 32<<10)...)
		var k int
		k, t.end = t.in.Read(t.raw[have:])
		t.raw = t.raw[:have+k]
	}
	n := copy(p, t.out)
	t.out = t.out[n:]
	return n, nil
}

func badUTF16() error {
	return surgetank.FieldErrorf("line", "half of a pair of UTF-16 units stands alone; the input is damaged, or is not UTF-16")
}

// errLong is the error of a counter at its limit: the record does not end.
var errLong = errors.New("the record is too long")

// counter counts the bytes and lines read through it. It returns at most until bytes.
type counter struct {
	r     io.Reader
	until int64 // limit of bytes to read; 0: no limit
	keep  bool  // remember where lines end

	n     int64
	lines int64
	open  bool    // the last line has not ended yet
	ends  []int64 // offsets after line ends, ascending, without the first base offsets
	base  int64   // number of line ends that were removed from ends
}

// Read reads and counts.
func (c *counter) Read(p []byte) (int, error) {
	if c.until > 0 {
		if c.n >= c.until {
			return 0, errLong
		}
		p = p[:min(int64(len(p)), c.until-c.n)]
	}
	n, err := c.r.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.lines++
			if c.keep {
				c.ends = append(c.ends, c.n+int64(i)+1)
			}
		}
	}
	if n > 0 {
		c.open = p[n-1] != '\n'
	}
	c.n += int64(n)
	return n, err
}

// count returns how many lines were read.
func (c *counter) count() int64 {
	if c.open {
		return c.lines + 1
	}
	return c.lines
}

// line returns the number of the line at an offset. Offsets of successive calls must ascend.
func (c *counter) line(offset int64) int64 {
	i := 0
	for i < len(c.ends) && c.ends[i] <= offset {
		i++
	}
	c.base += int64(i)
	c.ends = append(c.ends[:0], c.ends[i:]...)
	return c.base + 1
}
