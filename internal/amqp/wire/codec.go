package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

var errShort = errors.New("ends too early")

// codec walks over the fields of a method in their order. It either reads them from b or, if w is
// set, appends them to b. Reading and writing use the same walk, so they cannot differ. It keeps
// the first error.
type codec struct {
	b   []byte
	w   bool
	err error
}

func (c *codec) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// cut removes the first n bytes and returns them. If b is shorter, it sets the error and returns
// nil.
func (c *codec) cut(n int) []byte {
	if c.err != nil || len(c.b) < n {
		c.fail(errShort)
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *codec) octet(v *byte) {
	if c.w {
		c.b = append(c.b, *v)
	} else if p := c.cut(1); p != nil {
		*v = p[0]
	}
}

func (c *codec) short(v *uint16) {
	if c.w {
		c.b = binary.BigEndian.AppendUint16(c.b, *v)
	} else if p := c.cut(2); p != nil {
		*v = binary.BigEndian.Uint16(p)
	}
}

func (c *codec) long(v *uint32) {
	if c.w {
		c.b = binary.BigEndian.AppendUint32(c.b, *v)
	} else if p := c.cut(4); p != nil {
		*v = binary.BigEndian.Uint32(p)
	}
}

func (c *codec) longlong(v *uint64) {
	if c.w {
		c.b = binary.BigEndian.AppendUint64(c.b, *v)
	} else if p := c.cut(8); p != nil {
		*v = binary.BigEndian.Uint64(p)
	}
}

// shortstr is a string of at most 255 bytes. It must be UTF-8, because other clients fail on
// strings that are not.
func (c *codec) shortstr(v *string) {
	if c.w {
		c.b = appendShortstr(c.b, *v)
	} else {
		*v = string(c.shortbytes())
	}
}

// shortbytes reads a short string without copying it.
func (c *codec) shortbytes() []byte {
	n := c.cut(1)
	if n == nil {
		return nil
	}
	p := c.cut(int(n[0]))
	if p != nil && !utf8.Valid(p) {
		c.fail(fmt.Errorf("short string %q is not UTF-8", p))
		return nil
	}
	return p
}

func (c *codec) longstr(v *[]byte) {
	if c.w {
		c.b = binary.BigEndian.AppendUint32(c.b, uint32(len(*v)))
		c.b = append(c.b, *v...)
		return
	}
	*v = append([]byte(nil), c.longbytes()...)
}

// longbytes reads a long string without copying it.
func (c *codec) longbytes() []byte {
	p := c.cut(4)
	if p == nil {
		return nil
	}
	n := binary.BigEndian.Uint32(p)
	if uint64(n) > uint64(len(c.b)) {
		c.fail(errShort)
		return nil
	}
	return c.cut(int(n))
}

// table reads a copy, because methods with tables are rare and their tables are often kept.
func (c *codec) table(v *Table) {
	if c.w {
		c.longstr((*[]byte)(v))
		return
	}
	t := Table(c.longbytes())
	if c.err == nil {
		if err := t.Validate(); err != nil {
			c.fail(err)
			return
		}
	}
	*v = append(Table(nil), t...)
}

// bits is up to eight booleans in one octet. The first is the lowest bit.
func (c *codec) bits(vs ...*bool) {
	var o byte
	if c.w {
		for i, v := range vs {
			o |= boolByte(*v) << i
		}
	}
	c.octet(&o)
	if !c.w {
		for i, v := range vs {
			*v = o>>i&1 != 0
		}
	}
}

// Reserved fields are written as zero and ignored when read. Tickets of AMQP 0-8 are among them.
func (c *codec) reservedShort()    { c.short(new(uint16)) }
func (c *codec) reservedShortstr() { c.shortstr(new(string)) }

// appendShortstr appends a short string. It cuts a string that is too long; callers must not pass
// one.
func appendShortstr(dst []byte, s string) []byte {
	if len(s) > 255 {
		s = s[:255]
	}
	return append(append(dst, byte(len(s))), s...)
}
