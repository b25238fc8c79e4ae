package client_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/httpapi"
)

// leased waits until n messages are leased. If the server leases more later, other checks notice.
func leased(t *testing.T, s *server, want int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		i, err := s.broker.Queue(ctx, "q")
		if err != nil {
			t.Fatalf("waiting for %d leased messages: %v", want, err)
		}
		if i.Leased == want && i.Consumers == 1 {
			return
		}
	}
}

func receive(t *testing.T, sub surgetank.Subscription, n int) (got []surgetank.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(got) < n {
		var err error
		if got, err = sub.Receive(ctx, got, n-len(got), 1<<20); err != nil {
			t.Fatalf("%d of %d messages arrived: %v", len(got), n, err)
		}
	}
	return got
}

// A subscription is attached again with its owner's remaining credit. Leases from before have
// ended.
func TestSubscriptionContinues(t *testing.T) {
	for _, tc := range []struct {
		name   string
		opts   surgetank.SubscribeOptions
		setup  func(sub surgetank.Subscription)
		down   func(sub surgetank.Subscription) // while the server is away
		before int64                            // leased messages: 2 are received, the others wait
		after  int64
	}{
		{"manual credit", surgetank.SubscribeOptions{Credit: 3, ManualCredit: true}, nil, nil, 3, 1},
		{"credit while the server is away", surgetank.SubscribeOptions{Credit: 3, ManualCredit: true}, nil,
			func(sub surgetank.Subscription) { sub.AddCredit(4); sub.AddCredit(-1) }, 3, 4},
		{"standing credit", surgetank.SubscribeOptions{Credit: 5}, nil, nil, 5, 5},
		{"more standing credit", surgetank.SubscribeOptions{Credit: 5}, func(sub surgetank.Subscription) { sub.AddCredit(2) }, nil, 7, 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, httpapi.Limits{}, nil)
			var log bytes.Buffer
			c := dial(t, s.url, client.Options{RetryFor: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if _, _, err := c.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: -1}}, surgetank.DeclareNew); err != nil {
				t.Fatal(err)
			}
			sub, err := c.Subscribe(t.Context(), "q", tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			if tc.setup != nil {
				tc.setup(sub)
			}
			for i := range 20 {
				if _, err := s.broker.Publish(t.Context(), one(fmt.Sprint(i), "")); err != nil {
					t.Fatal(err)
				}
			}
			old := receive(t, sub, 2)
			leased(t, s, tc.before)
			s.restart(t, func() {
				if tc.down != nil {
					tc.down(sub)
				}
			})
			leased(t, s, tc.after)
			got := receive(t, sub, int(tc.after))
			if string(got[0].Body) != string(old[0].Body) || got[0].Receipt == old[0].Receipt {
				t.Errorf("the first message came as %q with receipt %v, before it was %q with %v", got[0].Body, got[0].Receipt, old[0].Body, old[0].Receipt)
			}
			results, err := c.Settle(t.Context(), []surgetank.Settlement{{Receipt: old[0].Receipt}, {Receipt: got[0].Receipt}})
			if err != nil || surgetank.CodeOf(results[0]) != surgetank.CodeLeaseLost || results[1] != nil {
				t.Errorf("settling one of before and one of after: %v, %v", results, err)
			}
			if err := sub.Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "attached again") {
				t.Errorf("nothing was logged: %s", log.String())
			}
		})
	}
}

// A final error ends a subscription that waits to be attached again. Close of the subscription or
// of the client ends it, too.
func TestSubscriptionEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(t *testing.T, s *server, c *client.Client, sub surgetank.Subscription)
		code surgetank.Code
	}{
		"the queue is gone": {func(t *testing.T, s *server, _ *client.Client, _ surgetank.Subscription) {
			if _, err := s.broker.DeleteQueue(t.Context(), "q", surgetank.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, surgetank.CodeNotFound},
		"somebody is exclusive": {func(t *testing.T, s *server, _ *client.Client, _ surgetank.Subscription) {
			if _, err := s.broker.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Exclusive: true}); err != nil {
				t.Fatal(err)
			}
		}, surgetank.CodeExists},
		"it is closed": {func(t *testing.T, _ *server, _ *client.Client, sub surgetank.Subscription) {
			if err := sub.Close(); err != nil && !surgetank.Passing(err) { // the server is away
				t.Fatal(err)
			}
		}, surgetank.CodeClosed},
		"the client is closed": {func(t *testing.T, _ *server, c *client.Client, _ surgetank.Subscription) {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}, surgetank.CodeClosed},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httpapi.Limits{}, nil)
			c := dial(t, s.url, client.Options{RetryFor: -1})
			if _, _, err := c.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
				t.Fatal(err)
			}
			sub, err := c.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1})
			if err != nil {
				t.Fatal(err)
			}
			s.restart(t, func() { tc.end(t, s, c, sub) })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err = sub.Receive(ctx, nil, 1, 1)
			wantCode(t, err, tc.code)
		})
	}
}

// If a transport panics, calls return errors, and the client continues.
func TestTransportThatFails(t *testing.T) {
	s := serve(t, httpapi.Limits{}, nil)
	var how atomic.Pointer[func()]
	tr := transportFunc(func(r *http.Request) (*http.Response, error) {
		if f := how.Load(); f != nil {
			(*f)()
			return nil, nil
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	c := dial(t, s.url, client.Options{Transport: tr, RetryFor: -1})
	for name, f := range map[string]func(){"panics": func() { panic("boom") }, "ends its goroutine": runtime.Goexit, "returns nothing": func() {}} {
		how.Store(&f)
		_, err := c.Publish(t.Context(), one("x", ""))
		wantCode(t, err, surgetank.CodeUncertain)
		_, err = c.Queues(t.Context())
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		how.Store(nil)
		if _, err := c.Queues(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c.CallbackFailures() != 4 {
		t.Errorf("%d failures were counted", c.CallbackFailures())
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A zero Client behaves like a closed one.
func TestZeroClient(t *testing.T) {
	var c client.Client
	_, err := c.Publish(t.Context(), one("x", ""))
	wantCode(t, err, surgetank.CodeClosed)
	_, err = c.Settle(t.Context(), nil)
	wantCode(t, err, surgetank.CodeClosed)
	_, err = c.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{})
	wantCode(t, err, surgetank.CodeClosed)
	_, err = c.Transact(t.Context(), nil, nil)
	wantCode(t, err, surgetank.CodeClosed)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
