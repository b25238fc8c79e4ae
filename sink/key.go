package sink

import (
	"bytes"
	"hash/maphash"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank"
)

// KeyForm says how a database compares the values of a key column of on_conflict, as far as a sink
// must know. Two values that the database calls equal must have the same form.
type KeyForm uint8

// The forms. A form can treat more values as equal than the database does, but never fewer.
const (
	// KeyUnknown: the comparison is not known. Lanes are chosen by the other key columns. If no key
	// column is known, all messages without a group go to one lane.
	KeyUnknown KeyForm = iota
	KeyText            // characters, without spaces at the end
	KeyInteger         // whole numbers, however they are written: 1, 1.0, "1", "0x1"
	KeyUUID            // hexadecimal digits in either case; hyphens and braces are ignored
	// KeyLoose is SQLite's comparison. Numbers are equal by value, even when written as text. ASCII
	// letters are equal in either case.
	KeyLoose
)

// Keyed is a Target that knows how its table compares keys.
type Keyed interface {
	// KeyForms returns the forms of on_conflict's key columns by name, after Open. A key column
	// with a default must be KeyUnknown, because a message without the field gets the default as
	// its key. The exception is a default that takes a sequence's next number.
	KeyForms() map[string]KeyForm
}

// keyer hashes the conflict keys of messages. It belongs to the dispatcher's goroutine.
type keyer struct {
	x     *Extractor
	forms []KeyForm
	hash  maphash.Hash
	buf   []byte
}

// newKeyer makes a keyer for the key columns whose form is known. It returns nil if no form is
// known.
func newKeyer(t TableSpec, forms map[string]KeyForm) *keyer {
	var columns []Column
	k := &keyer{}
	for _, c := range t.Columns {
		if f := forms[c.Name]; t.IsKey(c.Name) && f != KeyUnknown {
			columns = append(columns, c)
			k.forms = append(k.forms, f)
		}
	}
	if columns == nil {
		return nil
	}
	k.x = NewExtractor(columns)
	k.hash.SetSeed(groupSeed)
	return k
}

// The method of returns the hash of a message's key, never 0. Messages that cannot become rows
// share one hash.
func (k *keyer) of(d *surgetank.Delivery) uint64 {
	cells, err := k.x.Cells(d)
	if err != nil {
		return 1
	}
	k.hash.Reset()
	for i := range cells {
		k.buf = appendKey(k.buf[:0], k.forms[i], &cells[i])
		_, _ = k.hash.Write(k.buf) // never fails
		_ = k.hash.WriteByte(0)
	}
	return max(k.hash.Sum64(), 1)
}

// appendKey writes a value in the form of its column.
func appendKey(dst []byte, form KeyForm, c *Cell) []byte {
	var text []byte
	switch c.Kind {
	case CellMissing, CellNull:
		return append(dst, 0xff) // null is equal to nothing
	case CellText:
		text = []byte(c.Text)
	case CellBytes:
		text = c.Bytes
	case CellInt:
		text = strconv.AppendInt(nil, c.Int, 10)
	case CellTime:
		text = c.Time.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000Z")
	case CellJSON:
		var ok bool
		if text, ok = c.JSON.AppendText(nil); !ok {
			return dst
		}
	}
	switch form {
	case KeyInteger:
		return appendWhole(dst, string(text))
	case KeyUUID:
		for _, b := range bytes.ToLower(text) {
			if b != '-' && b != '{' && b != '}' {
				dst = append(dst, b)
			}
		}
		return dst
	case KeyLoose:
		switch string(text) {
		case "true":
			text = []byte("1")
		case "false":
			text = []byte("0")
		}
		if f, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64); err == nil {
			return strconv.AppendUint(dst, math.Float64bits(f+0), 16) // +0 makes the two zeros equal
		}
		return append(dst, bytes.TrimRight(bytes.ToLower(text), " ")...)
	}
	return append(dst, bytes.TrimRight(text, " ")...)
}

// appendWhole writes an integer in one form. Text that is not an integer is written unchanged: no
// integer column accepts it.
func appendWhole(dst []byte, s string) []byte {
	s = strings.TrimSpace(s)
	digits, base := strings.TrimLeft(s, "+-"), 10
	if len(digits) > 1 && digits[0] == '0' && strings.ContainsAny(digits[1:2], "xXoObB") {
		base = 0
	} else {
		digits = strings.ReplaceAll(digits, "_", "")
	}
	if n, err := strconv.ParseUint(digits, base, 64); err == nil {
		if n != 0 && strings.HasPrefix(s, "-") {
			dst = append(dst, '-')
		}
		return strconv.AppendUint(dst, n, 10)
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1e20 { // 1.0 or 1e3
		if math.Abs(f) < 1<<53 {
			return strconv.AppendInt(dst, int64(f), 10)
		}
		if r, ok := new(big.Rat).SetString(s); ok && r.IsInt() {
			return r.Num().Append(dst, 10)
		}
	}
	return append(dst, s...)
}
