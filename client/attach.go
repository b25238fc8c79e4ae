package client

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank"
)

// maxCredit is the most credit that the server accepts at once.
const maxCredit = 1 << 20

// attach creates the server's side of the subscription. With once, a failed request is not
// repeated.
func (s *subscription) attach(ctx context.Context, once bool) error {
	s.link.Lock()
	defer s.link.Unlock()
	s.mu.Lock()
	credit := s.granted
	if s.opts.ManualCredit {
		credit -= s.received
		if s.opts.NoAck { // waiting messages are settled already and are not delivered again
			credit -= len(s.waiting)
		}
	}
	s.mu.Unlock()
	body, err := json.Marshal(s.request(credit))
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "the request could not be encoded: %w", err)
	}
	var ok struct{ Subscription, TTL string }
	if err := s.c.call(ctx, request{method: "POST", path: queuePath(s.queue, "/subscribe"), body: body, once: once}, &ok); err != nil {
		return err
	}
	ttl, err := time.ParseDuration(ok.TTL)
	if err != nil || ttl <= 0 {
		ttl = 30 * time.Second
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path, s.ttl, s.poll = "/v1/subscriptions/"+segment(ok.Subscription), ttl, 1
	select {
	case <-s.lost: // an old token was about the side that is now replaced
	default:
	}
	return nil
}

// request returns the body of a subscribe request.
func (s *subscription) request(credit int) map[string]any {
	opts := &s.opts
	m := map[string]any{"credit": max(0, min(credit, maxCredit))}
	for name, v := range map[string]bool{"manual_credit": opts.ManualCredit, "exclusive": opts.Exclusive, "single_active": opts.Single} {
		if v {
			m[name] = true
		}
	}
	if opts.NoAck {
		m["ack"] = false
	}
	if opts.Priority != 0 {
		m["priority"] = opts.Priority
	}
	if opts.Name != "" {
		m["name"] = opts.Name
	}
	switch {
	case opts.Lease == surgetank.LeaseForever:
		m["lease"] = "forever"
	case opts.Lease != 0:
		m["lease"] = opts.Lease.String()
	}
	return m
}

// lose records that the server's side at path is gone.
func (s *subscription) lose(path string, why error) {
	s.mu.Lock()
	first := path != "" && s.path == path
	if first {
		s.path = ""
		if !s.opts.NoAck { // with NoAck they are settled and are not delivered again
			s.waiting = nil
		}
	}
	s.mu.Unlock()
	if first {
		s.c.opts.Logger.Warn("the server lost a subscription; it is attached again", "queue", s.queue, "reason", why)
		select {
		case s.lost <- struct{}{}:
		default:
		}
	}
}

// backoff makes growing pauses with jitter. Many clients of a restarted server then do not return
// at the same moment.
type backoff struct{ next time.Duration }

const (
	firstPause = 20 * time.Millisecond
	longPause  = 5 * time.Second
)

func (b *backoff) reset() { b.next = 0 }

// wait pauses. It returns false if ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, firstPause), longPause)
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
