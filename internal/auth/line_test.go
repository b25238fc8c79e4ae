package auth

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
)

// TestLoginsWaitInABoundedLine: at most two hashes run and at most 256 logins wait. Further logins
// are told to come back, at once and without a hash.
func TestLoginsWaitInABoundedLine(t *testing.T) {
	s, _ := open(t, newMetaBroker())
	if maxHashes != 2 {
		t.Errorf("%d hashes may run at a time", maxHashes)
	}
	for range maxHashes { // all slots are used
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
			t.Fatal("the line does not become full")
		}
	}
	_, err := s.Authenticate(t.Context(), "one more", "x", loopback)
	wantCode(t, err, surgetank.CodeBusy)
	cancel()
	wg.Wait()
	if n := s.hasher.calls.Load() - before; n != 0 {
		t.Errorf("%d more hashes ran, want none", n)
	}
}

// TestNobodyIsLockedOut: whatever attackers try, in any number, each login with the right password
// succeeds. The attackers use the user's own address and name. No password is cached, so each login
// needs a hash.
func TestNobodyIsLockedOut(t *testing.T) {
	for _, tc := range []struct{ what, user, peer string }{
		{"as the user, from its address", "ann", "192.0.2.1"},
		{"as the user, through a proxy that hides addresses", "ann", ""},
		{"as the user, on the machine itself", "ann", "127.0.0.1"},
		{"as many users, from its address", "", "192.0.2.1"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s, _ := open(t, newMetaBroker())
			s.line.pause = 0
			_, err := s.PutUser(t.Context(), "ann", UserSpec{Password: ptr(Secret("right"))})
			must(t, err)
			peer, _ := netip.ParseAddr(tc.peer) // "": no address
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			for i := range 6 {
				wg.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						user := tc.user
						if user == "" {
							user = fmt.Sprint(i, "-", n)
						}
						if _, err := s.Authenticate(ctx, user, "wrong", peer); err == nil {
							t.Error("a wrong password was accepted")
						}
					}
				})
			}
			for !s.late("ann", peer) {
				runtime.Gosched()
			}
			for range 2 {
				s.cache.mu.Lock()
				clear(s.cache.ok) // so each login must be checked
				s.cache.mu.Unlock()
				if _, err := s.Authenticate(t.Context(), "ann", "right", peer); err != nil {
					t.Fatal(err)
				}
			}
			for range maxHashes { // a cached password does not wait
				must(t, s.hasher.acquire(t.Context()))
			}
			if _, err := s.Authenticate(t.Context(), "ann", "right", peer); err != nil {
				t.Fatal(err)
			}
			for range maxHashes {
				s.hasher.release()
			}
		})
	}
}

// TestLateLoginsTakeTurns: many logins of one peer delay another peer's login by one turn.
func TestLateLoginsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		must(t, l.enter(t.Context(), "a"))
		var got []string
		var wg sync.WaitGroup
		for i := range 6 {
			peer := "a"
			if i == 5 {
				peer = "b"
			}
			wg.Go(func() {
				must(t, l.enter(t.Context(), peer))
				got = append(got, peer) // only the login with the turn gets here
				l.leave(false)
			})
			synctest.Wait()
		}
		began := time.Now()
		l.leave(true)
		wg.Wait()
		if d := cmp.Diff([]string{"a", "b", "a", "a", "a", "a"}, got); d != "" {
			t.Errorf("turns: %s", d)
		}
		if took := time.Since(began); took != 5*latePause {
			t.Errorf("six wrong logins took %v; want a pause after each but the last", took)
		}
	})
}

// TestTheLineIsBounded: a full line accepts a newcomer, a random login is removed from it, and a
// login that stops waiting leaves it.
func TestTheLineIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		must(t, l.enter(t.Context(), "a"))
		ctx, cancel := context.WithCancel(t.Context())
		var lost, gone atomic.Int64
		var wg sync.WaitGroup
		for i := range maxLate + 50 {
			wg.Go(func() {
				if err := l.enter(ctx, fmt.Sprint(i%7)); surgetank.CodeOf(err) != surgetank.CodeBusy {
					t.Errorf("got %v", err)
				}
				if ctx.Err() == nil {
					lost.Add(1)
				} else {
					gone.Add(1)
				}
			})
		}
		synctest.Wait()
		if l.count != maxLate || lost.Load() != 50 {
			t.Errorf("%d logins wait, %d were removed from the line", l.count, lost.Load())
		}
		cancel()
		wg.Wait()
		if l.count != 0 || len(l.peers) != 0 || len(l.of) != 0 || gone.Load() != maxLate {
			t.Errorf("%d logins of %d peers are left in the line", l.count, len(l.peers))
		}
		l.leave(true)
		must(t, l.enter(t.Context(), "b")) // no login has the turn, so enter returns at once
	})
}

// TestGuestIsForTheFirstMinutes: guest's public password works only while there is no other user. A
// changed guest counts as a user.
func TestGuestIsForTheFirstMinutes(t *testing.T) {
	b := newMetaBroker()
	s, _ := open(t, b)
	ctx := t.Context()
	check := func(s *Store, what string, unclaimed bool, password string, want surgetank.Code) {
		t.Helper()
		if s.Unclaimed() != unclaimed {
			t.Errorf("%s: unclaimed is %v", what, !unclaimed)
		}
		if _, err := s.Authenticate(ctx, "guest", password, loopback); surgetank.CodeOf(err) != want {
			t.Errorf("%s: guest logs in with %s: %v", what, password, err)
		}
	}
	check(s, "at first", true, "guest", "")
	again, _ := open(t, b)
	check(again, "after a restart", true, "guest", "")
	_, err := s.PutUser(ctx, "ann", UserSpec{Password: ptr(Secret("x"))})
	must(t, err)
	check(s, "with a user", false, "guest", surgetank.CodeDenied)
	if _, err := s.Authenticate(ctx, "guest", "guest", loopback); !strings.Contains(fmt.Sprint(err), "user set guest") {
		t.Errorf("the answer does not say what to do: %v", err)
	}
	again, _ = open(t, b)
	check(again, "with a user, after a restart", false, "guest", surgetank.CodeDenied)
	must(t, s.DeleteUser(ctx, "ann"))
	check(s, "alone again", true, "guest", "")
	_, err = s.PutUser(ctx, "guest", UserSpec{Password: ptr(Secret("another"))})
	must(t, err)
	check(s, "with another password", false, "another", "")
	check(s, "with another password", false, "guest", surgetank.CodeDenied)
	again, _ = open(t, b)
	check(again, "with another password, after a restart", false, "another", "")
	must(t, s.DeleteUser(ctx, "guest"))
	if s.Unclaimed() {
		t.Error("a store without users lets everybody in")
	}
}
