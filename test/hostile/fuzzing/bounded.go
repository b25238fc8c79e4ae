// Package fuzzing has a check for fuzz tests.
package fuzzing

import (
	"runtime/metrics"
	"testing"
)

// slack is the allocation that is allowed for any input, because the runtime counts whole spans,
// and other goroutines allocate, too.
const slack = 8 << 20

// Bounded runs f. It fails the test if f allocated more than n*perByte bytes plus 8 MiB, where n is
// the length of the input. So a length that is only declared must not cause an allocation.
func Bounded(t testing.TB, n, perByte int, f func()) {
	t.Helper()
	before := allocated()
	f()
	if used := allocated() - before; used > slack+uint64(n)*uint64(perByte) {
		t.Errorf("%d bytes of input made the code allocate %d bytes", n, used)
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
