package disklog

import (
	"fmt"
	"strings"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Trim tells the log that entries before an offset are no longer needed. It frees segments that
// contain only such entries.
func (l *Log) Trim(before commitlog.Offset) error {
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	l.wanted = max(l.wanted, uint64(before))
	n := l.dropTrimmed()
	running := l.running
	l.mu.Unlock()
	l.recent.drop(uint64(before))
	if n == 0 {
		return nil
	}
	l.wake()
	l.runner.trimmed(l, running)
	return nil
}

// dropTrimmed removes the segments with only trimmed entries from the log, and passes them to
// freeTrimmed. mu is held.
func (l *Log) dropTrimmed() int {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	n := l.trimmable(l.wanted)
	if n > 0 {
		l.trimmed = append(l.trimmed, l.segs[:n]...)
		l.segs = append([]*segment(nil), l.segs[n:]...)
	}
	return n
}

// trimmable counts the segments that a trim would free. The active segment never counts. segMu is
// held.
func (l *Log) trimmable(before uint64) int {
	n := 0
	for n+1 < len(l.segs) && l.segs[n+1].first <= before {
		n++
	}
	return n
}

// Freeable returns the bytes on disk that Trim would free. See commitlog.Freer.
func (l *Log) Freeable(before commitlog.Offset) (bytes int64) {
	resting := l.resting.Load()
	l.segMu.RLock()
	defer l.segMu.RUnlock()
	for _, s := range l.segs[:l.trimmable(uint64(before))] {
		bytes += s.size
	}
	// A log at rest ends its active segment early, so the segment can be freed.
	if s := l.segs[len(l.segs)-1]; resting && len(s.index) > 0 && s.next() <= uint64(before) && s.size > l.o.FirstBytes {
		bytes += s.size
	}
	return bytes
}

// Room returns the bytes of entries for which the log has room. See commitlog.Freer.
func (l *Log) Room() int64 {
	l.mu.Lock()
	next := l.next
	l.mu.Unlock()
	l.segMu.RLock()
	defer l.segMu.RUnlock()
	s := l.segs[len(l.segs)-1]
	room := max(s.size-s.end-indexSize(len(s.index)), 0) + l.reserved.Load()
	if next != nil {
		room += next.seg.size
	}
	if free, err := l.fs.Free(l.o.Dir); err == nil {
		room += max(free-l.keep.Load(), 0)
	}
	return room
}

// KeepFree sets the space that a snapshot needs. See commitlog.Freer.
func (l *Log) KeepFree(bytes int64) { l.keep.Store(bytes) }

// freeTrimmed frees the trimmed segments. First it writes into the state file that they are no
// longer part of the log. Then it renames their files to spares or removes them.
func (l *Log) freeTrimmed() error {
	k := &l.keeper
	l.mu.Lock()
	l.dropTrimmed() // remove also a segment that was ended meanwhile
	trimmed := l.trimmed
	l.trimmed = nil
	l.mu.Unlock()
	if len(trimmed) > 0 {
		last := trimmed[len(trimmed)-1]
		if err := l.writeSlot(last.header.number+1, last.next()); err != nil {
			return err
		}
		k.dead = append(k.dead, trimmed...)
		l.o.OnEvent(Event{Kind: "trimmed", Segment: last.header.number, Detail: fmt.Sprintf("%d segments", len(trimmed))})
	}
	var busy []*segment
	changed := false
	for _, s := range k.dead {
		closed, err := l.handles.retire(s)
		if err != nil {
			return err
		}
		if !closed {
			busy = append(busy, s) // its last reader will wake maintenance
			continue
		}
		if len(k.spares) < maxSpares && s.size == l.o.SegmentBytes {
			spare := strings.TrimSuffix(s.name, segmentExt) + spareExt
			err = l.fs.Rename(s.name, spare)
			k.spares = append(k.spares, spare)
		} else {
			err = l.fs.Remove(s.name)
		}
		if err != nil {
			return err
		}
		changed = true
	}
	k.dead = busy
	if !changed {
		return nil
	}
	if err := l.fs.SyncDir(l.o.Dir); err != nil {
		return err
	}
	return nil
}
