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

// text gives an input as UTF-8: without its byte order mark, and converted if that says UTF-16.
// Other bytes pass as they are. It reads no more than two bytes before it gives out a first line,
// so that a terminal's lines come one by one.
type text struct {
	in      io.Reader
	sniffed bool
	head    []byte // read and not given out
	order   binary.ByteOrder

	raw   []byte // of UTF-16: read and not converted
	high  rune   // the first half of a pair, or 0
	out   []byte // converted and not given out
	space []byte // the memory of out
	bad   error  // what is wrong with the UTF-16 behind out
	end   error
}

var (
	markUTF8 = []byte{0xef, 0xbb, 0xbf}
	markBE   = []byte{0xfe, 0xff}
	markLE   = []byte{0xff, 0xfe}
)

// Text converts an input that is in memory whole. It returns data itself, or a part of it, unless
// data is UTF-16.
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

// Mark tells which byte order mark an input begins with: that of UTF-8, of UTF-16 or, without one,
// "".
func Mark(data []byte) (of string) {
	switch {
	case bytes.HasPrefix(data, markUTF8):
		return "UTF-8"
	case bytes.HasPrefix(data, markLE), bytes.HasPrefix(data, markBE):
		return "UTF-16"
	}
	return ""
}

// encoding tells what the first bytes of an input say. There are four, unless the input is shorter.
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

// Read gives UTF-8.
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

// sniff reads as many of the first bytes as it needs to tell what the input is: four only where the
// first two look like something other than text in UTF-8.
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

// convert gives UTF-16 as UTF-8.
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

// errLong is what a counter gives where a record would not end.
var errLong = errors.New("the record is too long")

// counter counts what is read through it, and gives no more than until bytes.
type counter struct {
	r     io.Reader
	until int64 // 0: no bound
	keep  bool  // remember where lines end

	n     int64
	lines int64
	open  bool    // the last line has no end yet
	ends  []int64 // offsets behind line ends, ascending; those before base lines are forgotten
	base  int64   // line ends that are forgotten
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

// count gives how many lines were read.
func (c *counter) count() int64 {
	if c.open {
		return c.lines + 1
	}
	return c.lines
}

// line gives the number of the line at an offset; it is asked with ascending offsets.
func (c *counter) line(offset int64) int64 {
	i := 0
	for i < len(c.ends) && c.ends[i] <= offset {
		i++
	}
	c.base += int64(i)
	c.ends = append(c.ends[:0], c.ends[i:]...)
	return c.base + 1
}
