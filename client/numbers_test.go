package client_test

import (
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/httpapi"
)

// elsewhere is a transport that sends requests to another server after one was set.
type elsewhere struct {
	http.RoundTripper
	host atomic.Pointer[string]
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if host := e.host.Load(); host != nil {
		r = r.Clone(r.Context())
		r.URL.Host = *host
	}
	return e.RoundTripper.RoundTrip(r)
}

func declare(t *testing.T, b surgetank.Broker, name string, config surgetank.QueueConfig) {
	t.Helper()
	if _, _, err := b.DeclareQueue(t.Context(), name, config, surgetank.DeclareOrUpdate); err != nil {
		t.Fatal(err)
	}
}

func batch(queue string, from, n int) (ps []surgetank.Publishing) {
	for i := range n {
		ps = append(ps, surgetank.Publishing{Queues: []string{queue}, Message: surgetank.Message{Body: fmt.Appendf(nil, "%d", from+i)}})
	}
	return ps
}

func publish(t *testing.T, c surgetank.Broker, ps []surgetank.Publishing) []surgetank.PublishResult {
	t.Helper()
	results, err := c.Publish(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// TestRepeatsPartOfABatch loses the answer to a batch with a refused message. The repeated batch
// finds the stored messages, and reports the refusal.
func TestRepeatsPartOfABatch(t *testing.T) {
	s, w := serve(t, httpapi.Limits{}, nil), newWire()
	c := dial(t, s.url, client.Options{Transport: w})
	declare(t, c, "q", surgetank.QueueConfig{})
	for round := range 3 {
		ps := batch("q", 10*round, 4)
		ps[2].Queues = []string{"q", "nowhere"}
		w.set(times(2, "/v1/publish", noAnswer))
		results := publish(t, c, ps)
		for i, r := range results {
			if code := surgetank.CodeOf(r.Err); (i == 2) != (code == surgetank.CodeNotFound) || (i == 2) != (code != "") {
				t.Fatalf("round %d: message %d: %+v", round, i, r)
			}
		}
		if n := ready(t, s); n != int64(3*(round+1)) {
			t.Fatalf("round %d: %d messages are stored", round, n)
		}
	}
}

// TestServerThatForgot continues with a server that does not know the client's publisher id.
// Messages that were never sent are stored. Messages that may have been stored are uncertain.
func TestServerThatForgot(t *testing.T) {
	a, b := serve(t, httpapi.Limits{}, nil), serve(t, httpapi.Limits{}, nil)
	w := newWire()
	e := &elsewhere{RoundTripper: w}
	c := dial(t, a.url, client.Options{Transport: e})
	declare(t, a.broker, "q", surgetank.QueueConfig{})
	declare(t, b.broker, "q", surgetank.QueueConfig{})
	publish(t, c, batch("q", 0, 3))
	u, _ := url.Parse(b.url)
	e.host.Store(&u.Host)
	for _, r := range publish(t, c, batch("q", 3, 5)) {
		if r.Err != nil || r.Duplicate {
			t.Fatalf("%+v", r)
		}
	}
	if n := ready(t, b); n != 5 {
		t.Fatalf("%d messages are stored", n)
	}
	back, _ := url.Parse(a.url)
	w.set(func(r *http.Request) fault { // server b's answer is lost, and server a does not know the new publisher id
		if r.URL.Path == "/v1/publish" && e.host.CompareAndSwap(&u.Host, &back.Host) {
			return noAnswer
		}
		return none
	})
	for _, r := range publish(t, c, batch("q", 8, 2)) {
		wantCode(t, r.Err, surgetank.CodeUncertain)
	}
	if n, m := ready(t, a), ready(t, b); n != 3 || m != 7 {
		t.Fatalf("%d and %d messages are stored", n, m)
	}
	for _, r := range publish(t, c, batch("q", 10, 2)) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// TestOwnNumbers publishes with the caller's publisher ids, some in each call, and again from
// another client.
func TestOwnNumbers(t *testing.T) {
	s := serve(t, httpapi.Limits{}, nil)
	declare(t, s.broker, "q", surgetank.QueueConfig{})
	ps := batch("q", 0, 6)
	for i := range 4 {
		ps[i].Publisher, ps[i].Sequence = fmt.Sprintf("own-publisher-number-%d", i%2), uint64(1+i/2)
	}
	ps = append(ps, surgetank.Publishing{Queues: []string{"q"}, Publisher: "short", Sequence: 1})
	for round := range 2 {
		c := dial(t, s.url, client.Options{})
		for i, r := range publish(t, c, ps) {
			if i == 6 {
				wantCode(t, r.Err, surgetank.CodeInvalid)
			} else if r.Err != nil || r.Duplicate != (round == 1 && i < 4) {
				t.Fatalf("round %d: message %d: %+v", round, i, r)
			}
		}
	}
	if n := ready(t, s); n != 8 {
		t.Fatalf("%d messages are stored", n)
	}
	_, err := dial(t, s.url, client.Options{}).Transact(t.Context(), ps[:1], nil)
	wantCode(t, err, surgetank.CodeInvalid)
}

// TestGivesUpAPublish: a publish that cannot be repeated in time is uncertain, and the next publish
// succeeds.
func TestGivesUpAPublish(t *testing.T) {
	s, w := serve(t, httpapi.Limits{}, nil), newWire()
	c := dial(t, s.url, client.Options{Transport: w, RetryFor: time.Nanosecond})
	declare(t, c, "q", surgetank.QueueConfig{})
	for _, f := range []fault{badGatway, noAnswer} {
		w.set(times(1, "/v1/publish", f))
		_, err := c.Publish(t.Context(), batch("q", 0, 2))
		wantCode(t, err, surgetank.CodeUncertain)
		if r := publish(t, c, batch("q", 2, 2)); r[0].Err != nil || r[1].Err != nil {
			t.Fatalf("%+v", r)
		}
	}
	if n := ready(t, s); n != 6 {
		t.Fatalf("%d messages are stored", n)
	}
}
