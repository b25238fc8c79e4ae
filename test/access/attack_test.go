package access

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestProxies: until a user exists, a server trusts clients on its own machine. As soon as a user
// exists, a client behind a proxy must not get in without a password.
func TestProxies(t *testing.T) {
	r := newRig(t)
	web, amqps := r.forward(r.http), r.forward(r.amqp)
	r.enrol(role{user: "ada", pass: "right", tags: []string{"administrator"}})
	requests := 0
	for _, withGuest := range []bool{true, false} {
		if !withGuest {
			r.must("DELETE", "/v1/users/guest", "")
		}
		for _, op := range httpOps {
			for _, who := range []role{nobody, guest} {
				if who.name == "guest" && !withGuest && op.name != "users" {
					continue // each try of an unknown user costs the server a password hash
				}
				requests++
				status, answer, err := send(t.Context(), web, who, op.method, op.path, op.body)
				if err != nil || status != 401 {
					t.Errorf("%s by %s through a proxy: %d %s, %v", op.name, who.name, status, answer, err)
				}
			}
		}
		if c, err := r.connect(amqps, "guest", "guest"); err == nil {
			c.Close()
			t.Errorf("guest gets in over AMQP through a proxy (guest exists: %v)", withGuest)
		}
	}
	if status, _, err := send(t.Context(), web, role{user: "ada", pass: "right"}, "GET", "/v1/users", ""); err != nil || status != 200 {
		t.Errorf("the right password through a proxy: %d, %v", status, err)
	}
	t.Logf("%d requests without a password were refused", requests)
}

// TestLockout: attackers guess passwords over HTTP and AMQP, directly and through a proxy.
// Meanwhile every user must be able to log in with the right password. Each user logs in for the
// first time, so the server has no cached password.
func TestLockout(t *testing.T) {
	r := newRig(t)
	web, amqps := r.forward(r.http), r.forward(r.amqp)
	var users []role
	for i := range *logins {
		users = append(users, role{user: fmt.Sprint("user", i), pass: "right", perm: all.perm})
		r.enrol(users[i])
	}
	ctx, stop := context.WithCancel(t.Context())
	var guesses, let atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for w := range *attackers {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprint("user", i%(*logins+1)) // one of these users does not exist
				if w%2 == 0 {
					if status, _, err := send(ctx, [...]string{r.http, web}[i%2], role{user: name, pass: fmt.Sprint("guess", i)}, "GET", "/v1/whoami", ""); err == nil && status == 200 {
						let.Add(1)
					}
				} else if c, err := r.connect([...]string{r.amqp, amqps}[i%2], name, fmt.Sprint("guess", i)); err == nil {
					c.Close()
					let.Add(1)
				}
				guesses.Add(1)
			}
		})
	}
	for guesses.Load() < 12 { // wait until the server counts too many failures of the address
		runtime.Gosched()
	}
	for i, u := range users {
		began := time.Now()
		if i%2 == 0 {
			if status, answer := r.ask(u, "GET", "/v1/whoami", ""); status != 200 {
				t.Errorf("%s over HTTP: %d %s", u.user, status, answer)
			}
		} else if c, err := r.connect(r.amqp, u.user, u.pass); err != nil {
			t.Errorf("%s over AMQP: %v", u.user, err)
		} else {
			c.Close()
		}
		t.Logf("%s was let in after %v", u.user, time.Since(began).Round(time.Millisecond))
	}
	stop()
	wg.Wait()
	if n := let.Load(); n > 0 {
		t.Errorf("%d of %d guesses were let in", n, guesses.Load())
	}
	t.Logf("%d guesses", guesses.Load())
}

// TestReadModifyWrite: operators change a queue's settings, pause and resume it, and change its
// policies, all at the same time. Afterwards the last confirmed change of each setting must be in
// force.
func TestReadModifyWrite(t *testing.T) {
	r := newRig(t)
	r.must("PUT", "/v1/queues/q", `{}`)
	const rounds = 25
	for i := range rounds {
		paused := i%2 == 0
		changes := []struct{ method, path, body string }{
			{"PUT", "/v1/queues/q?mode=merge", fmt.Sprintf(`{"ttl":"%ds"}`, 100+i)},
			{"PUT", "/v1/queues/q?mode=merge", fmt.Sprintf(`{"max_messages":%d}`, 1000+i)},
			{"PUT", "/v1/queues/q?mode=merge", fmt.Sprintf(`{"level":{"rate":"%d/s"}}`, 10+i)},
			{"POST", map[bool]string{true: "/v1/queues/q/pause", false: "/v1/queues/q/resume"}[paused], ""},
			{"PUT", "/v1/vhosts/%2F/policies/p", fmt.Sprintf(`{"pattern":"^q$","settings":{"max_bytes":%d}}`, 1<<20+1+2*i)},
		}
		var wg sync.WaitGroup
		for _, c := range changes {
			wg.Go(func() {
				if status, answer, err := send(t.Context(), r.http, r.machine(), c.method, c.path, c.body); err != nil || status/100 != 2 {
					t.Errorf("%s %s: %d %s %v", c.method, c.path, status, answer, err)
				}
			})
		}
		wg.Wait()
		var q struct {
			Settings struct {
				TTL         string `json:"ttl"`
				MaxMessages int    `json:"max_messages"`
				MaxBytes    any    `json:"max_bytes"`
				Paused      bool   `json:"paused"`
				Level       struct {
					Rate string `json:"rate"`
				} `json:"level"`
			} `json:"settings"`
		}
		answer := r.must("GET", "/v1/queues/q", "")
		if err := json.Unmarshal([]byte(answer), &q); err != nil {
			t.Fatal(err)
		}
		ttl, err := time.ParseDuration(q.Settings.TTL)
		if err != nil || ttl != time.Duration(100+i)*time.Second || q.Settings.MaxMessages != 1000+i || fmt.Sprint(q.Settings.MaxBytes) != fmt.Sprint(1<<20+1+2*i) ||
			q.Settings.Level.Rate != fmt.Sprintf("%d/s", 10+i) || q.Settings.Paused != paused {
			t.Fatalf("round %d, paused %v: a confirmed change was undone: %s", i, paused, answer)
		}
	}
}
