package supervise

import (
	"context"
	"time"

	"github.com/surgetank/surgetank"
)

// acquire returns the opening that serves. If there is none, it waits for the next one, within the
// limits of Options. msgs are the call's messages.
func (s *Supervisor) acquire(ctx context.Context, msgs []surgetank.Publishing) (*opening, error) {
	return s.acquireIn(ctx, msgs, false)
}

// acquireIn is acquire. async says that the caller does other work after the call.
func (s *Supervisor) acquireIn(ctx context.Context, msgs []surgetank.Publishing, async bool) (*opening, error) {
	if s == nil {
		return nil, surgetank.Errorf(surgetank.CodeClosed, "the broker was not opened; make one with embedded.Open")
	}
	if o := s.cur.Load(); o != nil && !o.failed() {
		return o, nil
	}
	if ctx == nil {
		return nil, surgetank.FieldErrorf("ctx", "the context is nil; pass one, such as context.Background()")
	}
	var bytes int64
	for i := range msgs {
		bytes += int64(len(msgs[i].Message.Body)) + 128
	}
	wait := s.opts.Wait
	if async && s.opts.Shard > 0 {
		wait = min(wait, asyncWait)
	}
	return s.await(ctx, bytes, wait)
}

// await waits for the next opening.
func (s *Supervisor) await(ctx context.Context, bytes int64, wait time.Duration) (*opening, error) {
	s.mu.Lock()
	if s.opts.Shard > 0 && s.status.State != Serving {
		if wait -= s.clock.Now().Sub(s.status.Since); wait <= 0 {
			defer s.mu.Unlock()
			return nil, s.refusal()
		}
	}
	if s.waiting >= s.opts.MaxWaiting || s.waiting > 0 && s.bytes+bytes > s.opts.MaxWaitingBytes {
		defer s.mu.Unlock()
		e := s.refusal()
		if e.Code == surgetank.CodeUnavailable {
			e.Code, e.Limit = surgetank.CodeBusy, surgetank.LimitMailbox
		}
		return nil, e
	}
	s.waiting++
	s.bytes += bytes
	defer func() {
		s.waiting--
		s.bytes -= bytes
		s.mu.Unlock()
	}()
	timer := s.clock.NewTimer(wait)
	defer timer.Stop()
	for {
		if o := s.cur.Load(); o != nil && !o.failed() {
			return o, nil
		}
		if s.status.State == Failed || s.status.State == Closed {
			return nil, s.refusal()
		}
		change := s.change
		s.mu.Unlock()
		var over bool
		var ended error
		select {
		case <-change:
		case <-timer.C():
			over = true
		case <-ctx.Done():
			ended = ctx.Err()
		}
		s.mu.Lock()
		switch {
		case ended != nil:
			e := s.refusal()
			e.Err = ended
			return nil, e
		case over:
			return nil, s.refusal()
		}
	}
}

// tries is how often a call that only reads is made, if an opening fails each time.
const tries = 3

// read makes a call that changes nothing. If the opening fails meanwhile, it makes the call again
// on the next one.
func read[T any](s *Supervisor, ctx context.Context, call func(*opening) (T, error)) (v T, err error) {
	for range tries {
		var o *opening
		if o, err = s.acquire(ctx, nil); err != nil {
			return v, err
		}
		if v, err = call(o); err == nil || !o.failed() || ctx == nil || ctx.Err() != nil {
			return v, err
		}
	}
	return v, err
}

// write makes a call once.
func write[T any](s *Supervisor, ctx context.Context, call func(*opening) (T, error)) (v T, err error) {
	o, err := s.acquire(ctx, nil)
	if err != nil {
		return v, err
	}
	return call(o)
}

// change is write for a call without a result.
func change(s *Supervisor, ctx context.Context, call func(*opening) error) error {
	o, err := s.acquire(ctx, nil)
	if err != nil {
		return err
	}
	return call(o)
}
