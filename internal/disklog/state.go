package disklog

import (
	"errors"
	"io"
	"path/filepath"

	"github.com/surgetank/surgetank/internal/dataformat"
	"github.com/surgetank/surgetank/internal/vfs"
)

// create creates a new log: its first segment, then the state file. The log exists as soon as the
// state file has its name.
func (l *Log) create(ls *listing) error {
	switch {
	case len(ls.segments) == 1 && ls.segments[0] == 1:
		// Either the creation of the log was interrupted, or its state file is lost. In the first
		// case the segment has no entries.
		f, err := l.fs.Open(l.files.path(segmentName(1)), vfs.Read)
		if err != nil {
			return openError(l.o.Dir, err)
		}
		h, sc, err := peekFirst(f, l.files.path(segmentName(1)))
		if err = errorsJoin(err, f.Close()); err != nil {
			return err
		}
		if sc.first != 0 || !sc.clean() {
			return l.lostState()
		}
		l.files.log = h.log
	case len(ls.segments) > 0:
		return l.lostState()
	default:
		x, err := newID(l.o.Rand)
		if err != nil {
			return openError(l.o.Dir, err)
		}
		l.files.log = x
		size := l.o.FirstBytes
		var fill func(vfs.File) error
		if l.runner.zeros() {
			fill = func(f vfs.File) error { return zeroAll(f, size) }
		}
		if _, err := l.files.create(1, size, fill, nil); err != nil {
			return openError(l.o.Dir, err)
		}
		ls.segments = []uint64{1}
		l.o.OnEvent(Event{Kind: "created", Segment: 1})
	}
	if err := writeState(l.fs, l.files.path(stateName), state{log: l.files.log, generation: 1, oldest: 1, first: 1}); err != nil {
		return openError(l.o.Dir, err)
	}
	if err := l.fs.SyncDir(l.o.Dir); err != nil {
		return openError(l.o.Dir, err)
	}
	return nil
}

// missing returns the error for a segment that must exist according to the state file.
func (l *Log) missing(number uint64) error {
	if wrong := l.keeper.state.other; wrong != "" {
		return damaged(l.files.path(segmentName(number)), 0, "the file is missing: either it was lost, or it was trimmed and the state file %s is out of date (one of its two slots %s)",
			l.files.path(stateName), wrong)
	}
	return damaged(l.files.path(segmentName(number)), 0, "the file is missing")
}

func (l *Log) lostState() error {
	return damaged(l.files.path(stateName), 0, "the file is missing, but there are segments of a log")
}

// writeState creates a state file. It is complete before it gets its name.
func writeState(fs vfs.FS, name string, st state) error {
	f, err := createAnew(fs, name+tmpExt)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(st.encode(), st.encode()...), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errorsJoin(err, f.Close()); err != nil {
		return err
	}
	return fs.Rename(name+tmpExt, name)
}

func zeroAll(f vfs.File, size int64) error {
	chunk := make([]byte, min(1<<20, size))
	for pos := int64(0); pos < size; pos += int64(len(chunk)) {
		if _, err := f.WriteAt(chunk[:min(int64(len(chunk)), size-pos)], pos); err != nil {
			return err
		}
	}
	return nil
}

// peekFirst reads segment 1 while the log's id is still unknown.
func peekFirst(f vfs.File, name string) (segmentHeader, *scanned, error) {
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return segmentHeader{}, nil, unreadable(name, 0, err)
	}
	h, wrong := decodeSegmentHeader(b[:n])
	if wrong != "" {
		return h, nil, damaged(name, 0, "the segment's header %s", wrong)
	}
	h, size, err := readHeader(f, name, 1, h.log)
	if err != nil {
		return h, nil, err
	}
	sc, err := scanSegment(f, name, h, size, nil)
	return h, sc, err
}

// openState reads the state file and keeps it open for trimming.
func (l *Log) openState() error {
	name := l.files.path(stateName)
	f, err := l.fs.Open(name, vfs.ReadWrite)
	if err != nil {
		return openError(l.o.Dir, err)
	}
	l.keeper.stateFile = f
	st, err := readState(f, name)
	if err != nil {
		return err
	}
	l.keeper.state = st
	l.keeper.generation.Store(st.generation)
	l.files.log = st.log
	return nil
}

// readState returns the newer of the intact slots. A crash can damage only the slot that is being
// written.
func readState(f io.ReaderAt, name string) (state, error) {
	b := make([]byte, 2*stateSlot)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return state{}, unreadable(name, 0, err)
	}
	var best state
	var wrong string
	for i := range 2 {
		slot := b[min(n, i*stateSlot):min(n, (i+1)*stateSlot)]
		st, w := decodeState(slot)
		if w != "" {
			if len(slot) >= stateUsed && string(slot[:8]) == stateMagic && blockSum(slot[:stateUsed]) == le.Uint32(slot[12:]) && le.Uint32(slot[8:]) != formatVersion {
				return st, otherVersion(name, le.Uint32(slot[8:]))
			}
			wrong = w
			continue
		}
		if err := dataformat.Check(max(st.level, 1), st.since); err != nil {
			return st, unfit(name, err)
		}
		if st.generation > best.generation {
			best = st
		}
	}
	if best.generation == 0 {
		return best, damaged(name, 0, "neither of its two slots is whole: a slot %s", wrong)
	}
	best.other = wrong
	return best, nil
}

// writeSlot overwrites and syncs the older slot of the state file. The new slot says that the log
// begins with segment oldest and entry first, and reaches its present end.
func (l *Log) writeSlot(oldest, first uint64) error {
	k := &l.keeper
	next := k.state
	next.generation++
	next.other = "" // this slot is overwritten now
	next.oldest, next.first = oldest, first
	l.segMu.RLock()
	if n := len(l.segs); n > 0 { // segs is empty while the log is being opened: then keep the known end
		next.endSegment, next.endSynced = l.segs[n-1].header.number, l.segs[n-1].end
	}
	l.segMu.RUnlock()
	if _, err := k.stateFile.WriteAt(next.encode(), int64(next.generation%2)*stateSlot); err != nil {
		return err
	}
	if err := k.stateFile.Sync(); err != nil {
		return err
	}
	next.level, next.since = dataformat.Written().Number, dataformat.Written().Since
	k.state = next
	k.generation.Store(next.generation)
	return nil
}

// raiseLevel sets the log's format level to that of this build, before data of that level is
// written. It writes the level into both slots, so that it survives the loss of one slot.
func (l *Log) raiseLevel() error {
	st := l.keeper.state
	if st.level == dataformat.Written().Number {
		return nil
	}
	for range 2 {
		if err := l.writeSlot(st.oldest, st.first); err != nil {
			return openError(l.o.Dir, err)
		}
	}
	l.o.Logger.Info("the data directory has a newer format level now; older builds refuse it",
		"before", st.level, "now", dataformat.Written().Number, "oldest_version_that_reads_it", dataformat.Written().Since)
	return nil
}

// checkLevel returns an error if the log in a directory has a format level that this build cannot
// read. It is for code that reads other files of the directory. A missing or damaged state file is
// no error of checkLevel, because opening the log reports it.
func checkLevel(fs vfs.FS, dir string) error {
	f, err := fs.Open(filepath.Join(dir, stateName), vfs.Read)
	if err != nil {
		return nil // opening the log reports it
	}
	_, err = readState(f, filepath.Join(dir, stateName))
	if closeErr := f.Close(); !errors.Is(err, ErrLevel) {
		return closeErr
	}
	return err
}
