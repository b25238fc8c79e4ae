package queue

import (
	"math"
	"math/bits"

	"github.com/surgetank/surgetank"
)

// meter measures a queue's rates: exponential averages over 1 and 10 minutes. It looks at the
// queue's counts in each turn, and adds them to the averages about once a second of turn time. So
// no work is done per message. Each count adds count ÷ window to an average, and this part then
// decays with the window. All state of a meter is volatile: a restart begins with empty averages.
type meter struct {
	since, at, lastAt int64  // of the first look, the newest fold, and the newest look; 0: there was none
	in, out           uint64 // the queue's counts at the newest fold
	lastIn, lastOut   uint64 // the queue's counts at the newest look
	held              int64  // total duration of the leases that have ended since the newest fold, in nanoseconds
	ended             uint64 // number of these leases

	minute, ten averages
	leaseTime   float64 // total duration of ended leases in nanoseconds, decayed as minute is
	leaseEnds   float64 // number of ended leases, decayed as minute is

	sampling uint8 // the sketch counts one delivery in 2^sampling: about sampledRate a second
	sampled  int   // deliveries that it counted since the newest fold, or since sampling grew
}

// averages are messages a second that entered and left a queue.
type averages struct{ in, out float64 }

const (
	meterStep  = 1e9 // nanoseconds
	meterShort = 60  // seconds
	meterLong  = 600

	sampledRate = 200
)

// left counts the messages that left the queue for good.
func (q *Queue) left() uint64 {
	n := q.stats.acked + q.stats.dropped + q.stats.deadLettered + q.stats.coalesced
	if d := q.config.DeadLetter; d == "" || d == surgetank.DeadLetterDrop {
		n += q.stats.expired // with another setting, expired messages are counted as dead letters
	}
	return n
}

// measure looks at the counts at the end of a turn's commands.
func (q *Queue) measure() {
	t, now, out := &q.meter, q.m.now, q.left()
	if t.at == 0 {
		t.since, t.at = now, now
	}
	if now-t.at >= meterStep {
		if t.lastIn != t.in || t.lastOut != t.out { // counts from before an idle time must not be averaged over it
			q.fold(t.lastAt, t.lastIn, t.lastOut)
		}
		if now > t.at {
			q.fold(now, q.stats.published, out)
		}
	}
	t.lastAt, t.lastIn, t.lastOut = now, q.stats.published, out
}

// fold adds the counts since the newest fold to the averages.
func (q *Queue) fold(now int64, in, out uint64) {
	t := &q.meter
	out = max(out, t.out) // a change of dead_letter can make the count smaller
	seconds := float64(now-t.at) / 1e9
	came, went := float64(in-t.in), float64(out-t.out)
	decay := math.Exp(-seconds / meterShort)
	t.minute.in, t.minute.out = t.minute.in*decay+came/meterShort, t.minute.out*decay+went/meterShort
	t.leaseTime, t.leaseEnds = t.leaseTime*decay+float64(t.held), t.leaseEnds*decay+float64(t.ended)
	decay = math.Exp(-seconds / meterLong)
	t.ten.in, t.ten.out = t.ten.in*decay+came/meterLong, t.ten.out*decay+went/meterLong
	t.sampling, t.sampled = uint8(bits.Len64(uint64(went/max(1, seconds)/sampledRate))), 0
	t.at, t.in, t.out, t.held, t.ended = now, in, out, 0, 0
	q.rates.decay(now)
}

// averagesNow returns the averages at the present time. A young queue has shorter windows.
func (q *Queue) averagesNow() (minute, ten averages) {
	q.measure()
	t, now := &q.meter, q.m.now
	if t.at == t.since && t.lastAt == t.at {
		return averages{}, averages{}
	}
	at := func(a averages, window float64) averages {
		decay := math.Exp(-float64(now-t.at) / 1e9 / window)
		known := 1 - math.Exp(-max(1, float64(now-t.since)/1e9)/window)
		return averages{a.in * decay / known, a.out * decay / known}
	}
	return at(t.minute, meterShort), at(t.ten, meterLong)
}

// rateInfo fills in the rates of a queue's statistics.
func (q *Queue) rateInfo(i *surgetank.QueueInfo) {
	minute, ten := q.averagesNow()
	i.In, i.Out = surgetank.Rates{Minute: minute.in, TenMinutes: ten.in}, surgetank.Rates{Minute: minute.out, TenMinutes: ten.out}
}

// meanLease returns the mean duration of the leases that ended lately, in seconds; 0 if none did.
func (q *Queue) meanLease() float64 {
	t := &q.meter
	if n := t.leaseEnds + float64(t.ended); n > 0.01 {
		return (t.leaseTime + float64(t.held)) / n / 1e9
	}
	return 0
}
