package server

import "testing"

// TestMemoryIsReturnedOnce: memory is returned after a burst when the server is calm, and not again
// until the next burst.
func TestMemoryIsReturnedOnce(t *testing.T) {
	var r returner
	allocated, held, returns := uint64(0), uint64(0), 0
	pass := func(seconds int, rate uint64) {
		for range seconds {
			allocated += rate
			if r.due(allocated, held) {
				returns++
				held = 1 << 20
			}
		}
	}
	pass(60, 100<<10)
	if returns != 0 {
		t.Fatal("a server that did nothing returned memory")
	}
	held = 200 << 20
	if pass(60, 50<<20); returns != 0 {
		t.Fatal("memory was returned in the middle of a burst")
	}
	if pass(10, 100<<10); returns != 1 {
		t.Fatalf("after the burst memory was returned %d times", returns)
	}
	held = 200 << 20
	if pass(100, 100<<10); returns != 1 {
		t.Fatalf("a calm server returned memory %d times more", returns-1)
	}
}
