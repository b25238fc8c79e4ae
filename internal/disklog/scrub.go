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

// The scrub reads the data that no other code reads: every file of the log and its snapshots,
// slowly, while the log is in use.
//
//	        ┌──────────── a pass ────────────┐   every ScrubEvery
//	state ─▶ snapshots, newest first ─▶ segments, oldest first
//	            │ damage found
//	            ▼
//	        the file is read again, after 10 s if it was an I/O error ─▶ intact: one line in the log, no finding
//	            │ still damaged
//	            ▼
//	        one line in the log for each new finding; Options.OnDamage at every pass
//
// It compares each segment with the segment's index in memory. It reads in pieces, from the medium
// and not from the page cache if the system allows it. A segment may be trimmed between two pieces.
// The scrub changes no file.
const (
	// DefaultScrubEvery is the time from the start of one pass to the start of the next.
	DefaultScrubEvery = 24 * time.Hour
	// DefaultScrubRate is the most bytes that a pass reads in a second: 337 GiB in a day.
	DefaultScrubRate = 4 << 20

	// scrubFirst is the longest time from Open to the first pass. The pass waits because the
	// opening itself reads much data.
	scrubFirst = 10 * time.Minute
	// scrubAgain is the time before the second reading of a file with an I/O error. The disk may
	// recover meanwhile.
	scrubAgain = 10 * time.Second
	// scrubBusy is how long a scrub waits before it checks again whether the log is under heavy
	// load.
	scrubBusy = time.Second
	// scrubGap is the shortest time between two passes.
	scrubGap = time.Second
)

// Errors that end the check of a file and are not findings.
var (
	errScrubStopped = errors.New("the scrub was stopped")
	errScrubGone    = errors.New("the file is no longer part of the log")
	errScrubShort   = errors.New("no descriptors or memory to read with")
)

// ScrubStats are statistics of the scrub since Open.
type ScrubStats struct {
	Bytes    int64 // bytes read
	Passes   int64 // passes that read every file
	LastPass time.Time
	// Found counts all findings. Damaged counts the findings of the last check of each file that
	// still exists.
	Found, Damaged map[commitlog.DamageKind]int64
	// Errors counts failed reads, and files that differed between the first and the second reading.
	Errors int64
}

// scrubber is the scrub of a log. It belongs to its own goroutine or to the caller of
// ScrubStep. Any goroutine may use stats.
type scrubber struct {
	l    *Log
	owed time.Duration // waiting time still due for the bytes read so far
	file coldFile      // kept for its memory

	// The present pass.
	stage   scrubStage
	snaps   []commitlog.Offset // snapshots still to be read; the last element is the next one
	segment uint64             // the segment read last
	doubt   *scrubTarget       // the file that the next step reads a second time
	unread  bool               // doubt is set because of an I/O error
	whole   bool               // every file of the pass so far was read

	known map[damageKey]commitlog.Damage // findings of the last check of each file; all were logged
	stats scrubCounts
}

type scrubStage int

const (
	scrubBegin scrubStage = iota
	scrubState
	scrubSnapshots
	scrubSegments
)

// scrubTarget is one file to read, identified by its name.
type scrubTarget struct {
	name    string
	kind    scrubStage
	at      commitlog.Offset // offset of a snapshot
	segment *segment
}

// damageKey identifies a finding across passes.
type damageKey struct {
	file        string
	kind        commitlog.DamageKind
	first, last commitlog.Offset
}

type scrubCounts struct {
	mu sync.Mutex
	ScrubStats
}

// get returns a copy of the statistics.
func (c *scrubCounts) get() ScrubStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.ScrubStats
	s.Found, s.Damaged = maps.Clone(s.Found), maps.Clone(s.Damaged)
	return s
}

func newScrubber(l *Log) *scrubber {
	return &scrubber{l: l, known: map[damageKey]commitlog.Damage{},
		stats: scrubCounts{ScrubStats: ScrubStats{Found: map[commitlog.DamageKind]int64{}, Damaged: map[commitlog.DamageKind]int64{}}}}
}

// run is the scrub's goroutine.
func (c *scrubber) run() {
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
		c.file.buf = nil // free the memory until the next pass
	}
}

// wait waits on the log's clock. It returns false if the log was closed.
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

// permit waits until the rate allows reading n bytes. It also waits while the log is under heavy
// load, or while the log waits for room on the disk.
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

// failure returns the error for which the log accepts no more appends, or nil.
func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// step reads the next file, or a file in doubt a second time. It returns false when the pass is
// over.
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
		c.record(t, nil)
	case err != nil: // not a finding, but the pass did not read every file
		c.whole = false
	case len(found) > 0 && !again:
		c.l.o.Logger.Warn("a file differs from what was written, or cannot be read; it is read again", "file", t.name, "byte", found[0].At, "error", found[0].Err)
		c.doubt = t
		c.unread = slices.ContainsFunc(found, func(d commitlog.Damage) bool { return d.Unreadable })
	case again && len(found) == 0:
		c.failed()
		c.l.o.Logger.Warn("a file that could not be read, or differed from what was written, is intact at the second reading; if this happens again, look at the disk, its cables and the memory", "file", t.name)
		c.record(t, nil)
	default:
		c.record(t, found)
	}
	return true
}

// failed counts a read error.
func (c *scrubber) failed() {
	c.stats.mu.Lock()
	defer c.stats.mu.Unlock()
	c.stats.Errors++
}

// next returns the next file of the pass. If no pass is under way, it begins one. It returns nil at
// the end of the pass.
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
	for key := range c.known { // forget the findings of removed files
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

// live reports whether a file is still a part of the log or one of its snapshots.
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

// count updates the statistics of present damage. stats.mu is held.
func (c *scrubber) count() {
	clear(c.stats.Damaged)
	for _, d := range c.known {
		c.stats.Damaged[d.Kind] += d.Count()
	}
}

// record stores the final findings of a check of a file. It logs the new findings, and passes all
// of them to OnDamage.
func (c *scrubber) record(t *scrubTarget, found []commitlog.Damage) {
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

// tell logs a finding and counts it.
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

// refused reports whether opening the log in its present state would fail because of a finding.
func (c *scrubber) refused(t *scrubTarget, d *commitlog.Damage) bool {
	l := c.l
	covered, newest := l.o.From, true // the next opening reads no entries up to this offset
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
