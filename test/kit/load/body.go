package load

import (
	"bytes"
	"fmt"
	"hash/crc32"
)

// padding fills bodies. The start depends on the value, so the filling of another message is
// noticed.
var padding = bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"), 1<<10)

// The parts of a body around value, filling and checksum.
const (
	before  = `{"v":"`
	between = `","pad":"`
	after   = `","sum":"%08x"}`
	sumLen  = len(`","sum":"01234567"}`)
)

// MaxFill is the longest filling of a body.
const MaxFill = 1<<16 - 64

// Body makes a message's body, a JSON object: its value, a filling of at least least and at most
// most bytes, and a checksum. The value decides the filling. It must not need escapes in JSON.
func Body(value string, least, most int) []byte {
	h := crc32.ChecksumIEEE([]byte(value))
	fill := min(least+int(h%uint32(most-least+1)), MaxFill)
	b := make([]byte, 0, len(before)+len(value)+len(between)+fill+sumLen)
	b = append(append(append(b, before...), value...), between...)
	b = append(b, padding[h%64:][:fill]...)
	return fmt.Appendf(b, after, crc32.ChecksumIEEE(b))
}

// ReadBody returns the value of a body. whole is false unless every byte is right.
func ReadBody(b []byte) (value string, whole bool) {
	rest, ok := bytes.CutPrefix(b, []byte(before))
	v, _, found := bytes.Cut(rest, []byte(between))
	if !ok || !found || len(b) < sumLen {
		return "unreadable", false
	}
	head := b[:len(b)-sumLen]
	return string(v), bytes.Equal(b[len(head):], fmt.Appendf(nil, after, crc32.ChecksumIEEE(head)))
}
