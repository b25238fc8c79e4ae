package disklog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// The scrub reads what nobody reads: every file of the log and its snapshots, slowly, while the log
// is in use.
//
//	        ┌──────────── a pass ────────────┐   every ScrubEvery
//	state ─▶ snapshots, newest first ─▶ segments, oldest first
//	            │ something is wrong
//	            ▼
//	        the file is read once more, 10 s later if the disk gave an error ─▶ whole: a line in the log, no more
//	            │ still wrong
//	            ▼
//	        one line in the log for each finding; Options.OnDamage at every pass
//
// What it compares with is memory: the index of each segment as it was written or read at Open. It
// reads the medium and not the page cache, where it can, in pieces; a segment may be trimmed
// between any two of them. It changes nothing in any file.
const (
	// DefaultScrubEvery is how long after a pass has begun the next one does.
	DefaultScrubEvery = 24 * time.Hour
	// DefaultScrubRate is how many bytes a second a pass reads at most: 337 GiB in a day.
	DefaultScrubRate = 4 << 20

	// scrubFirst is how long after Open the first pass begins at the latest: a start has more
	// urgent things to read.
	scrubFirst = 10 * time.Minute
	// scrubAgain is how soon a file is read a second time for which the disk gave an error: it may
	// recover.
	scrubAgain = 10 * time.Second
	// scrubBusy is how long a scrub keeps out of the way of a log that is being filled, before it
	// looks again.
	scrubBusy = time.Second
	// scrubGap is between two passes at least.
	scrubGap = time.Second
)

// Reasons to stop looking at a file that are no findings.
var (
	errScrubStopped = errors.New("the scrub was stopped")
	errScrubGone    = errors.New("the file is no longer part of the log")
	errScrubShort   = errors.New("no descriptors or memory to read with")
)

// ScrubStats are figures of the scrub since Open.
type ScrubStats struct {
	Bytes    int64 // read
	Passes   int64 // that read everything
	LastPass time.Time
	// Found counts what was found; Damaged, what the last look at each file found, so without what
	// is no longer there.
	Found, Damaged map[commitlog.DamageKind]int64
	// Errors counts files that the disk answered for with an error, or with other bytes than the
	// next time.
	Errors int64
}

// scrubber is the scrub of a log. Its own goroutine runs it, or whoever calls ScrubStep of a log
// that is driven by hand; stats are for everybody.
type scrubber struct {
	l       *Log
	stopped chan struct{}
	pace    func(bytes int) error // waits until so much may be read
	owed    time.Duration         // how long the reads so far are to be paid for by waiting
	file    coldFile              // for its memory

	// The pass.
	stage   scrubStage
	snaps   []commitlog.Offset // to be looked at, the next one last
	segment uint64             // the one that was looked at last
	doubt   *scrubTarget       // the next step reads it a second time
	unread  bool               // because the disk gave an error
	whole   bool               // everything was read so far

	known map[damageKey]commitlog.Damage // was told in the log; the last look at its file found it
	stats scrubCounts
}

type scrubStage int

const (
	scrubBegin scrubStage = iota
	scrubState
	scrubSnapshots
	scrubSegments
)

// scrubTarget is one file to look at. Its name tells it from others.
type scrubTarget struct {
	name    string
	kind    scrubStage
	at      commitlog.Offset // of a snapshot
	segment *segment
}

// damageKey is what makes a finding the same one as in another pass.
type damageKey struct {
	file        string
	kind        commitlog.DamageKind
	first, last commitlog.Offset
}

type scrubCounts struct {
	mu sync.Mutex
	ScrubStats
}

// get gives a copy of the figures.
func (c *scrubCounts) get() ScrubStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.ScrubStats
	s.Found, s.Damaged = maps.Clone(s.Found), maps.Clone(s.Damaged)
	return s
}

func newScrubber(l *Log) *scrubber {
	c := &scrubber{l: l, stopped: make(chan struct{}), known: map[damageKey]commitlog.Damage{},
		stats: scrubCounts{ScrubStats: ScrubStats{Found: map[commitlog.DamageKind]int64{}, Damaged: map[commitlog.DamageKind]int64{}}}}
	if c.pace = c.permit; l.o.Manual {
		c.pace = func(int) error { return nil }
	}
	return c
}

// run is the scrub's goroutine.
func (c *scrubber) run() {
	defer close(c.stopped)
	every := c.l.o.ScrubEvery
	if every < 0 {
		return
	}
	for wait := min(every, scrubFirst); c.wait(wait); {
		began := c.l.o.Clock.Now()
		for c.step() {
			if c.doubt != nil && c.unread && !c.wait(scrubAgain) {
				return
			}
		}
		wait = max(every-c.l.o.Clock.Now().Sub(began), scrubGap)
		c.file.buf = nil // a pass a day needs no memory in between
	}
}

// ScrubStep looks at one file, for logs opened with Manual, and reports whether the pass has more
// to look at. Where something is wrong with a file, the next step reads it a second time and says
// so.
func (l *Log) ScrubStep() (more bool) {
	if !l.o.Manual || l.closed.Load() || l.failure() != nil {
		return false
	}
	return l.scrub.step()
}

// wait waits on the log's clock; false: the log is closed.
func (c *scrubber) wait(d time.Duration) bool {
	if c.l.stopping() {
		return false
	}
	if d <= 0 {
		return true
	}
	timer := c.l.o.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.l.stop:
		return false
	case <-timer.C():
		return true
	}
}

// permit waits until n bytes may be read: the rate is kept, and the log is neither being filled
// fast nor waiting for the disk.
func (c *scrubber) permit(n int) error {
	l := c.l
	for wait := c.owed; ; wait = scrubBusy {
		if !c.wait(wait) || l.failure() != nil {
			return errScrubStopped
		}
		if !l.heavy() {
			break
		}
	}
	c.owed = time.Duration(float64(n) / float64(l.o.ScrubRate) * float64(time.Second))
	return nil
}

// failure gives why the log takes no more appends; nil while it does.
func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// step looks at the next file, or a second time at one in doubt. false: the pass is over.
func (c *scrubber) step() (more bool) {
	t, again := c.doubt, c.doubt != nil
	if c.doubt = nil; !again {
		if t = c.next(); t == nil {
			c.finish()
			return false
		}
	}
	found, err := c.look(t)
	switch {
	case errors.Is(err, errScrubStopped):
		c.stage = scrubBegin
		return false
	case errors.Is(err, errScrubGone):
		c.settle(t, nil)
	case err != nil: // nothing was found, and not all was read
		c.whole = false
	case len(found) > 0 && !again:
		c.l.o.Logger.Warn("a file is not what was written, or cannot be read; it is read once more", "file", t.name, "byte", found[0].At, "error", found[0].Err)
		c.doubt = t
		c.unread = slices.ContainsFunc(found, func(d commitlog.Damage) bool { return d.Unreadable })
	case again && len(found) == 0:
		c.failed()
		c.l.o.Logger.Warn("a file that could not be read, or was not what was written, is whole at the second reading; if this comes again, look at the disk, its cables and the memory", "file", t.name)
		c.settle(t, nil)
	default:
		c.settle(t, found)
	}
	return true
}

// failed counts an error of reading.
func (c *scrubber) failed() {
	c.stats.mu.Lock()
	defer c.stats.mu.Unlock()
	c.stats.Errors++
}

// next gives the next file of the pass, or begins one; nil: there is none.
func (c *scrubber) next() *scrubTarget {
	l := c.l
	switch c.stage {
	case scrubBegin:
		c.stage, c.whole, c.segment = scrubState, true, 0
		return &scrubTarget{name: l.files.path(stateName), kind: scrubState}
	case scrubState:
		c.stage = scrubSnapshots
		if s := l.o.Snapshots; s != nil {
			var err error
			if c.snaps, err = s.list(); err != nil {
				l.o.Logger.Warn("the snapshots could not be looked at", "error", err)
				c.whole = false
			}
		}
		fallthrough
	case scrubSnapshots:
		if n := len(c.snaps); n > 0 {
			at := c.snaps[n-1]
			c.snaps = c.snaps[:n-1]
			return &scrubTarget{name: l.o.Snapshots.path(at), kind: scrubSnapshots, at: at}
		}
		c.stage = scrubSegments
	}
	l.segMu.RLock()
	defer l.segMu.RUnlock()
	for _, s := range l.segs {
		if s.header.number > c.segment {
			c.segment = s.header.number
			return &scrubTarget{name: s.name, kind: scrubSegments, segment: s}
		}
	}
	return nil
}

// finish ends a pass.
func (c *scrubber) finish() {
	c.stage = scrubBegin
	for key := range c.known { // what is neither in the log nor a snapshot any more was looked at by nobody
		if !c.live(key.file) {
			delete(c.known, key)
		}
	}
	c.stats.mu.Lock()
	defer c.stats.mu.Unlock()
	if c.whole {
		c.stats.Passes++
		c.stats.LastPass = c.l.o.Clock.Now()
	}
	c.count()
}

// live tells whether a file is part of the log or a snapshot of it.
func (c *scrubber) live(name string) bool {
	l := c.l
	l.segMu.RLock()
	live := slices.ContainsFunc(l.segs, func(s *segment) bool { return s.name == name })
	l.segMu.RUnlock()
	if live || name == l.files.path(stateName) {
		return true
	}
	if l.o.Snapshots == nil {
		return false
	}
	offsets, err := l.o.Snapshots.list()
	return err != nil || slices.ContainsFunc(offsets, func(at commitlog.Offset) bool { return l.o.Snapshots.path(at) == name })
}

// count brings the figures of what is damaged up to date. stats.mu is held.
func (c *scrubber) count() {
	clear(c.stats.Damaged)
	for _, d := range c.known {
		c.stats.Damaged[d.Kind] += d.Count()
	}
}

// settle takes in what a look at a file has found for good, tells the log of what is new, and the
// owner of all of it.
func (c *scrubber) settle(t *scrubTarget, found []commitlog.Damage) {
	now := map[damageKey]bool{}
	for i := range found {
		d := &found[i]
		if d.Unreadable {
			c.whole = false
		}
		d.Refused = c.refused(t, d)
		key := damageKey{t.name, d.Kind, d.First, d.Last}
		now[key] = true
		if _, ok := c.known[key]; !ok {
			c.tell(d)
		}
		c.known[key] = *d
	}
	if t.kind == scrubSnapshots {
		c.l.o.Snapshots.condemn(t.at, len(found) > 0)
	}
	if slices.ContainsFunc(found, func(d commitlog.Damage) bool { return d.Unreadable }) {
		c.failed()
	}
	for key := range c.known {
		if key.file == t.name && !now[key] {
			delete(c.known, key)
		}
	}
	c.stats.mu.Lock()
	c.count()
	c.stats.mu.Unlock()
	for _, d := range found {
		c.l.o.OnDamage(d)
	}
}

// tell writes the line in the log for a finding, and counts it.
func (c *scrubber) tell(d *commitlog.Damage) {
	c.stats.mu.Lock()
	c.stats.Found[d.Kind] += d.Count()
	c.stats.mu.Unlock()
	next := "would not be touched by it"
	switch {
	case d.Refused:
		next = "would be refused for it"
	case d.Kind == commitlog.DamagedIndex:
		next = "would read the whole file instead of its index"
	}
	attrs := []any{"kind", string(d.Kind), "file", d.File, "byte", d.At, "a_start_now", next, "unreadable", d.Unreadable}
	switch d.Kind {
	case commitlog.DamagedEntry:
		attrs = append(attrs, "first_entry", uint64(d.First), "last_entry", uint64(d.Last))
	case commitlog.DamagedSnapshot:
		attrs = append(attrs, "up_to_entry", uint64(d.First))
	}
	c.l.o.Logger.Error("the scrub found damage on the disk; serving goes on", append(attrs, "error", d.Err)...)
	c.l.o.OnEvent(Event{Kind: "damaged", Detail: fmt.Sprintf("%s %s", d.Kind, d.File)})
}

// refused tells whether opening the log, as it is now, would fail for a finding.
func (c *scrubber) refused(t *scrubTarget, d *commitlog.Damage) bool {
	l := c.l
	covered, newest := l.o.From, true // up to here nothing is read at an opening
	if s := l.o.Snapshots; s != nil {
		if offsets, err := s.list(); err == nil && len(offsets) > 0 {
			covered = offsets[len(offsets)-1]
			newest = covered == t.at
		}
	}
	switch d.Kind {
	case commitlog.DamagedSnapshot:
		return newest
	case commitlog.DamagedIndex:
		return d.Unreadable
	case commitlog.DamagedEntry:
		l.segMu.RLock()
		defer l.segMu.RUnlock()
		return d.Last > covered || !t.segment.indexed
	}
	return true
}
