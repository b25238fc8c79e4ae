// Package fuzzing has what fuzz tests share.
package fuzzing

import (
	"runtime/metrics"
	"testing"
)

// slack is what may be allocated whatever the input: the runtime counts by spans, and other
// goroutines allocate, too.
const slack = 8 << 20

// Bounded runs f and fails when it has allocated more than perByte bytes for each byte of an input
// of n, and 8 MiB: nothing may be made for a length that was only declared, nor grow faster than in
// step with what has come.
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
