package fuzzing

import "testing"

// failure records the message of a failing test.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Helper()               {}
func (f *failure) Errorf(string, ...any) { f.failed = true }

var sink []byte

func TestBounded(t *testing.T) {
	var good, bad failure
	Bounded(&good, 100, 100, func() { sink = make([]byte, 1000) })
	Bounded(&bad, 100, 100, func() { sink = make([]byte, 64<<20) })
	if good.failed || !bad.failed {
		t.Errorf("an allocation of 1,000 bytes fails: %v, of 64 MiB: %v", good.failed, bad.failed)
	}
}
