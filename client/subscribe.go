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

// What one poll asks for. Messages wait here only after the server leased them to this
// subscription, so asking for them early changes nothing about who gets which.
const (
	pollMessages = 1000
	pollBytes    = 4 << 20
)

// subscription is a consumer on the server and a goroutine that polls it while nothing waits here.
//
// A poll has a number. When its answer may have been lost the same number is sent again, and the
// server first gives back what that answer carried: no message stays leased to nobody.
//
// The server's side can get lost: by a restart, or because the server heard nothing from us for
// longer than its limit. Then the polling goroutine attaches another one, again and again until
// that works, the error is final, or the subscription is closed.
type subscription struct {
	c     *Client
	queue string
	opts  surgetank.SubscribeOptions
	ready chan struct{}
	drain chan struct{} // has a token when nothing waits here any more
	lost  chan struct{} // has a token when the server's side was found to be gone
	floor atomic.Uint64
	stop  context.CancelFunc
	ended chan struct{} // closed when the polling goroutine has ended
	gone  chan struct{} // closed when the server's side is closed, or given up

	link sync.Mutex // held while a side is attached or its credit changes, so that no credit is counted twice

	mu        sync.Mutex
	path      string // of the subscription on the server; "": it is gone
	ttl       time.Duration
	granted   int // credit, from the first on
	taken     int // messages that were received
	waiting   []surgetank.Delivery
	err       error // why it ended
	poll      uint64
	cancelled bool
	closed    bool
}

// Subscribe attaches a consumer. See surgetank.Broker.
//
// A subscription continues through restarts of the server. While the server is away, Receive waits.
// Then the subscription is attached again. The leases from before are void: settling them is
// CodeLeaseLost, and the messages are delivered again, with new receipts. What waited here
// unreceived is dropped, as it comes again, too. With ManualCredit the credit goes on where it was:
// each message that was received has used one. Without it there is the full credit again, although
// messages from before may still be worked on. Floor is 0 until the first messages come.
//
// The subscription ends with CodeClosed after Close, Cancel or Client.Close, with CodeNotFound when
// its queue is gone (a transient queue does not survive a restart), with CodeExists when somebody
// else is exclusive meanwhile, and with CodeDenied.
func (c *Client) Subscribe(ctx context.Context, queue string, opts surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	if err := checkName(queue); err != nil {
		return nil, err
	}
	if err := c.alive(); err != nil {
		return nil, err
	}
	if ctx == nil {
		return nil, noContext()
	}
	s := &subscription{c: c, queue: queue, opts: opts, granted: opts.Credit, ready: make(chan struct{}, 1), drain: make(chan struct{}, 1),
		lost: make(chan struct{}, 1), ended: make(chan struct{}), gone: make(chan struct{})}
	if err := s.attach(ctx, false); err != nil {
		return nil, plain(err)
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
	go s.keepAlive(s.ttl)
	return s, nil
}

// side gives the path of the server's side and the number of the next poll.
func (s *subscription) side() (path string, poll uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.path, s.poll
}

// run polls whenever nothing waits here, until the subscription ends.
func (s *subscription) run(ctx context.Context) {
	defer s.c.pollers.Done()
	defer close(s.ended)
	pause := &backoff{}
	for {
		path, number := s.side()
		if path == "" {
			switch err := s.attach(ctx, true); {
			case ctx.Err() != nil:
				return
			case err == nil:
				s.c.opts.Logger.Info("a subscription was attached again", "queue", s.queue)
			case surgetank.Passing(plain(err)):
				if !pause.wait(ctx) {
					return
				}
			default:
				s.finish(plain(err))
				return
			}
			continue
		}
		list, err := s.ask(ctx, path, number)
		var r *refusal
		switch {
		case ctx.Err() != nil:
			s.putFrom(path, list)
			return
		case err == nil:
			pause.reset()
			s.putFrom(path, list)
		case errors.As(err, &r) && r.Code == surgetank.CodeClosed:
			s.lose(path, err)
			if !pause.wait(ctx) {
				return
			}
			continue
		case !surgetank.Passing(plain(err)):
			s.finish(plain(err))
			return
		default: // the answer is missing: ask for it again
			if !pause.wait(ctx) {
				return
			}
			continue
		}
		for path != "" && s.holds() {
			select {
			case <-s.drain:
			case <-s.lost:
				path = ""
			case <-ctx.Done():
				return
			}
		}
	}
}

// ask polls once.
func (s *subscription) ask(ctx context.Context, path string, number uint64) ([]surgetank.Delivery, error) {
	body := []byte(`{"max":` + itoa(pollMessages) + `,"max_bytes":` + itoa(pollBytes) + `,"wait":"` + pollWait.String() + `","poll":` + strconv.FormatUint(number, 10) + `}`)
	var w wireMessages
	if err := s.c.call(ctx, request{method: "POST", path: path + "/receive", body: body, wait: pollWait, once: true}, &w); err != nil {
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

// putFrom adds what came from the server's side at path. When that was lost meanwhile, so are the
// leases.
func (s *subscription) putFrom(path string, list []surgetank.Delivery) {
	s.mu.Lock()
	if s.path == path {
		s.poll++
	}
	if s.path == path || s.opts.NoAck {
		s.waiting = append(s.waiting, list...)
	}
	news := len(s.waiting) > 0
	s.mu.Unlock()
	if news {
		s.nudge()
	}
}

// finish says that nothing more will come.
func (s *subscription) finish(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.nudge()
}

func (s *subscription) nudge() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
	if s.opts.Notify != nil {
		s.c.calls.Apart("SubscribeOptions.Notify", s.opts.Notify)
	}
}

// keepAlive tells the server now and then that we are there, also while nobody polls because
// messages wait here, or because the subscription was cancelled and its messages are still being
// worked on.
func (s *subscription) keepAlive(ttl time.Duration) {
	defer s.c.pollers.Done()
	t := time.NewTicker(min(ttl/3, lookPause))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			path, polling := s.idle()
			if path == "" || polling {
				continue
			}
			var r *refusal
			err := s.c.call(s.c.ctx, request{method: "POST", path: path + "/credit", once: true}, nil)
			if errors.As(err, &r) && r.Code == surgetank.CodeClosed {
				s.lose(path, err)
			}
		case <-s.gone:
			return
		case <-s.c.ctx.Done():
			return
		}
	}
}

// lookPause is how long messages wait here before we look whether the server still knows of their
// leases.
const lookPause = 2 * time.Second

// idle gives the path of the server's side, and whether a poll is under way, which keeps it alive.
func (s *subscription) idle() (path string, polling bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.path, len(s.waiting) == 0 && !s.cancelled && s.err == nil
}

// Ready has a token when messages wait or the subscription has ended.
func (s *subscription) Ready() <-chan struct{} { return s.ready }

// Floor: every message below is settled for good; it is as new as the last messages that came.
func (s *subscription) Floor() (seq, entry uint64) { return s.floor.Load(), 0 }

// AddCredit gives credit. It waits for the server to take it, unless the subscription is to be
// attached again: that takes it along.
func (s *subscription) AddCredit(n int) {
	n = max(-maxCredit, min(n, maxCredit))
	s.adjust(map[string]int{"add": n}, func() {
		used := 0
		if s.opts.ManualCredit {
			used = s.taken
		}
		s.granted = max(s.granted+n, min(used, s.granted))
	})
}

// SetPoolLimit sets what the subscriptions of the pool may hold. It waits for the server to take
// it, as AddCredit does.
func (s *subscription) SetPoolLimit(n int) {
	n = max(0, min(n, maxCredit))
	s.adjust(map[string]int{"pool_limit": n}, func() {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		if s.opts.Pool != 0 {
			s.c.limits[s.opts.Pool] = n
		}
	})
}

// adjust notes a change and tells the server's side. A side that may or may not have got it is
// given up, and another one attached.
func (s *subscription) adjust(m map[string]int, note func()) {
	s.link.Lock()
	defer s.link.Unlock()
	s.mu.Lock()
	note()
	path := s.path
	s.mu.Unlock()
	if path == "" {
		return
	}
	body, err := json.Marshal(m)
	if err == nil {
		err = s.c.call(s.c.ctx, request{method: "POST", path: path + "/credit", body: body}, nil)
	}
	var r *refusal
	switch {
	case err == nil, s.c.ctx.Err() != nil:
	case errors.As(err, &r) && r.Code == surgetank.CodeClosed, surgetank.Passing(plain(err)):
		s.lose(path, err)
	default:
		s.finish(plain(err)) // a subscription with less credit than its owner thinks would stand still in silence
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
	s.taken += n
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
	if ctx == nil {
		return buf, noContext()
	}
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
	back, poll, side := s.waiting, s.poll, s.path
	s.waiting = nil
	if s.err == nil {
		s.err = surgetank.Errorf(surgetank.CodeClosed, "the subscription was ended")
	}
	first := !s.cancelled
	s.cancelled = true
	s.mu.Unlock()
	s.nudge()
	if side == "" {
		return nil // the server has lost it, and the leases with it
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, s.c.opts.Timeout)
	defer cancel()
	var list []surgetank.Settlement
	for i := range back {
		if back[i].Receipt != (surgetank.Receipt{}) {
			list = append(list, surgetank.Settlement{Receipt: back[i].Receipt, Op: surgetank.Nack, Uncounted: true})
		}
	}
	path := side + below
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
	if errors.As(err, &r) && r.Code == surgetank.CodeClosed || surgetank.CodeOf(plain(err)) == surgetank.CodeUnavailable {
		return nil // the server's side is gone, and the leases with it
	}
	return plain(err)
}
