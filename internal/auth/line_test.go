package auth

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestLoginsWaitInABoundedLine: at most two hashes run at a time, at most 256 logins wait for their turn, and who comes then is
// told to come back, at once and at no cost.
func TestLoginsWaitInABoundedLine(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	if maxHashes != 2 {
		t.Errorf("%d hashes may run at a time", maxHashes)
	}
	for range maxHashes { // all turns are taken
		must(t, s.hasher.acquire(t.Context()))
	}
	before := s.hasher.calls.Load()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range maxWaiting {
		wg.Go(func() {
			_, err := s.Authenticate(ctx, fmt.Sprint("user", i), "x", loopback)
			if surgetank.CodeOf(err) != surgetank.CodeBusy {
				t.Errorf("login %d: %v", i, err)
			}
		})
	}
	for s.hasher.waiting.Load() < maxWaiting {
		if ctx.Err() != nil {
			t.Fatal("the line does not fill")
		}
	}
	_, err := s.Authenticate(t.Context(), "one more", "x", loopback)
	wantCode(t, err, surgetank.CodeBusy)
	cancel()
	wg.Wait()
	if n := s.hasher.calls.Load() - before; n != 0 {
		t.Errorf("%d hashes ran beyond the two", n)
	}
}
