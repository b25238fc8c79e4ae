package sink

import (
	"context"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
)

// answer is the broker's answer to one settlement.
type answer struct {
	e   *entry
	err error
}

// finish sends the settlements of a batch to the broker: acks for messages in the target, rejects
// for bad messages.
func (s *session) finish(batch []*entry) {
	if len(batch) == 0 {
		return
	}
	s.mu.Lock()
	for _, e := range batch {
		e.settled = true
		e.d.Message = surgetank.Message{} // the body is no longer needed
		s.bytes -= e.size
	}
	s.mu.Unlock()
	signal(s.room)
	s.send(append([]*entry(nil), batch...))
}

// verdict returns the settlement of an entry.
func (e *entry) verdict() surgetank.Settlement {
	if e.parked != "" {
		return surgetank.Settlement{Receipt: e.d.Receipt, Op: surgetank.Reject, Reason: cutReason(e.parked)}
	}
	return surgetank.Settlement{Receipt: e.d.Receipt, Op: surgetank.Ack}
}

// send settles entries without waiting for the answer, which goes to the settler. The callback runs
// on a goroutine of the broker and must not call the broker, so it only passes the answer on.
func (s *session) send(entries []*entry) {
	if len(entries) == 0 {
		return
	}
	list := make([]surgetank.Settlement, len(entries))
	s.mu.Lock()
	for i, e := range entries {
		list[i] = e.verdict()
	}
	s.mu.Unlock()
	s.sent.Add(1)
	// The wait for room in the mailbox ends with the broker. The end of the session must not lose
	// acks of committed rows.
	err := s.r.broker.SettleAsync(context.Background(), list, func(results []surgetank.SettleResult, err error) {
		s.settledMu.Lock()
		for i, e := range entries {
			a := answer{e: e, err: err}
			if err == nil && i < len(results) {
				a.err = results[i]
			}
			s.settled = append(s.settled, a)
		}
		s.settledMu.Unlock()
		signal(s.answers)
		s.sent.Done()
	})
	if err != nil {
		s.sent.Done()
		s.end(err)
	}
}

// settle handles the broker's answers until over is closed and no answer is left. A message whose
// ack came too late is delivered again, found in the ledger, and acked again.
func (s *session) settle(over <-chan struct{}) {
	for {
		s.settledMu.Lock()
		list := s.settled
		s.settled = nil
		s.settledMu.Unlock()
		if len(list) > 0 {
			s.answered(list)
			continue
		}
		select {
		case <-s.answers:
		case <-over:
			if s.settledMu.Lock(); len(s.settled) == 0 {
				s.settledMu.Unlock()
				return
			}
			s.settledMu.Unlock()
		}
	}
}

func (s *session) answered(list []answer) {
	for _, a := range list {
		switch code := surgetank.CodeOf(a.err); {
		case a.err == nil, code == surgetank.CodeLeaseLost, code == surgetank.CodeNotFound:
		default:
			s.end(a.err)
		}
	}
	credit := len(list)
	s.mu.Lock()
	for _, a := range list {
		if s.held[a.e.seq] == a.e {
			delete(s.held, a.e.seq)
		}
		if a.e.extra {
			a.e.extra = false
			s.extra--
			credit-- // the session already got credit for this message
		}
	}
	s.r.stats.held.Store(int64(len(s.held)))
	s.mu.Unlock()
	if credit > 0 {
		s.sub.AddCredit(credit)
	}
}

// keep extends the leases of all messages that no lane has finished, three times per lease, until
// ctx ends.
func (s *session) keep(ctx context.Context) {
	lease := s.r.opts.Lease
	t := s.r.opts.clock.NewTimer(lease / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-ctx.Done():
			return
		}
		t.Reset(lease / 3)
		var entries []*entry
		var list []surgetank.Settlement
		s.mu.Lock()
		for _, e := range s.held {
			if !e.settled && !e.lost {
				entries = append(entries, e)
				list = append(list, surgetank.Settlement{Receipt: e.d.Receipt, Op: surgetank.Extend, Lease: lease})
			}
		}
		s.mu.Unlock()
		if len(list) == 0 {
			continue
		}
		results, err := s.r.broker.Settle(ctx, list)
		if err != nil {
			if ctx.Err() == nil {
				s.end(err)
			}
			return
		}
		s.mu.Lock()
		for i, e := range entries {
			// A newer receipt means that the message was delivered again meanwhile. Then this
			// answer is about the old lease.
			if surgetank.CodeOf(results[i]) == surgetank.CodeLeaseLost && e.d.Receipt == list[i].Receipt {
				e.lost = true
			}
		}
		s.mu.Unlock()
	}
}

// cutReason shortens a reason to the length that the broker stores.
func cutReason(s string) string {
	const most = 1024
	if len(s) <= most {
		return s
	}
	s = s[:most-len("…")]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + "…"
}
