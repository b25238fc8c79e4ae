package sim

import (
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
)

// A run with Options.Latency has a log like a remote one. Each append lasts Latency of simulated
// time, and several entries are in flight. A crash in between leaves a prefix of them.

// pace returns the pace of the run's log.
func (o *Options) pace() commitlog.Pace {
	if o.Latency == 0 {
		return commitlog.Pace{}
	}
	return commitlog.Pace{Entries: o.InFlight, EntryBytes: 1000, Gather: o.Latency / 4}
}

// lateLog makes a log on files slow. It passes each entry to the files some time after its append,
// and answers after Latency, in order. So at a crash an entry in flight is lost, or partly written,
// or durable without an answer.
type lateLog struct {
	*disklog.Stepped
	clock   clock.Clock
	latency time.Duration
	pace    commitlog.Pace
	rng     *rand.Rand
	queue   []*lateEntry // entries in flight, oldest first
	sent    int          // number of entries in queue that the files have
}

type lateEntry struct {
	data      []byte
	done      func(commitlog.Offset, error)
	send, due time.Duration // by clock.Passed
	answered  bool          // by the files
	at        commitlog.Offset
	err       error
}

// Pace returns the pace: see commitlog.Pacer.
func (l *lateLog) Pace() commitlog.Pace { return l.pace }

// Append puts an entry in flight: see commitlog.Log.
func (l *lateLog) Append(data []byte, done func(commitlog.Offset, error)) {
	now := l.clock.Passed()
	e := &lateEntry{data: data, done: done, send: now + time.Duration(l.rng.Int64N(int64(l.latency))), due: now + l.latency}
	if n := len(l.queue); n > 0 {
		e.send, e.due = max(e.send, l.queue[n-1].send), max(e.due, l.queue[n-1].due)
	}
	l.queue = append(l.queue, e)
}

// pump passes entries on to the files, runs the files, and answers.
func (l *lateLog) pump() {
	now := l.clock.Passed()
	for ; l.sent < len(l.queue) && l.queue[l.sent].send <= now; l.sent++ {
		e := l.queue[l.sent]
		l.Stepped.Append(e.data, func(at commitlog.Offset, err error) { e.answered, e.at, e.err = true, at, err })
	}
	l.Stepped.Pump()
	for len(l.queue) > 0 && l.queue[0].answered && l.queue[0].due <= now {
		e := l.queue[0]
		l.queue, l.sent = l.queue[1:], l.sent-1
		e.done(e.at, e.err)
	}
}

// waits returns the time until pump has work to do. It returns false if no entry is in flight, or if
// time does not help, because the disk is full.
func (l *lateLog) waits() (time.Duration, bool) {
	if len(l.queue) == 0 {
		return 0, false
	}
	now, next := l.clock.Passed(), l.queue[0].due
	if l.sent < len(l.queue) {
		next = min(next, l.queue[l.sent].send)
	}
	return max(next-now, 0), next > now
}

// later lets time pass until the log answers or the broker's next turn is due. It returns false if
// neither is a matter of the log's latency.
func (w *world) later() bool {
	if w.o.Latency == 0 {
		return false
	}
	gather := w.o.pace().Gather
	d, waits := w.disk.waits()
	if due := w.b.Due(); 0 < due && due <= gather {
		d, waits = min(due, max(d, gather)), true
	}
	if !waits {
		return false
	}
	d = min(max(d, 1), gather)
	w.count.Simulated += d
	w.clock.Advance(d)
	return true
}
