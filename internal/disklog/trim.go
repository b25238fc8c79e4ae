package disklog

import (
	"fmt"
	"strings"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/failpoint"
)

// Trim says that entries before an offset are no longer needed: segments that hold nothing else are freed.
func (l *Log) Trim(before commitlog.Offset) error {
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	l.segMu.Lock()
	n := 0
	for n+1 < len(l.segs) && l.segs[n+1].first <= uint64(before) {
		n++
	}
	l.trimmed = append(l.trimmed, l.segs[:n]...)
	l.segs = append([]*segment(nil), l.segs[n:]...)
	l.segMu.Unlock()
	running := l.running
	l.mu.Unlock()
	if n == 0 {
		return nil
	}
	l.wake()
	if l.o.Manual && !running {
		l.maintain()
	}
	return nil
}

// bury frees the segments that were trimmed: first the state file says that they are no longer part of the log, then
// their files are renamed to spares or removed.
func (l *Log) bury() error {
	k := &l.keeper
	l.mu.Lock()
	trimmed := l.trimmed
	l.trimmed = nil
	l.mu.Unlock()
	if len(trimmed) > 0 {
		failpoint.Reach(failpoint.TrimDecided)
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
		closed, err := l.handles.bury(s)
		if err != nil {
			return err
		}
		if !closed {
			busy = append(busy, s) // its last reader wakes maintenance
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
		failpoint.Reach(failpoint.TrimFile)
		changed = true
	}
	k.dead = busy
	if !changed {
		return nil
	}
	if err := l.fs.SyncDir(l.o.Dir); err != nil {
		return err
	}
	failpoint.Reach(failpoint.TrimDurable)
	return nil
}
