package disklog

import (
	"fmt"
	"time"

	"github.com/surgetank/surgetank/internal/vfs"
)

// A log at rest is one that receives few appends. It uses little space: it removes spares, and
// makes the next segment and the reserve small again. It also ends a large active segment early, so
// that the segment can be freed as soon as none of its entries is needed. Under load, segments grow
// again.

const (
	// A log is at rest if less than restBytes were appended in restAfter.
	restAfter = 5 * time.Second
	restBytes = 256 << 10
	// restShare limits the number of segments: a segment that is created at rest has at least
	// 1/restShare of the log's bytes.
	restShare = 32
)

// rest contains the time of lookAtRest's last decision, and the bytes written up to that time.
type rest struct {
	at      time.Time // zero: no decision yet
	written int64
}

// lookAtRest reports whether the log is at rest. It decides once in each period of restAfter.
func (l *Log) lookAtRest() bool {
	r := &l.keeper.rest
	now := l.o.Clock.Now()
	written := l.stats.bytes()
	if d := now.Sub(r.at); r.at.IsZero() || d < 0 {
		*r = rest{now, written} // this is the first call, or the clock was set back
	} else if d >= restAfter {
		l.resting.Store(written-r.written < restBytes)
		*r = rest{now, written}
	} else if written-r.written >= restBytes {
		l.resting.Store(false)
	}
	return l.resting.Load()
}

// smallSize returns the size of segments at rest.
func (l *Log) smallSize() int64 {
	l.segMu.RLock()
	defer l.segMu.RUnlock()
	var total int64
	for _, s := range l.segs {
		total += s.end - dataStart
	}
	return min(max(l.o.FirstBytes, pageEnd(total/restShare)), l.o.SegmentBytes)
}

// giveBack frees the log's unused space. Maintenance calls it while the log is at rest.
func (l *Log) giveBack() error {
	k := &l.keeper
	small := l.smallSize()
	k.nextSize = min(k.nextSize, small)
	for len(k.spares) > 0 {
		if err := l.dropSpare(); err != nil {
			return err
		}
	}
	if size := l.reserveSize(); k.reserve > size {
		if err := l.cutReserve(size); err != nil {
			return err
		}
	}
	l.mu.Lock()
	busy := l.needSize > 0 || l.blocked || len(l.queue) > 0
	next := l.next
	l.mu.Unlock()
	if busy {
		return nil
	}
	if next != nil && next.seg.size > small {
		if err := l.replaceNext(small); err != nil {
			return err
		}
	}
	l.segMu.RLock()
	active := l.segs[len(l.segs)-1]
	end := active.size > small && len(active.index) > 0
	l.segMu.RUnlock()
	if !end {
		return nil
	}
	if err := l.ensureNext(small); err != nil {
		return err
	}
	l.mu.Lock()
	l.early = l.next != nil && l.err == nil
	l.startWriter()
	l.mu.Unlock()
	return nil
}

// dropSpares asks maintenance to remove the spares. Any goroutine may call it.
func (l *Log) dropSpares() {
	l.short.Store(true)
	l.wake()
}

// dropSpare removes a spare.
func (l *Log) dropSpare() error {
	k := &l.keeper
	spare := k.spares[len(k.spares)-1]
	k.spares = k.spares[:len(k.spares)-1]
	return errorsJoin(l.fs.Remove(spare), l.fs.SyncDir(l.o.Dir))
}

// cutReserve makes the reserve smaller.
func (l *Log) cutReserve(size int64) error {
	f, err := l.fs.Open(l.files.path(reserveName), vfs.ReadWrite)
	if err != nil {
		return passing(err)
	}
	if err = f.Truncate(size); err == nil {
		l.keeper.reserve = size
	}
	return errorsJoin(err, f.Close())
}

// replaceNext replaces the next segment with a smaller one, unless the writer already uses it.
func (l *Log) replaceNext(size int64) error {
	l.mu.Lock()
	have := l.next
	if have == nil || l.needSize > 0 || len(l.queue) > 0 {
		l.mu.Unlock()
		return nil
	}
	l.next = nil
	l.mu.Unlock()
	if err := l.dropNext(have); err != nil {
		return err
	}
	return l.ensureNext(size)
}

// dropNext removes the file of the next segment, to free its space. The caller has removed the
// segment from l.next.
func (l *Log) dropNext(have *ready) error {
	return errorsJoin(have.out.Close(), l.fs.Remove(have.seg.name), l.fs.SyncDir(l.o.Dir))
}

// ensureNext creates the next segment if there is none. It may leave less than MinFree free for a
// moment, because more space is freed afterwards.
func (l *Log) ensureNext(size int64) error {
	l.mu.Lock()
	have, number := l.next != nil, l.lastNumber()+1
	l.mu.Unlock()
	if have {
		return nil
	}
	seg, err := l.files.create(number, size, l.zeroAhead(size), nil)
	if err != nil {
		return passing(err)
	}
	return l.offerNext(seg)
}

// offerNext opens a new segment and passes it to the writer.
func (l *Log) offerNext(seg *segment) error {
	out, err := l.fs.Open(seg.name, vfs.ReadWrite)
	if err != nil {
		return passing(err) // the file stays until the next call replaces it
	}
	l.o.OnEvent(Event{Kind: "prepared", Segment: seg.header.number, Detail: fmt.Sprintf("%d bytes", seg.size)})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = &ready{seg, out}
	if l.blocked && seg.size >= l.needSize {
		l.blocked = false
		l.startWriter()
	}
	return nil
}

// passing returns nil for a passing error that left the log unchanged. It returns other errors
// unchanged.
func passing(err error) error {
	if noRoom(err) {
		return nil
	}
	return err
}
