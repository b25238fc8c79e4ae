package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
)

// Limits of one poll. Messages wait here only after the server has leased them to this
// subscription, so an early poll does not change which consumer gets them.
const (
	pollMessages = 1000
	pollBytes    = 4 << 20
)

// subscription is a consumer on the server and a goroutine in the client. The goroutine polls while
// no message waits here, in the client.
//
// A poll has a number. If an answer may have been lost, the poll is repeated with the same number.
// The server then first returns the messages of the lost answer to the queue, so that no message
// stays leased without a consumer.
//
// The server can lose its side: by a restart, or if it got no request for longer than its limit.
// The polling goroutine then attaches a new side. It repeats this until it succeeds, the error is
// final, or the subscription is closed.
type subscription struct {
	c     *Client
	queue string
	opts  surgetank.SubscribeOptions
	ready chan struct{}
	drain chan struct{} // has a token when no message waits here
	lost  chan struct{} // has a token when the server's side is known to be gone
	stop  context.CancelFunc
	ended chan struct{} // closed when the polling goroutine has ended
	gone  chan struct{} // closed when the server's side is closed or abandoned

	link sync.Mutex // locked while a side is attached or its credit changes, so that no credit is counted twice

	mu        sync.Mutex
	path      string // path of the server's side; "": there is none
	ttl       time.Duration
	granted   int // all credit since the beginning
	received  int // messages that were received here
	waiting   []surgetank.Delivery
	err       error // why the subscription ended
	poll      uint64
	cancelled bool
	closed    bool
}

// Subscribe attaches a consumer. See surgetank.Broker.
//
// A subscription survives restarts of the server. While the server is away, Receive waits. Then the
// client attaches the subscription again. Leases from before have ended: their settlements fail
// with CodeLeaseLost, and the messages are delivered again with new receipts. Messages that waited
// here are dropped, because they are delivered again too.
//
// With ManualCredit, the remaining credit is kept: each received message has used one. Otherwise
// the full credit is available again, although handlers may still have messages from before.
//
// The subscription ends with CodeClosed after Close, Cancel or Client.Close. It ends with
// CodeNotFound if its queue is gone; a transient queue does not survive a restart. It ends with
// CodeExists if another consumer is exclusive by then, and with CodeDenied if the user has lost the
// right to read the queue.
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
		return nil, errClosed() // the server closes its side when no polls come
	}
	c.subs[s] = struct{}{}
	c.pollers.Add(2)
	c.mu.Unlock()
	go s.run(poll)
	go s.keepAlive(s.ttl)
	return s, nil
}

// side returns the path of the server's side and the number of the next poll.
func (s *subscription) side() (path string, poll uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.path, s.poll
}

// run polls whenever no message waits here, until the subscription ends.
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
		default: // the answer was lost: repeat the poll
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

// ask sends one poll.
func (s *subscription) ask(ctx context.Context, path string, number uint64) ([]surgetank.Delivery, error) {
	body := []byte(`{"max":` + itoa(pollMessages) + `,"max_bytes":` + itoa(pollBytes) + `,"wait":"` + pollWait.String() + `","poll":` + strconv.FormatUint(number, 10) + `}`)
	var w wireMessages
	if err := s.c.call(ctx, request{method: "POST", path: path + "/receive", body: body, wait: pollWait, once: true}, &w); err != nil {
		return nil, err
	}
	return w.appendTo(nil)
}

func (s *subscription) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0
}

// putFrom adds messages from the server's side at path. If that side is gone, so are the leases,
// and the messages are dropped.
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

// finish ends the subscription with an error.
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
}

// keepAlive sends requests that keep the server's side alive while no poll runs. No poll runs while
// messages wait here, and after Cancel while handlers still work.
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

// lookPause is how long messages wait here before the client checks that the server still has their
// leases.
const lookPause = 2 * time.Second

// idle returns the path of the server's side, and whether a poll keeps it alive.
func (s *subscription) idle() (path string, polling bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.path, len(s.waiting) == 0 && !s.cancelled && s.err == nil
}

// Ready has a token when messages wait or the subscription has ended.
func (s *subscription) Ready() <-chan struct{} { return s.ready }

// AddCredit adds credit and waits for the server's answer. If the server's side is gone, the next
// side gets the new credit.
func (s *subscription) AddCredit(n int) {
	n = max(-maxCredit, min(n, maxCredit))
	s.adjust(map[string]int{"add": n}, func() {
		used := 0
		if s.opts.ManualCredit {
			used = s.received
		}
		s.granted = max(s.granted+n, min(used, s.granted))
	})
}

// adjust records a change and sends it to the server's side. If the outcome is unknown, it abandons
// that side, and another one is attached.
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
		s.finish(plain(err)) // with less credit than its owner believes, the subscription would silently wait forever
	}
}

// TryReceive appends waiting messages. See surgetank.Subscription.
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
			s.nudge() // other callers can wait, too
		}
		return buf, s.err
	}
	s.received += n
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

// Cancel ends the deliveries. Received messages stay leased until Close or the end of the client.
func (s *subscription) Cancel() error { return s.leave(http.MethodPost, "/cancel") }

// Close ends the subscription. Received messages return to the queue and count an attempt.
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

// leave stops polling, returns messages that were not received, and ends the server's side.
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
		return nil // the server's side and its leases are gone
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
		return nil // the server's side and its leases are gone
	}
	return plain(err)
}
