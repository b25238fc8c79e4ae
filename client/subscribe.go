package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
)

// What one poll asks for. Messages wait here only after the server leased them to this subscription, so asking for them early changes
// nothing about who gets which.
const (
	pollMessages = 1000
	pollBytes    = 4 << 20
)

// subscription is a consumer on the server and a goroutine that polls it while nothing waits here.
//
// A poll has a number. When its answer may have been lost the same number is sent again, and the server first gives back what
// that answer carried: no message stays leased to nobody.
type subscription struct {
	c     *Client
	path  string // of the subscription on the server
	opts  surgetank.SubscribeOptions
	ttl   time.Duration
	ready chan struct{}
	drain chan struct{} // has a token when nothing waits here any more
	floor atomic.Uint64
	stop  context.CancelFunc
	ended chan struct{} // closed when the polling goroutine has ended
	gone  chan struct{} // closed when the server's side is closed, or given up

	mu        sync.Mutex
	waiting   []surgetank.Delivery
	err       error // why it ended
	poll      uint64
	cancelled bool
	closed    bool
}

// Subscribe attaches a consumer. See surgetank.Broker. When the server restarts, the subscription ends with CodeClosed.
func (c *Client) Subscribe(ctx context.Context, queue string, opts surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	if err := checkName(queue); err != nil {
		return nil, err
	}
	m := map[string]any{"credit": opts.Credit}
	for name, v := range map[string]bool{"manual_credit": opts.ManualCredit, "exclusive": opts.Exclusive, "single_active": opts.Single} {
		if v {
			m[name] = true
		}
	}
	if opts.NoAck {
		m["ack"] = false
	}
	if opts.GroupRun != 0 {
		m["group_run"] = opts.GroupRun
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
	if opts.Pool != 0 {
		m["pool"] = c.pools + "-" + strconv.FormatUint(opts.Pool, 10)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "the request could not be encoded: %w", err)
	}
	var ok struct{ Subscription, TTL string }
	if err := c.ask(ctx, request{method: "POST", path: queuePath(queue, "/subscribe"), body: body}, &ok); err != nil {
		return nil, err
	}
	s := &subscription{c: c, path: "/v1/subscriptions/" + segment(ok.Subscription), opts: opts, ready: make(chan struct{}, 1), drain: make(chan struct{}, 1),
		ended: make(chan struct{}), gone: make(chan struct{})}
	if s.ttl, err = time.ParseDuration(ok.TTL); err != nil || s.ttl <= 0 {
		s.ttl = 30 * time.Second
	}
	poll, stop := context.WithCancel(c.ctx)
	s.stop = stop
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		stop()
		return nil, errClosed() // the server closes it when nobody asks
	}
	c.subs[s] = struct{}{}
	c.pollers.Add(2)
	c.mu.Unlock()
	go s.run(poll)
	go s.keepAlive()
	return s, nil
}

// run polls whenever nothing waits here, until the subscription ends.
func (s *subscription) run(ctx context.Context) {
	defer s.c.pollers.Done()
	defer close(s.ended)
	s.poll = 1
	for pause := 20 * time.Millisecond; ; {
		list, err := s.ask(ctx)
		var r *refusal
		switch {
		case ctx.Err() != nil:
			s.put(list, nil)
			return
		case err == nil:
			pause = 20 * time.Millisecond
			s.mu.Lock()
			s.poll++
			s.mu.Unlock()
			s.put(list, nil)
		case errors.As(err, &r) && r.Code != surgetank.CodeBusy && r.Code != surgetank.CodeUncertain:
			s.put(nil, r.err())
			return
		case surgetank.CodeOf(err) == surgetank.CodeInternal && r == nil:
			s.put(nil, err)
			return
		default: // the answer is missing: ask for it again
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = min(2*pause, s.ttl/4)
			continue
		}
		for s.holds() {
			select {
			case <-s.drain:
			case <-ctx.Done():
				return
			}
		}
	}
}

// ask polls once.
func (s *subscription) ask(ctx context.Context) ([]surgetank.Delivery, error) {
	s.mu.Lock()
	number := s.poll
	s.mu.Unlock()
	body := []byte(`{"max":` + itoa(pollMessages) + `,"max_bytes":` + itoa(pollBytes) + `,"wait":"` + pollWait.String() + `","poll":` + strconv.FormatUint(number, 10) + `}`)
	var w wireMessages
	if err := s.c.call(ctx, request{method: "POST", path: s.path + "/receive", body: body, wait: pollWait, once: true}, &w); err != nil {
		return nil, err
	}
	s.floor.Store(max(s.floor.Load(), w.Floor))
	return w.appendTo(nil)
}

func (s *subscription) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0
}

// put adds what came, or says that nothing more will.
func (s *subscription) put(list []surgetank.Delivery, err error) {
	s.mu.Lock()
	s.waiting = append(s.waiting, list...)
	if err != nil && s.err == nil {
		s.err = err
	}
	news := len(s.waiting) > 0 || s.err != nil
	s.mu.Unlock()
	if news {
		s.nudge()
	}
}

func (s *subscription) nudge() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
	if s.opts.Notify != nil {
		s.opts.Notify()
	}
}

// keepAlive tells the server now and then that we are there, also while nobody polls because messages wait here, or
// because the subscription was cancelled and its messages are still being worked on.
func (s *subscription) keepAlive() {
	defer s.c.pollers.Done()
	t := time.NewTicker(s.ttl / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			var r *refusal
			err := s.c.call(s.c.ctx, request{method: "POST", path: s.path + "/credit", once: true}, nil)
			if errors.As(err, &r) && r.Code == surgetank.CodeClosed {
				return
			}
		case <-s.gone:
			return
		case <-s.c.ctx.Done():
			return
		}
	}
}

// Ready has a token when messages wait or the subscription has ended.
func (s *subscription) Ready() <-chan struct{} { return s.ready }

// Floor: every message below is settled for good; it is as new as the last messages that came.
func (s *subscription) Floor() (seq, entry uint64) { return s.floor.Load(), 0 }

// AddCredit gives credit. It waits for the server to take it.
func (s *subscription) AddCredit(n int) { s.adjust(map[string]int{"add": n}) }

// SetPoolLimit sets what the subscriptions of the pool may hold. It waits for the server to take it.
func (s *subscription) SetPoolLimit(n int) { s.adjust(map[string]int{"pool_limit": n}) }

func (s *subscription) adjust(m map[string]int) {
	body, err := json.Marshal(m)
	if err == nil {
		err = s.c.call(s.c.ctx, request{method: "POST", path: s.path + "/credit", body: body}, nil)
	}
	if err != nil && s.c.ctx.Err() == nil {
		s.put(nil, plain(err)) // a subscription with less credit than its owner thinks would stand still in silence
	}
}

// TryReceive appends what waits. See surgetank.Subscription.
func (s *subscription) TryReceive(buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for n < len(s.waiting) && n < limit && (n == 0 || bytes < maxBytes) {
		bytes += len(s.waiting[n].Body)
		n++
	}
	if n == 0 {
		if s.err != nil {
			s.nudge() // others may wait, too
		}
		return buf, s.err
	}
	buf = append(buf, s.waiting[:n]...)
	if s.waiting = s.waiting[n:]; len(s.waiting) == 0 {
		s.waiting = nil
		select {
		case s.drain <- struct{}{}:
		default:
		}
	}
	if len(s.waiting) > 0 || s.err != nil {
		s.nudge()
	}
	return buf, nil
}

// Receive waits for messages. See surgetank.Subscription.
func (s *subscription) Receive(ctx context.Context, buf []surgetank.Delivery, limit, maxBytes int) ([]surgetank.Delivery, error) {
	have := len(buf)
	for {
		var err error
		if buf, err = s.TryReceive(buf, limit, maxBytes); err != nil || len(buf) > have {
			return buf, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return buf, ctx.Err()
		}
	}
}

// Cancel ends the hand-outs; received messages stay leased until Close or the client's end.
func (s *subscription) Cancel() error { return s.leave(http.MethodPost, "/cancel") }

// Close ends the subscription; received messages go back and count an attempt.
func (s *subscription) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	err := s.leave(http.MethodDelete, "")
	close(s.gone)
	s.c.mu.Lock()
	delete(s.c.subs, s)
	s.c.mu.Unlock()
	return err
}

// leave stops polling, gives back what nobody received, and tells the server.
func (s *subscription) leave(method, below string) error {
	s.stop()
	<-s.ended
	s.mu.Lock()
	back, poll := s.waiting, s.poll
	s.waiting = nil
	if s.err == nil {
		s.err = surgetank.Errorf(surgetank.CodeClosed, "the subscription was ended")
	}
	first := !s.cancelled
	s.cancelled = true
	s.mu.Unlock()
	s.nudge()
	ctx, cancel := context.WithTimeout(s.c.ctx, s.c.opts.Timeout)
	defer cancel()
	var list []surgetank.Settlement
	for i := range back {
		if back[i].Receipt != (surgetank.Receipt{}) {
			list = append(list, surgetank.Settlement{Receipt: back[i].Receipt, Op: surgetank.Nack, Uncounted: true})
		}
	}
	path := s.path + below
	if first {
		path += "?unseen=" + strconv.FormatUint(poll, 10)
	}
	var err error
	if len(list) > 0 {
		_, err = s.c.settler.request(list)
	}
	if e := s.c.call(ctx, request{method: method, path: path, repeat: true}, nil); err == nil {
		err = e
	}
	var r *refusal
	if errors.As(err, &r) && r.Code == surgetank.CodeClosed || surgetank.CodeOf(plain(err)) == surgetank.CodeClosed {
		return nil // the server's side is gone, and the leases with it
	}
	return plain(err)
}
