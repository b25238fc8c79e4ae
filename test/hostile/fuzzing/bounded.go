// Package fuzzing is shared by fuzz tests.
package fuzzing

import (
	"runtime/metrics"
	"testing"
)

// slack is the allowed allocation for any input: the runtime counts by spans, and other goroutines
// allocate, too.
const slack = 8 << 20

// Bounded runs f and fails if it allocated more than perByte bytes for each of n bytes of input,
// plus 8 MiB. Code must not allocate for a length that was only declared, or faster than in
// proportion to the input.
func Bounded(t testing.TB, n, perByte int, f func()) {
	t.Helper()
	before := allocated()
	f()
	if used := allocated() - before; used > slack+uint64(n)*uint64(perByte) {
		t.Errorf("%d bytes of input made %d bytes", n, used)
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
