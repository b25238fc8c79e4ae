//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"math/rand/v2"
)

const letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"

// body makes the bytes of a value: the value and a filling whose length (up to size) and letters
// follow from the value, so that whoever receives it knows each byte that it must have.
func body(value string, size int) []byte {
	h := fnv.New64a()
	h.Write([]byte(value)) // never fails
	r := rand.New(rand.NewPCG(h.Sum64(), uint64(size)))
	b := append(append(append(make([]byte, 0, size+64), `{"v":"`...), value...), `","pad":"`...)
	if size > 0 {
		for range size/2 + r.IntN(size/2+1) {
			b = append(b, letters[r.IntN(len(letters))])
		}
	}
	return append(b, `"}`...)
}

// readBody finds the value in a body and tells whether every byte is as it was sent.
func readBody(b []byte, size int) (value string, whole bool) {
	var m struct{ V string }
	if json.Unmarshal(b, &m) != nil || m.V == "" {
		return "unreadable", false
	}
	return m.V, bytes.Equal(b, body(m.V, size))
}
