package sink

import (
	"context"
	"hash/maphash"

	"github.com/surgetank/surgetank"
)

var groupSeed = maphash.MakeSeed()

// receiveMax is the largest number of messages of one Receive: enough to make the cost of the call
// small.
const receiveMax = 512

// dispatch receives messages and assigns each to a lane. It returns nil when ctx ends, and an error
// when the subscription ends.
func (s *session) dispatch(ctx context.Context) error {
	var buf []surgetank.Delivery
	for {
		free, ok := s.waitForRoom(ctx)
		if !ok {
			return nil
		}
		var err error
		buf, err = s.sub.Receive(ctx, buf[:0], receiveMax, free)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := s.take(buf); err != nil {
			return err
		}
		clear(buf) // the lanes own the bodies now
	}
}

// waitForRoom waits until memory for bodies is free. It returns the number of bytes, or false when
// ctx ended.
func (s *session) waitForRoom(ctx context.Context) (int, bool) {
	for {
		s.mu.Lock()
		free := s.r.opts.MaxBytes - s.bytes
		s.mu.Unlock()
		if free > 0 {
			return free, ctx.Err() == nil
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// take decides about received messages. A message whose row is committed is acked at once. A
// message that the session already has got a new lease because the old one ended; it stays in its
// lane. All other messages are added to lanes.
func (s *session) take(buf []surgetank.Delivery) error {
	now := s.r.opts.clock.Now()
	var again []*entry
	renewed := 0
	s.mu.Lock()
	s.serial = now.Before(s.serialUntil)
	for i := range buf {
		d := &buf[i]
		if d.ID.Queue != s.queue {
			s.mu.Unlock()
			return errRemade(s.r.spec.Queue)
		}
		seq := d.ID.Seq
		if e := s.held[seq]; e != nil && !e.settled {
			e.d.Receipt, e.lost = d.Receipt, false
			renewed++
			continue
		}
		e := &entry{d: *d, seq: seq, size: len(d.Body), arrived: now}
		if s.ledger.committed(seq) {
			e.settled = true
			again = append(again, e)
			s.r.stats.duplicates.Add(1)
			continue
		}
		s.held[seq] = e
		s.bytes += e.size
		e.lane, e.chain = s.laneFor(d)
		e.lane.add(e)
	}
	s.r.stats.held.Store(int64(len(s.held)))
	s.mu.Unlock()
	if renewed > 0 {
		s.sub.AddCredit(renewed)
	}
	s.send(again)
	return nil
}

// byKey makes lanes depend on the keys of on_conflict. Rows with the same key must be written in
// the order of their messages.
func (s *session) byKey() {
	t := s.r.spec.Table
	if t.OnConflict == nil {
		return
	}
	if k, ok := s.r.target.(Keyed); ok {
		s.keyer = newKeyer(t, k.KeyForms())
	}
	s.single = s.keyer == nil
}

// laneFor picks a message's lane and its chain. A group always has the same lane, which keeps its
// order. The same holds for a conflict key of messages without a group. Messages without group and
// key fill one lane's next batch before the next lane is used, so low traffic makes few batches.
// Idle lanes come first. Call with mu held.
func (s *session) laneFor(d *surgetank.Delivery) (*lane, uint64) {
	chain := uint64(0)
	switch {
	case d.Group != "":
		chain = max(maphash.String(groupSeed, d.Group), 1)
	case s.keyer != nil:
		chain = s.keyer.of(d)
	case s.single:
		chain = 1
	default:
		return s.fill(), 0
	}
	return s.lanes[chain%uint64(len(s.lanes))], chain
}

// fill picks a lane for a message without order. A lane gets a batch of consecutive messages, so
// rows that refer to earlier ones mostly find them in their own batch. For a while after a row
// referred to a row of another lane, all messages go to one lane.
func (s *session) fill() *lane {
	if s.serial {
		return s.lanes[0]
	}
	if l := s.current; l != nil {
		switch n, busy := l.load(); {
		case n < l.size() && !busy:
			return l
		case busy && s.given < l.size():
			s.given++
			return l
		}
	}
	best, bestLoad := s.lanes[0], int(^uint(0)>>1)
	for _, l := range s.lanes {
		n, busy := l.load()
		if busy {
			n += l.size()
		}
		if n < bestLoad {
			best, bestLoad = l, n
		}
	}
	s.current, s.given = best, 1
	return best
}
