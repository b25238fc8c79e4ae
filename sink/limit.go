package sink

import "sync/atomic"

// limit is the largest number of messages in a lane's next batch. A batch that is too large for the
// target halves the limit. Committed batches raise the limit again, up to batch.max. The lane's
// goroutine owns it; other goroutines may call size. The limit outlives the session, so a batch
// that hung until its connection was lost is not retried with the same size.
type limit struct {
	now    atomic.Int64
	most   int
	streak int  // number of full batches committed since the limit last changed
	need   int  // number of such batches that raises the limit
	good   bool // a batch was committed after the last batch that was too large
}

// The limit grows by a quarter after some full batches. A failure after a success doubles the
// number of batches needed, so batches rarely exceed the limit of the target.
const (
	firstNeed = 4
	mostNeed  = 64
)

func newLimit(most int) *limit {
	l := &limit{most: most, need: firstNeed}
	l.now.Store(int64(most))
	return l
}

func (l *limit) size() int { return int(l.now.Load()) }

// tooLarge records that a batch of n messages was too large.
func (l *limit) tooLarge(n int) {
	l.now.Store(int64(max(1, min(n, l.size())/2)))
	if l.streak = 0; l.good {
		l.need = min(2*l.need, mostNeed)
	}
	l.good = false
}

// committed records that a batch of n messages was committed.
func (l *limit) committed(n int) {
	now := l.size()
	l.good = true
	if now == l.most || n < now {
		return
	}
	if l.streak++; l.streak < l.need {
		return
	}
	l.streak = 0
	now = min(l.most, now+now/4+1)
	if now == l.most {
		l.need = firstNeed
	}
	l.now.Store(int64(now))
}
