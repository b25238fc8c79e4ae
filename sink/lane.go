package sink

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxBatchBytes limits the bodies of one batch.
const maxBatchBytes = 8 << 20

// restAfter is how long a lane is idle before it returns its connection.
const restAfter = 30 * time.Second

// lookEvery is how often an idle sink checks its target. The check finds a target that went back in
// time before there is something to write.
const lookEvery = time.Minute

// lane is one ordered stream of batches. Its run method is one goroutine, which owns conn, back and
// all fields below it. Other goroutines call add, load, wakeUp and close.
//
// A message first goes to waiting, then into a batch. It leaves the lane when it is committed or
// parked. Otherwise it goes to back and is retried. If a message of the same chain is in back, the
// message goes to back too and cannot overtake.
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
	batch  []*entry  // some messages of back, then some of waiting
	paceAt time.Time // no new messages are tried before this time; zero: at once
	pace   time.Duration
	probed bool // the last batch had no new messages
	rested bool
	// looking says that gather found nothing to write for lookEvery, so the target must be checked.
	looking bool
	seqs    []uint64
	floor   uint64 // of the queue, when the attempt began

	// The governor's mu guards these fields.
	inLine, hasTurn bool
	turnAt          int64

	// The result of the batch, for the governor. See turn.go.
	took     time.Duration
	rows     int
	split    bool // a row at fault was searched for
	timedOut bool // a call ran out of time
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

// load returns how many messages wait, and whether a batch is being committed.
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

// signal puts a token into a channel of capacity 1, unless it has one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run commits batches. It returns nil when the lane is closed, and an error when the session or the
// target fails.
func (l *lane) run() error {
	defer l.s.r.governor.quit(l)
	for {
		if !l.gather() {
			return nil
		}
		commit := l.commit
		if l.looking {
			commit = l.look
		}
		err := commit()
		l.leave(&outcome{}, err) // does nothing if the attempt has left
		l.mu.Lock()
		l.busy = false
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// gather waits for a batch. A batch of new messages is ready when it is full, or when its first
// message has waited for batch.wait. A batch from back is ready when one message is due. gather
// returns false when the lane is closed.
func (l *lane) gather() bool {
	clock := l.s.r.opts.clock
	idle := clock.Now()
	l.looking = false
	for {
		now := clock.Now()
		size := l.size()
		due, after := l.back.next(l, now)
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return false
		}
		n, left := len(l.waiting), time.Duration(0)
		if n > 0 {
			left = l.paceAt.Sub(now)
			if n < size && l.bytes < maxBatchBytes {
				left = max(left, l.s.r.spec.Batch.Wait-now.Sub(l.waiting[0].arrived))
			}
		}
		ready := n > 0 && left <= 0
		turn := false
		if ready || due {
			var again time.Duration
			if turn, again = l.s.r.governor.try(l); !turn {
				after = again
			}
		}
		switch {
		case (ready || due) && !turn:
		case ready && (!due || l.probed): // new messages and messages of back alternate
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
		if !ready && !due {
			l.s.r.governor.quit(l)
		}
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

// look connects to the target and compares the stored progress with the progress of this session.
// Afterwards it closes the connection.
func (l *lane) look() error {
	err := l.within(func(ctx context.Context) error {
		_, err := l.conn.Fresh(ctx)
		return err
	})
	l.conn.Rest()
	l.rested = true
	return err
}

// await waits for a token of wake, at most for the time most; 0 means no limit. It returns false
// when the session has ended.
func (l *lane) await(most time.Duration) bool {
	var timer <-chan time.Time
	if most > 0 {
		t := l.s.r.opts.clock.NewTimer(most)
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

// earlier returns the shorter of two waits. 0 means no limit.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// takeBatch moves the next batch from waiting to batch. Messages of back without evidence come
// first.
func (l *lane) takeBatch(now time.Time) {
	l.batch = l.batch[:0]
	most := l.size()
	if !l.back.empty() && most > 1 {
		l.batch = l.back.take(l, now, l.batch, most/2, true)
	}
	l.mu.Lock() // not earlier: take may need the session's lock, and the dispatcher locks the session first
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

// takeBack moves as many due messages from back to batch as fit.
func (l *lane) takeBack(now time.Time) {
	l.batch = l.back.take(l, now, l.batch[:0], l.size(), false)
}

// putBack returns a batch to its source, to be tried again in smaller parts. Messages of back never
// left the backlog.
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

// within limits the time of a call of the target. The outcome of a call that ran out of time is
// unknown, whatever error the call returns.
func (l *lane) within(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(l.s.ctx, l.s.r.opts.CommitTimeout)
	defer cancel()
	err := call(ctx)
	if err != nil && ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.timedOut = true
			l.limit.tooLarge(len(l.batch)) // the next session starts with a smaller batch
		}
		if asError(err).Class == Down {
			return err
		}
		return &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
	}
	return err
}
