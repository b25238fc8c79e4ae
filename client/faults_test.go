package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/httpapi"
)

// wire is a transport that a test can break. fault gets each request and chooses its fault.
type wire struct {
	inner    http.RoundTripper
	mu       sync.Mutex
	fault    func(r *http.Request) fault
	requests map[string]int // number of requests by path
}

type fault int

const (
	none      fault = iota
	noDial          // the request was not sent
	noAnswer        // the request was done, and the answer was lost
	badGatway       // a proxy answers
)

func newWire() *wire {
	return &wire{inner: &http.Transport{}, fault: func(*http.Request) fault { return none }, requests: map[string]int{}}
}

func (w *wire) set(f func(r *http.Request) fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

func (w *wire) count(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests[path]
}

// RoundTrip sends a request unless the test wants it broken.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests[r.URL.Path]++
	f := w.fault(r)
	w.mu.Unlock()
	switch f {
	case noDial:
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case badGatway:
		return &http.Response{StatusCode: 502, Status: "502 Bad Gateway", Body: io.NopCloser(strings.NewReader("<html>")), Header: http.Header{}, Request: r}, nil
	}
	res, err := w.inner.RoundTrip(r)
	if f == noAnswer && err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		return nil, &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
	}
	return res, err
}

// times breaks the first n requests whose path ends with suffix.
func times(n int64, suffix string, f fault) func(*http.Request) fault {
	var left atomic.Int64
	left.Store(n)
	return func(r *http.Request) fault {
		if strings.HasSuffix(r.URL.Path, suffix) && left.Add(-1) >= 0 {
			return f
		}
		return none
	}
}

func broken(t *testing.T) (*wire, *client.Client, *server) {
	t.Helper()
	s, w := serve(t, httpapi.Limits{}, nil), newWire()
	c := dial(t, s.url, client.Options{Transport: w})
	if _, _, err := c.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{DedupWindow: time.Hour}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	return w, c, s
}

func one(body, dedup string) []surgetank.Publishing {
	return []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(body), DedupID: dedup}}}
}

func wantCode(t *testing.T, err error, code surgetank.Code) {
	t.Helper()
	var e *surgetank.Error
	if surgetank.CodeOf(err) != code || err != nil && !errors.As(err, &e) {
		t.Fatalf("got %#v (%v), want code %q", err, err, code)
	}
}

func ready(t *testing.T, s *server) int64 {
	t.Helper()
	i, err := s.broker.Queue(context.Background(), "q")
	if err != nil {
		t.Fatal(err)
	}
	return i.Ready
}

// A request is repeated exactly when that is safe.
func TestRepeats(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  fault
		dedup  string
		code   surgetank.Code
		stored int64
		tries  int
	}{
		{"never sent", noDial, "", "", 1, 3},
		{"answer lost, no dedup id", noAnswer, "", "", 1, 3},
		{"answer lost, dedup id", noAnswer, "d", "", 1, 3},
		{"a proxy in between, no dedup id", badGatway, "", "", 1, 3},
		{"a proxy in between, dedup id", badGatway, "d", "", 1, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, c, s := broken(t)
			w.set(times(2, "/v1/publish", tc.fault))
			results, err := c.Publish(t.Context(), one("x", tc.dedup))
			if err == nil {
				err = results[0].Err
			}
			wantCode(t, err, tc.code)
			if n := ready(t, s); n != tc.stored || w.count("/v1/publish") != tc.tries {
				t.Fatalf("stored %d, want %d, in %d tries, want %d", n, tc.stored, w.count("/v1/publish"), tc.tries)
			}
			if err == nil && results[0].ID.Seq != 1 {
				t.Fatalf("%+v", results[0])
			}
		})
	}
}

func TestGivesUp(t *testing.T) {
	s, w := serve(t, httpapi.Limits{}, nil), newWire()
	c := dial(t, s.url, client.Options{Transport: w, RetryFor: -1})
	w.set(func(*http.Request) fault { return noDial })
	_, err := c.Publish(t.Context(), one("x", ""))
	wantCode(t, err, surgetank.CodeUnavailable)
	_, err = c.Queues(t.Context())
	wantCode(t, err, surgetank.CodeUnavailable)
	w.set(func(*http.Request) fault { return noAnswer })
	_, err = c.Queues(t.Context()) // the outcome of a read is never uncertain
	wantCode(t, err, surgetank.CodeUnavailable)
	_, err = c.PurgeQueue(t.Context(), "q")
	wantCode(t, err, surgetank.CodeUncertain)
	_, err = c.Settle(t.Context(), []surgetank.Settlement{{}})
	wantCode(t, err, surgetank.CodeUncertain)
}

func TestDialErrors(t *testing.T) {
	s := serve(t, httpapi.Limits{}, nil)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	host := strings.TrimPrefix(s.url, "http://")
	for _, tc := range []struct {
		name, url string
		opts      client.Options
		code      surgetank.Code
	}{
		{"no address", "", client.Options{}, surgetank.CodeInvalid},
		{"no scheme", "localhost:8080", client.Options{}, surgetank.CodeInvalid},
		{"amqp", "amqp://localhost", client.Options{}, surgetank.CodeInvalid},
		{"a path", s.url + "/v1", client.Options{}, surgetank.CodeInvalid},
		{"nobody there", "http://127.0.0.1:1", client.Options{RetryFor: -1}, surgetank.CodeUnavailable},
		{"something else there", other.URL, client.Options{}, surgetank.CodeInternal},
		{"wrong password", s.url, client.Options{User: "guest", Password: "nope"}, surgetank.CodeDenied},
		{"right password", s.url, client.Options{User: "guest", Password: "guest"}, ""},
		{"in the address", "http://guest:guest@" + host + "/", client.Options{}, ""},
		{"wrong in the address", "http://guest:nope@" + host, client.Options{}, surgetank.CodeDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := client.Dial(tc.url, tc.opts)
			wantCode(t, err, tc.code)
			if err == nil {
				c.Close()
			} else if strings.Contains(err.Error(), "nope") {
				t.Fatalf("the error shows the password: %v", err)
			}
		})
	}
}

// Messages of many callers share requests, in order.
func TestBatches(t *testing.T) {
	w, c, s := broken(t)
	const n = 5000
	hold := make(chan struct{})
	first := true
	w.set(func(r *http.Request) fault {
		if first && r.URL.Path == "/v1/publish" { // during the first request the others queue up
			first = false
			<-hold
		}
		return none
	})
	var wg sync.WaitGroup
	wg.Add(n)
	for i := range n {
		err := c.PublishAsync(t.Context(), one(fmt.Sprint(i), ""), func(r []surgetank.PublishResult, err error) {
			if err != nil || r[0].Err != nil || r[0].ID.Seq != uint64(i+1) {
				t.Errorf("%d: %+v, %v", i, r, err)
			}
			wg.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	wg.Wait()
	if got := w.count("/v1/publish"); got > 3 {
		t.Fatalf("%d requests for %d messages", got, n)
	}
	if ready(t, s) != n {
		t.Fatalf("stored %d", ready(t, s))
	}
}

// One refused message, whatever the reason, does not affect the other messages.
func TestBadMessagesAmongGood(t *testing.T) {
	_, c, s := broken(t)
	msgs := append(one("1", ""), one("2", "")...)
	msgs[0].Message.Group = "a\x01b"
	msgs = append(msgs, one("3", "")...)
	msgs[2].Message.Headers = []surgetank.Header{{Name: "\xff", Value: "x"}}
	msgs = append(msgs, one("4", "")...)
	msgs[3].Message.Delay = -time.Second
	msgs = append(msgs, one("5", "")...)
	msgs = append(msgs, surgetank.Publishing{Queues: []string{"q", fullname.Of("vhost", "q")}})
	results, err := c.Publish(t.Context(), msgs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []surgetank.Code{"invalid", "", "invalid", "invalid", "", "invalid"} {
		wantCode(t, results[i].Err, want)
	}
	if ready(t, s) != 2 {
		t.Fatalf("stored %d", ready(t, s))
	}
}

// TestBusyMessageAmongGood: a message that accept.rate refuses has its error in its own result, also
// if it is the last one left of its request.
func TestBusyMessageAmongGood(t *testing.T) {
	s := serve(t, httpapi.Limits{}, nil)
	c := dial(t, s.url, client.Options{RetryFor: time.Nanosecond})
	declare(t, c, "slow", surgetank.QueueConfig{Accept: surgetank.AcceptConfig{Rate: 0.001, Burst: 1}})
	declare(t, c, "free", surgetank.QueueConfig{})
	to := func(queue string) []surgetank.Publishing { return batch(queue, 0, 1) }
	for i, c1 := range []struct {
		msgs []surgetank.Publishing
		want []surgetank.Code
	}{
		{to("slow"), []surgetank.Code{""}},
		{to("slow"), []surgetank.Code{"busy"}},
		{append(to("slow"), to("free")...), []surgetank.Code{"busy", ""}},
		{append(to("\x01"), to("slow")...), []surgetank.Code{"invalid", "busy"}},
	} {
		results, err := c.Publish(t.Context(), c1.msgs)
		if err != nil {
			t.Fatalf("publish %d: %v", i, err)
		}
		for j, want := range c1.want {
			wantCode(t, results[j].Err, want)
			if e, is := results[j].Err.(*surgetank.Error); want == "busy" && (!is || e.Limit != surgetank.LimitAcceptRate || e.RetryAfter <= 0) {
				t.Errorf("publish %d, message %d: %+v", i, j, results[j].Err)
			}
		}
	}
}

func TestPendingIsBounded(t *testing.T) {
	s, w := serve(t, httpapi.Limits{}, nil), newWire()
	c := dial(t, s.url, client.Options{Transport: w, MaxPending: 1000})
	hold, held := make(chan struct{}), make(chan struct{}, 10)
	w.set(func(r *http.Request) fault {
		if r.URL.Path == "/v1/publish" {
			held <- struct{}{}
			<-hold
		}
		return none
	})
	done := func([]surgetank.PublishResult, error) {}
	body := strings.Repeat("x", 600)
	for range 2 { // one is sent, one waits
		if err := c.PublishAsync(t.Context(), one(body, ""), done); err != nil {
			t.Fatal(err)
		}
		if len(held) == 0 {
			<-held
		}
		held <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	wantCode(t, c.PublishAsync(ctx, one(body, ""), done), surgetank.CodeBusy)
	<-held
	close(hold)
}

// If the answer of a poll is lost, its messages do not stay leased without a consumer.
func TestLostPollAnswer(t *testing.T) {
	w, c, s := broken(t)
	if _, err := c.Publish(t.Context(), append(one("1", ""), one("2", "")...)); err != nil {
		t.Fatal(err)
	}
	w.set(times(2, "/receive", noAnswer))
	sub, err := c.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 10, Lease: surgetank.LeaseForever})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var got []surgetank.Delivery
	for len(got) < 2 {
		if got, err = sub.Receive(t.Context(), got, 10, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if string(got[0].Body) != "1" || string(got[1].Body) != "2" || got[0].Attempt != 1 {
		t.Fatalf("%+v", got)
	}
	results, err := c.Settle(t.Context(), []surgetank.Settlement{{Receipt: got[0].Receipt}, {Receipt: got[1].Receipt}})
	if err != nil || results[0] != nil || results[1] != nil {
		t.Fatal(results, err)
	}
	if i, err := s.broker.Queue(t.Context(), "q"); err != nil || i.Leased+i.Ready != 0 {
		t.Fatalf("%+v, %v", i, err)
	}
}

// A subscription without polls ends on the server. A subscription that the server has lost is
// attached again.
func TestSubscriptionLost(t *testing.T) {
	s := serve(t, httpapi.Limits{SubscriberTTL: 50 * time.Millisecond}, nil)
	w := newWire()
	c := dial(t, s.url, client.Options{Transport: w, RetryFor: -1})
	if _, _, err := c.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	sub, err := c.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if i, _ := s.broker.Queue(t.Context(), "q"); i.Consumers != 1 {
		t.Fatalf("%d consumers", i.Consumers)
	}
	w.set(func(r *http.Request) fault {
		if strings.Contains(r.URL.Path, "/subscriptions/") {
			return noDial
		}
		return none
	})
	w.inner.(*http.Transport).CloseIdleConnections()
	s.http.Close() // ends the current poll
	<-s.done
	s.done = make(chan struct{})
	s.listen(t, strings.TrimPrefix(s.url, "http://"), nil)
	for { // the server closes the subscription of a client that is away
		i, err := s.broker.Queue(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		if i.Consumers == 0 {
			break
		}
	}
	if _, err := s.broker.Publish(t.Context(), one("x", "")); err != nil {
		t.Fatal(err)
	}
	w.set(func(*http.Request) fault { return none })
	got, err := sub.Receive(t.Context(), nil, 1, 1) // the subscription is attached again
	if err != nil || len(got) != 1 {
		t.Fatal(len(got), err)
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
}

// Close finishes accepted calls and calls every done.
func TestCloseFinishes(t *testing.T) {
	_, c, s := broken(t)
	const n = 300
	var confirmed atomic.Int64
	for i := range n {
		if err := c.PublishAsync(t.Context(), one(fmt.Sprint(i), ""), func(_ []surgetank.PublishResult, err error) {
			if err == nil {
				confirmed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if confirmed.Load() != n || ready(t, s) != n {
		t.Fatalf("confirmed %d, stored %d of %d", confirmed.Load(), ready(t, s), n)
	}
}

// The rights of the user apply, and errors keep their codes.
func TestRights(t *testing.T) {
	s := serve(t, httpapi.Limits{}, nil)
	pw := auth.Secret("pw")
	if _, err := s.store.PutUser(t.Context(), "w", auth.UserSpec{Password: &pw}); err != nil {
		t.Fatal(err)
	}
	if err := s.store.PutPermission(t.Context(), "w", "/", auth.Permission{Configure: "q", Write: "q"}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s.url, client.Options{User: "w", Password: "pw"})
	if _, _, err := c.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	results, err := c.Publish(t.Context(), []surgetank.Publishing{one("x", "")[0], {Queues: []string{"theirs"}}})
	if err != nil || results[0].Err != nil {
		t.Fatal(results, err)
	}
	wantCode(t, results[1].Err, surgetank.CodeDenied)
	_, err = c.Receive(t.Context(), "q", surgetank.ReceiveOptions{})
	wantCode(t, err, surgetank.CodeDenied)
	_, err = c.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1})
	wantCode(t, err, surgetank.CodeDenied)
	_, err = c.Receive(t.Context(), "q", surgetank.ReceiveOptions{Lease: surgetank.LeaseForever})
	wantCode(t, err, surgetank.CodeInvalid)
}
