package supervise

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
)

// errLost is the result of a settlement with a receipt of an earlier opening.
var errLost = surgetank.Errorf(surgetank.CodeLeaseLost,
	"the lease ended when the broker's log failed; the message is delivered again")

// lost returns the results of settlements while no opening serves: every lease has ended.
func lost(list []surgetank.Settlement) []surgetank.SettleResult {
	results := make([]surgetank.SettleResult, len(list))
	for i := range results {
		results[i] = errLost
	}
	return results
}

// serving returns the opening that serves, or nil while the next one is awaited. If neither is so,
// it returns an error.
func (s *Supervisor) serving() (*opening, error) {
	if s == nil {
		return s.acquire(context.Background(), nil)
	}
	if o := s.cur.Load(); o != nil && !o.failed() {
		return o, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servingLocked()
}

// servingLocked is serving for a caller that has locked mu.
func (s *Supervisor) servingLocked() (*opening, error) {
	if s.status.State == Failed && !s.opts.Optional || s.status.State == Closed {
		return nil, s.refusal()
	}
	if o := s.cur.Load(); o != nil && !o.failed() {
		return o, nil
	}
	return nil, nil
}

// Settle ends or extends leases. It does not wait for an opening, because no lease continues in the
// next one. See surgetank.Consumer.
func (s *Supervisor) Settle(ctx context.Context, list []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	o, err := s.serving()
	switch {
	case err != nil:
		return nil, err
	case o == nil:
		return lost(list), nil
	}
	return o.Settle(ctx, list)
}

// SettleAsync is Settle with a callback. See surgetank.Consumer.
func (s *Supervisor) SettleAsync(ctx context.Context, list []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	o, err := s.serving()
	for {
		if err != nil {
			return err
		}
		if o != nil {
			// An error means that the opening has not accepted the call.
			if err := o.SettleAsync(ctx, list, done); err == nil || !o.failed() {
				return err
			}
		}
		if done == nil {
			return nil
		}
		s.mu.Lock()
		if o, err = s.servingLocked(); err == nil && o == nil {
			defer s.mu.Unlock()
			return s.late.add(s.opts.MaxWaiting, func() { s.calls.Apart("SettleAsync's done", func() { done(lost(list), nil) }) })
		}
		s.mu.Unlock()
	}
}

// lateAnswers calls the callbacks of settlements that were made while no opening served. The calls
// begin when the failed opening has sent its own answers, and end before the next opening serves.
// So callbacks keep the order of the calls.
type lateAnswers struct {
	mu      sync.Mutex
	list    []func()
	isOpen  bool          // the failed opening has sent its answers
	running chan struct{} // closed when the goroutine that calls the functions ends; nil: there is none
}

// add adds a call. It fails if limit calls wait already.
func (l *lateAnswers) add(limit int, call func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= limit {
		return surgetank.Errorf(surgetank.CodeBusy, "too many settlements wait for their answers while the broker's log has failed; their leases have ended")
	}
	l.list = append(l.list, call)
	l.start()
	return nil
}

// open lets the calls begin.
func (l *lateAnswers) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isOpen = true
	l.start()
}

// shut delays later calls until the next open. It fails while calls are left, and returns a channel
// that is closed when they are done.
func (l *lateAnswers) shut() (busy <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isOpen = l.running != nil
	return l.running
}

// start starts the goroutine, if there is work. The caller has locked mu.
func (l *lateAnswers) start() {
	if !l.isOpen || l.running != nil || len(l.list) == 0 {
		return
	}
	l.running = make(chan struct{})
	go l.run()
}

// run calls the functions in order.
func (l *lateAnswers) run() {
	for {
		l.mu.Lock()
		if len(l.list) == 0 {
			close(l.running)
			l.running = nil
			l.mu.Unlock()
			return
		}
		call := l.list[0]
		l.list = l.list[1:]
		l.mu.Unlock()
		call()
	}
}
