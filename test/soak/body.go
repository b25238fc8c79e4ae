//go:build linux

package main

import (
	"bytes"
	"hash/crc32"
	"strconv"
)

// padding fills bodies. Its start depends on the message, so the body of another message is
// noticed.
var padding = bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"), 128)

// body makes a message's body, a JSON string: stream.number.time.checksum.padding.
func body(h hold, size int) []byte {
	b := make([]byte, 0, size+64)
	b = append(b, '"')
	b = strconv.AppendUint(b, uint64(h.stream), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(h.seq), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, h.published, 10)
	b = append(b, '.')
	from := int(h.seq) % 64
	pad := padding[from : from+min(size, len(padding)-64)]
	b = strconv.AppendUint(b, uint64(crc32.Update(crc32.ChecksumIEEE(b[1:]), crc32.IEEETable, pad)), 16)
	b = append(b, '.')
	b = append(b, pad...)
	return append(b, '"')
}

// readBody reads a body. It returns false unless every byte is right.
func readBody(b []byte) (h hold, ok bool) {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return h, false
	}
	b = b[1 : len(b)-1]
	parts := bytes.SplitN(b, []byte{'.'}, 5)
	if len(parts) != 5 {
		return h, false
	}
	stream, err1 := strconv.ParseUint(string(parts[0]), 10, 32)
	seq, err2 := strconv.ParseUint(string(parts[1]), 10, 32)
	at, err3 := strconv.ParseInt(string(parts[2]), 10, 64)
	sum, err4 := strconv.ParseUint(string(parts[3]), 16, 32)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return h, false
	}
	head := len(parts[0]) + len(parts[1]) + len(parts[2]) + 3
	if crc32.Update(crc32.ChecksumIEEE(b[:head]), crc32.IEEETable, parts[4]) != uint32(sum) {
		return h, false
	}
	return hold{uint32(stream), uint32(seq), at}, true
}
