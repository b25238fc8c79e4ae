package disklog

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// Read returns a durable entry: from memory if it is new or was read recently, otherwise from its
// segment, with its checksum verified.
func (l *Log) Read(at commitlog.Offset) ([]byte, error) {
	if l.closed.Load() {
		return nil, errClosed
	}
	number := uint64(at)
	if data, ok := l.recent.get(number); ok {
		return data, nil
	}
	return l.cold.get(number, l.readStored)
}

// errTrimmed returns the error for an entry that was trimmed.
func errTrimmed(number uint64) error {
	return wrap(surgetank.CodeNotFound, fmt.Sprintf("entry %d was trimmed away", number), commitlog.ErrTrimmed)
}

// readStored reads an entry from its segment.
func (l *Log) readStored(number uint64) ([]byte, error) {
	if number > l.durable.Load() || number == 0 {
		return nil, wrap(surgetank.CodeCorrupt, fmt.Sprintf("entry %d is needed, and the log in %s ends with %d; %s", number, l.o.Dir, l.durable.Load(), advice), commitlog.ErrCorrupt)
	}
	l.segMu.RLock()
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].first > number }) - 1
	if i < 0 {
		l.segMu.RUnlock()
		return nil, errTrimmed(number)
	}
	s := l.segs[i]
	from, to := s.place(number)
	l.segMu.RUnlock()

	f, err := l.handles.acquire(s)
	if errors.Is(err, commitlog.ErrTrimmed) {
		return nil, errTrimmed(number)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if l.handles.release(s) {
			l.wake()
		}
	}()
	b := make([]byte, to-from) // the length is safe: the index is verified, so the segment has these bytes
	if err := readFull(f, s.name, b, from); err != nil {
		return nil, err
	}
	return s.checkFrame(b, from, number)
}

// readFull fills a buffer from a file. It fails if the file has fewer bytes.
func readFull(f io.ReaderAt, name string, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return damaged(name, at+int64(n), "the file ends %d bytes too early", len(b)-n)
	}
	return unreadable(name, at, err)
}

// replayChunk is how many bytes a replay reads ahead.
const replayChunk = 1 << 20

// replay iterates over the entries that were stored at Open. It reads and verifies each.
type replay struct {
	l    *Log
	segs []replaySegment
	from uint64 // the number of the next entry
	buf  []byte
	off  int64 // position of buf[0] in the first segment of segs; -1: the buffer is not valid
	err  error
}

// replaySegment is a segment as it was at Open.
type replaySegment struct {
	*segment
	last uint64 // number of its last entry at Open
}

// newReplay returns a replay of the entries after an offset. It fails if the log's first entry is
// not the next one or an earlier one.
func (l *Log) newReplay(from commitlog.Offset) (commitlog.Replay, error) {
	last, first := l.durable.Load(), l.segs[0].first
	switch {
	case uint64(from) > last:
		return nil, damaged(l.o.Dir, 0, "entries up to %d are known to have been stored, and the log ends with %d", from, last)
	case from > 0 && uint64(from)+1 < first:
		return nil, damaged(l.o.Dir, 0, "the entries after %d are needed, and the log begins with %d", from, first)
	}
	r := &replay{l: l, off: -1, from: max(uint64(from)+1, first)}
	for _, s := range l.segs {
		if n := s.next(); n > r.from && len(s.index) > 0 {
			r.segs = append(r.segs, replaySegment{s, n - 1})
		}
	}
	return r, nil
}

// Next returns the next entry. Its data is valid until the next call. If repair could not read an
// entry, Next returns the entry as lost.
func (r *replay) Next() (commitlog.Entry, error) {
	for r.err == nil {
		if len(r.segs) == 0 {
			r.err = io.EOF
			break
		}
		data, err := r.read()
		lost := errors.Is(err, errLost)
		if err != nil && !lost {
			r.err = err
			break
		}
		e := commitlog.Entry{Offset: commitlog.Offset(r.from), Data: data, Lost: lost}
		if r.from == r.segs[0].last {
			r.segs = r.segs[1:]
			r.off = -1 // invalid for the next segment; it still contains the data of the returned entry
		}
		r.from++
		return e, nil
	}
	return commitlog.Entry{}, r.err
}

// read returns the next entry from the buffer, and fills the buffer when necessary.
func (r *replay) read() ([]byte, error) {
	s := r.segs[0]
	r.l.segMu.RLock()
	from, to := s.place(r.from)
	end := s.end
	r.l.segMu.RUnlock()
	if r.off < 0 || from < r.off || to > r.off+int64(len(r.buf)) {
		want := int(max(to-from, min(replayChunk, end-from)))
		if cap(r.buf) < want {
			r.buf = make([]byte, want)
		}
		r.buf = r.buf[:want]
		f, err := r.l.handles.acquire(s.segment)
		if err != nil {
			return nil, err
		}
		err = readFull(f, s.name, r.buf, from)
		r.l.handles.release(s.segment)
		if err != nil {
			return nil, err
		}
		r.off = from
	}
	return s.checkFrame(r.buf[from-r.off:to-r.off], from, r.from)
}

// Close ends the replay.
func (r *replay) Close() error {
	r.segs, r.buf, r.err = nil, nil, commitlog.ErrClosed
	return nil
}
