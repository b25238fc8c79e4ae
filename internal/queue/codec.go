package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errDecode is the cause of every failed decode. Other errors wrap it and name the part that could
// not be read.
var errDecode = errors.New("record cannot be decoded")

func appendUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func appendString(b []byte, s string) []byte {
	return append(appendUint(b, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(appendUint(b, uint64(len(s))), s...)
}

// decoder reads the output of the append functions. It keeps the first error, and later reads
// return zeros, so callers check err once at the end. A declared length never causes an allocation:
// strings and bytes must lie inside the input.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at byte %d of %d", errDecode, what, d.off, len(d.b))
	}
	d.off = len(d.b)
}

func (d *decoder) more() bool { return d.err == nil && d.off < len(d.b) }

func (d *decoder) byte() byte {
	if d.off >= len(d.b) {
		d.fail("a byte is missing")
		return 0
	}
	d.off++
	return d.b[d.off-1]
}

func (d *decoder) uint() uint64 {
	// Most numbers have one byte.
	if d.off < len(d.b) && d.b[d.off] < 0x80 {
		d.off++
		return uint64(d.b[d.off-1])
	}
	v, n := binary.Uvarint(d.b[d.off:])
	if n <= 0 {
		d.fail("a number is malformed")
		return 0
	}
	d.off += n
	return v
}

// time reads a point in time in nanoseconds since 1970.
func (d *decoder) time() int64 {
	v := d.uint()
	if v > 1<<63-1 {
		d.fail("a time is out of range")
		return 0
	}
	return int64(v)
}

func (d *decoder) u32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.fail("a number is out of range")
		return 0
	}
	return uint32(v)
}

// fixed64 reads a number that is stored in eight bytes whatever its value, as random numbers are.
func (d *decoder) fixed64() uint64 {
	if len(d.b)-d.off < 8 {
		d.fail("a number is cut short")
		return 0
	}
	d.off += 8
	return binary.LittleEndian.Uint64(d.b[d.off-8:])
}

// count reads a number of items. Each item has at least one byte.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.b)-d.off) {
		d.fail("a count is larger than what follows")
		return 0
	}
	return int(v)
}

// bytes returns a part of the input. It shares the input's memory.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)-d.off) {
		d.fail("a length is larger than what follows")
		return nil
	}
	s := d.b[d.off : d.off+int(n) : d.off+int(n)]
	d.off += int(n)
	return s
}

func (d *decoder) string() string { return string(d.bytes()) }
