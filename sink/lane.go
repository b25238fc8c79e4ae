package sink

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxBatchBytes bounds the bodies of one batch.
const maxBatchBytes = 8 << 20

// restAfter is how long a lane has nothing to write before it gives its connection back.
const restAfter = 30 * time.Second

// lookEvery is how often an idle sink looks at its target. A target that went back in time is
// noticed by that, before there is something to write.
const lookEvery = time.Minute

// lane is one ordered stream of batches. Its run method is one goroutine and owns conn, back and
// all below it; add, load, wakeUp and close are called by others.
//
// A message comes into waiting, then into a batch. It leaves the lane committed or parked, or goes
// to back, from where it is tried again. A message whose chain has a message in back goes there
// too, so that it does not overtake.
type lane struct {
	s      *session
	number int
	conn   Lane
	limit  *limit

	mu      sync.Mutex
	waiting []*entry // in order of delivery
	bytes   int
	busy    bool // a batch is being committed
	closed  bool
	wake    chan struct{} // has a token when waiting or closed changed, or when messages in back may be tried

	back   backlog
	batch  []*entry  // some of back, then some of waiting
	paceAt time.Time // no new messages are tried before; zero: at once
	pace   time.Duration
	probed bool // the last batch had no new messages
	rested bool
	// looking says that gather found nothing to write for so long that the target is to be looked
	// at.
	looking bool
	seqs    []uint64
	floor   uint64 // of the queue, when the attempt began
}

func newLane(s *session, number int, conn Lane) *lane {
	return &lane{s: s, number: number, conn: conn, limit: s.r.limits[number], wake: make(chan struct{}, 1), back: backlog{chains: map[uint64]int{}}}
}

func (l *lane) add(e *entry) {
	l.mu.Lock()
	l.waiting = append(l.waiting, e)
	l.bytes += e.size
	l.mu.Unlock()
	signal(l.wake)
}

// load tells how many messages wait, and whether a batch is being committed.
func (l *lane) load() (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting), l.busy
}

// close ends run after the batch it is committing.
func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	signal(l.wake)
}

// signal leaves a token in a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run commits batches until the lane is closed (nil) or the session or the target fails.
func (l *lane) run() error {
	for {
		if !l.gather() {
			return nil
		}
		commit := l.commit
		if l.looking {
			commit = l.look
		}
		err := commit()
		l.mu.Lock()
		l.busy = false
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// gather waits for a batch: of new messages until it is full, or until its first message has waited
// for batch.wait; of messages in back until one is due. It is false when the lane is closed.
func (l *lane) gather() bool {
	clock := l.s.r.opts.Clock
	idle := clock.Now()
	l.looking = false
	for {
		now := clock.Now()
		due, after := l.back.next(l, now)
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return false
		}
		n, left := len(l.waiting), time.Duration(0)
		if n > 0 {
			left = l.paceAt.Sub(now)
			if n < l.limit.size() && l.bytes < maxBatchBytes {
				left = max(left, l.s.r.spec.Batch.Wait-now.Sub(l.waiting[0].arrived))
			}
		}
		ready := n > 0 && left <= 0
		switch {
		case ready && (!due || l.probed): // the two take turns
			l.busy = true
			l.mu.Unlock()
			l.takeBatch(now)
			l.probed, l.rested = false, false
			return true
		case due:
			l.busy = true
			l.mu.Unlock()
			l.takeBack(now)
			l.probed, l.rested = true, false
			return true
		case n > 0:
			after = earlier(after, left)
		}
		l.mu.Unlock()
		if n == 0 && l.back.empty() && !l.rested {
			if now.Sub(idle) >= restAfter {
				l.conn.Rest()
				l.rested = true
			} else {
				after = earlier(after, restAfter-now.Sub(idle))
			}
		}
		if n == 0 && l.number == 0 && l.back.empty() {
			if now.Sub(idle) >= lookEvery {
				l.looking = true
				return true
			}
			after = earlier(after, lookEvery-now.Sub(idle))
		}
		if !l.await(after) {
			return false
		}
	}
}

// look connects to the target and compares the progress there with what this session left. It gives
// the connection back.
func (l *lane) look() error {
	err := l.within(func(ctx context.Context) error {
		_, err := l.conn.Fresh(ctx)
		return err
	})
	l.conn.Rest()
	l.rested = true
	return err
}

// await waits for a token of wake, at most this long; 0 is without end. It is false when the
// session has ended.
func (l *lane) await(most time.Duration) bool {
	var timer <-chan time.Time
	if most > 0 {
		t := l.s.r.opts.Clock.NewTimer(most)
		defer t.Stop()
		timer = t.C()
	}
	select {
	case <-l.wake:
	case <-timer:
	case <-l.s.ctx.Done():
		return false
	}
	return true
}

// earlier gives the shorter of two waits, of which 0 is without end.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// takeBatch moves the next batch from waiting to batch, behind messages of back that lack evidence.
func (l *lane) takeBatch(now time.Time) {
	l.batch = l.batch[:0]
	most := l.limit.size()
	if !l.back.empty() && most > 1 {
		l.batch = l.back.take(l, now, l.batch, most/2, true)
	}
	l.mu.Lock() // only now: take may need the session's lock, and the dispatcher takes that one first
	defer l.mu.Unlock()
	size, old := 0, len(l.batch)
	for _, e := range l.waiting {
		if len(l.batch) == most || size > 0 && size+e.size > maxBatchBytes {
			break
		}
		l.batch = append(l.batch, e)
		size += e.size
	}
	rest := copy(l.waiting, l.waiting[len(l.batch)-old:])
	clear(l.waiting[rest:])
	l.waiting = l.waiting[:rest]
	l.bytes -= size
}

// takeBack moves the messages of back that are due to batch, as many as fit.
func (l *lane) takeBack(now time.Time) {
	l.batch = l.back.take(l, now, l.batch[:0], l.limit.size(), false)
}

// putBack returns a batch to where it was taken from, to be taken again in smaller parts. Messages
// in back never left it.
func (l *lane) putBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := make([]*entry, 0, len(l.batch)+len(l.waiting))
	for _, e := range l.batch {
		if !e.back {
			waiting = append(waiting, e)
			l.bytes += e.size
		}
	}
	l.waiting = append(waiting, l.waiting...)
}

// within bounds a call of the target. A call that the bound ended has an unknown outcome, whatever
// error it gives.
func (l *lane) within(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(l.s.ctx, l.s.r.opts.CommitTimeout)
	defer cancel()
	err := call(ctx)
	if err != nil && ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.limit.tooLarge(len(l.batch)) // the next session tries less at once
		}
		if asError(err).Class == Down {
			return err
		}
		return &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
	}
	return err
}
