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

// lane is one ordered stream of batches. Its run method is one goroutine and owns conn, back and all below it; add, load, wakeUp and
// close are called by others.
//
// A message comes into waiting, then into a batch. It leaves the lane committed or parked, or goes to back, from where it is tried
// again. A message whose chain has a message in back goes there too, so that it does not overtake.
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

	back    backlog
	batch   []*entry
	probing bool      // batch was taken out of back
	paceAt  time.Time // no new messages are tried before; zero: at once
	pace    time.Duration
	rested  bool
	seqs    []uint64
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
		err := l.commit()
		l.mu.Lock()
		l.busy = false
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// gather waits for a batch: of new messages until it is full, or until its first message has waited for batch.wait; of
// messages in back until one is due. It is false when the lane is closed.
func (l *lane) gather() bool {
	clock := l.s.r.opts.Clock
	idle := clock.Now()
	for {
		now := clock.Now()
		due, after := l.back.next(l, now)
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return false
		}
		if due {
			l.busy = true
			l.mu.Unlock()
			l.takeBack(now)
			return true
		}
		n := len(l.waiting)
		if n > 0 {
			left := max(0, l.paceAt.Sub(now))
			if n < l.limit.size() && l.bytes < maxBatchBytes {
				left = max(left, l.s.r.spec.Batch.Wait-now.Sub(l.waiting[0].arrived))
			}
			if left <= 0 {
				l.takeBatch()
				l.mu.Unlock()
				l.rested = false
				return true
			}
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
		if !l.await(after) {
			return false
		}
	}
}

// await waits for a token of wake, at most this long; 0 is without end. It is false when the session has ended.
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

// takeBatch moves the next batch from waiting to batch. Called with mu held and something waiting.
func (l *lane) takeBatch() {
	l.batch, l.probing = l.batch[:0], false
	size, most := 0, l.limit.size()
	for _, e := range l.waiting {
		if len(l.batch) == most || size > 0 && size+e.size > maxBatchBytes {
			break
		}
		l.batch = append(l.batch, e)
		size += e.size
	}
	rest := copy(l.waiting, l.waiting[len(l.batch):])
	clear(l.waiting[rest:])
	l.waiting = l.waiting[:rest]
	l.bytes -= size
	l.busy = true
}

// takeBack moves the messages of back that are due to batch, as many as fit.
func (l *lane) takeBack(now time.Time) {
	l.batch, l.probing = l.back.take(l, now, l.batch[:0], l.limit.size()), true
	l.rested = false
}

// putBack returns a batch to where it was taken from, to be taken again in smaller parts.
func (l *lane) putBack() {
	if l.probing {
		return // they never left back
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(append(make([]*entry, 0, len(l.batch)+len(l.waiting)), l.batch...), l.waiting...)
	for _, e := range l.batch {
		l.bytes += e.size
	}
}

// within bounds a call of the target. A call that the bound ended has an unknown outcome, whatever error it gives.
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
