package sink

import (
	"context"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/failpoint"
)

// maxBatchBytes bounds the bodies of one batch.
const maxBatchBytes = 8 << 20

// lane is one ordered stream of batches. Its run method is one goroutine and owns conn; add, load and close
// are called by the dispatcher.
type lane struct {
	s      *session
	number int
	conn   Lane

	mu      sync.Mutex
	waiting []*entry // in order of delivery
	bytes   int
	busy    bool // a batch is being committed
	closed  bool
	wake    chan struct{} // has a token when waiting or closed changed

	batch []*entry // run only
	seqs  []uint64
}

func newLane(s *session, number int, conn Lane) *lane {
	return &lane{s: s, number: number, conn: conn, wake: make(chan struct{}, 1)}
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

// gather waits for a batch: until it is full, or its first message has waited for batch.wait. It is false when the lane
// is closed.
func (l *lane) gather() bool {
	var timer <-chan time.Time
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return false
		}
		n := len(l.waiting)
		full := n >= l.s.r.spec.Batch.Max || l.bytes >= maxBatchBytes
		var left time.Duration
		if n > 0 && !full {
			left = l.s.r.spec.Batch.Wait - l.s.r.opts.Clock.Now().Sub(l.waiting[0].arrived)
		}
		if n > 0 && left <= 0 {
			l.takeBatch()
			l.mu.Unlock()
			return true
		}
		l.mu.Unlock()
		if n > 0 && timer == nil {
			t := l.s.r.opts.Clock.NewTimer(left)
			defer t.Stop()
			timer = t.C()
		}
		select {
		case <-l.wake:
		case <-timer:
			timer = nil
		case <-l.s.ctx.Done():
			return false
		}
	}
}

// takeBatch moves the next batch from waiting to batch. Called with mu held and something waiting.
func (l *lane) takeBatch() {
	l.batch = l.batch[:0]
	size := 0
	for _, e := range l.waiting {
		if len(l.batch) == l.s.r.spec.Batch.Max || size > 0 && size+e.size > maxBatchBytes {
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

// commit brings the batch into the target and settles its messages.
func (l *lane) commit() error {
	s := l.s
	s.mu.Lock()
	for _, e := range l.batch {
		if e.lost {
			s.mu.Unlock()
			return errLeaseLost
		}
	}
	s.mu.Unlock()

	bad, err := l.write()
	if err != nil {
		return err
	}
	for _, e := range bad {
		s.r.stats.failed(&Error{Reason: "message " + e.d.ID.String() + ": " + e.parked}, s.r.opts.Clock.Now())
	}
	s.r.stats.parked.Add(uint64(len(bad)))
	s.finish(l.batch)
	failpoint.Reach(failpoint.SinkAcked)
	return nil
}

// write turns the batch into rows and commits them. It starts again when the table has changed meanwhile.
func (l *lane) write() ([]*entry, error) {
	for try := 1; ; try++ {
		l.conn.Reset()
		var good, bad []*entry
		for _, e := range l.batch {
			e.parked = ""
			switch err := l.conn.Add(&e.d); {
			case err == nil:
				good = append(good, e)
			case asError(err).Class == BadRow:
				e.parked = asError(err).Reason
				bad = append(bad, e)
			default:
				return nil, asError(err)
			}
		}
		if len(bad) > 0 {
			var changed bool
			if err := l.within(func(ctx context.Context) (err error) { changed, err = l.conn.Fresh(ctx); return err }); err != nil {
				return nil, err
			}
			if changed && try < changedTries {
				continue
			}
		}
		if len(good) == 0 {
			return bad, nil
		}
		parked, err := l.apply(good)
		if err == nil {
			return append(bad, parked...), nil
		}
		e := asError(err)
		if e.Class == Changed && try == changedTries {
			return nil, &Error{Class: Down, Row: -1, Reason: e.Reason, Err: e}
		}
		if e.Class != Changed {
			return nil, e
		}
	}
}

// changedTries bounds how often one batch is made anew for a table that keeps changing.
const changedTries = 10

// apply writes rows and progress in one transaction, and again after a Retry error. It gives the entries
// that were left out because their rows are bad.
func (l *lane) apply(good []*entry) ([]*entry, error) {
	pause := l.s.r.backoff()
	for try := 1; ; try++ {
		bad, err := l.once(good)
		if err == nil {
			return bad, nil
		}
		e := asError(err)
		if e.Class != Retry {
			return nil, e
		}
		if try == retryTries {
			return nil, &Error{Class: Down, Row: -1, Reason: e.Reason, Err: e}
		}
		l.s.r.stats.retries.Add(1)
		l.s.r.stats.failed(e, l.s.r.opts.Clock.Now())
		if !pause.wait(l.s.ctx) {
			return nil, context.Cause(l.s.ctx)
		}
	}
}

// once tries the whole batch, and if a row is bad splits it.
func (l *lane) once(good []*entry) ([]*entry, error) {
	failpoint.Reach(failpoint.SinkBatch)
	err := l.within(func(ctx context.Context) error { return l.conn.Commit(ctx, l.progress(good)) })
	if err == nil {
		failpoint.Reach(failpoint.SinkCommitted)
		l.committed()
		return nil, nil
	}
	if e := asError(err); e.Class != BadRow {
		return nil, e
	}
	return l.split(good)
}

// within bounds a call of the target. A call that the bound ended has an unknown outcome, whatever error it gives.
func (l *lane) within(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(l.s.ctx, l.s.r.opts.CommitTimeout)
	defer cancel()
	err := call(ctx)
	if err != nil && ctx.Err() != nil {
		if asError(err).Class == Down {
			return err
		}
		return &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
	}
	return err
}

// progress says what the lane stores with these entries, and notes them for committed.
func (l *lane) progress(good []*entry) Progress {
	l.seqs = l.seqs[:0]
	for _, e := range good {
		if e.parked == "" {
			l.seqs = append(l.seqs, e.seq)
		}
	}
	floor, entry := l.s.sub.Floor()
	return l.s.ledger.progress(l.number, floor, entry, l.seqs)
}

// committed notes a commit of the target, and sends its mark to the broker: before the acks, which follow.
func (l *lane) committed() {
	l.s.mark(l.number, l.s.ledger.commit(l.number, l.seqs))
	l.s.r.stats.committed(len(l.seqs), l.s.r.opts.Clock.Now())
}

// split finds the bad rows of a batch by halving it, inside one transaction with a savepoint for each part; the good ones
// are committed with the progress. Parts are written in order, so that a row is judged with everything before it in place.
//
//	[0 … 7]  bad → [0 … 3] good, [4 … 7] bad → [4 5] bad → 4 good, 5 bad: parked; [6 7] good
//
// Where the target names the row, the parts are: before it, it alone, behind it.
func (l *lane) split(good []*entry) (bad []*entry, err error) {
	defer func() {
		if err != nil {
			for _, e := range bad { // the transaction is gone: nothing is decided
				e.parked = ""
			}
			bad = nil
			if rb := l.within(l.conn.Rollback); rb != nil {
				err = &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
			}
		}
	}()
	if err := l.within(l.conn.Begin); err != nil {
		return nil, err
	}
	var part func(from, to int) error
	part = func(from, to int) error {
		if from >= to {
			return nil
		}
		err := l.within(func(ctx context.Context) error { return l.conn.Write(ctx, from, to) })
		if err == nil {
			return nil
		}
		e := asError(err)
		if e.Class != BadRow {
			return e
		}
		if to-from == 1 {
			good[from].parked = e.Reason
			bad = append(bad, good[from])
			return nil
		}
		cut, alone := (from+to)/2, (from+to)/2
		if e.Row >= from && e.Row < to {
			cut, alone = e.Row, e.Row+1
		}
		if err := part(from, cut); err != nil {
			return err
		}
		if err := part(cut, alone); err != nil {
			return err
		}
		return part(alone, to)
	}
	if err := part(0, len(good)); err != nil {
		return bad, err
	}
	err = l.within(func(ctx context.Context) error { return l.conn.Finish(ctx, l.progress(good)) })
	if err != nil {
		if e := asError(err); e.Class == BadRow { // a check that waits for the commit cannot name its row
			err = &Error{Class: Down, Row: -1, Reason: e.Reason, Err: e}
		}
		return bad, err
	}
	l.committed()
	return bad, nil
}

// verdict is what the broker is told about an entry.
func (e *entry) verdict() surgetank.Settlement {
	if e.parked != "" {
		return surgetank.Settlement{Receipt: e.d.Receipt, Op: surgetank.Reject, Reason: cutReason(e.parked)}
	}
	return surgetank.Settlement{Receipt: e.d.Receipt, Op: surgetank.Ack}
}
