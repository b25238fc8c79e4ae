//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"math/rand/v2"
)

const letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"

// body makes the bytes for a value: the value, and a filling of up to size bytes. Length and
// letters of the filling follow from the value, so a receiver knows every expected byte.
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

// readBody finds the value in a body and reports whether every byte is right.
func readBody(b []byte, size int) (value string, whole bool) {
	var m struct{ V string }
	if json.Unmarshal(b, &m) != nil || m.V == "" {
		return "unreadable", false
	}
	return m.V, bytes.Equal(b, body(m.V, size))
}
