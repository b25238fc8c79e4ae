package disklog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// RepairReport lists what Repair copied and what is lost.
type RepairReport struct {
	Entries   int // copied
	First     commitlog.Offset
	Last      commitlog.Offset
	Snapshots int // copied
	Lost      []LostRange
	// Tail means that an unknown number of entries at the end is lost. The last element of Lost
	// stands for all of them.
	Tail bool
	// Trimmed is the number of the source's first entry, according to its state file; 0 means
	// unknown. Lower entries were no longer needed.
	Trimmed  commitlog.Offset
	Problems []Problem // damage of the source
}

// LostRange is a run of lost entries. The new log has placeholders for them: replay returns them as
// lost, and reading one is ErrCorrupt.
type LostRange struct{ First, Last commitlog.Offset }

// Repair copies every intact entry and snapshot of a log into a new directory, with the same
// offsets, and reports what is lost. It locks src and does not change it. It fails if dst contains
// a log or a snapshot. Like Open, it leaves out entries after a torn tail, because they were not
// confirmed.
func Repair(fs vfs.FS, src, dst string) (*RepairReport, error) {
	if filepath.Clean(src) == filepath.Clean(dst) {
		return nil, surgetank.FieldErrorf("dst", "the repaired log must go into another directory than %s", src)
	}
	lock, err := lockClosed(fs, src)
	if err != nil {
		return nil, err
	}
	r, err := repair(fs, src, dst)
	if closeErr := lock.Close(); err == nil && closeErr != nil {
		err = openError(src, closeErr)
	}
	return r, err
}

func repair(fs vfs.FS, src, dst string) (*RepairReport, error) {
	found, err := verify(fs, src, nil)
	if err != nil {
		return nil, err
	}
	r := &RepairReport{Problems: found.Problems}
	if err := fs.Mkdir(dst); err != nil {
		return nil, openError(dst, err)
	}
	ls, err := listDir(fs, dst)
	if err != nil {
		return nil, err
	}
	snaps, err := OpenSnapshots(fs, dst)
	if err != nil {
		return nil, err
	}
	have, err := snaps.list()
	if err != nil {
		return nil, err
	}
	if ls.state || len(ls.segments) > 0 || len(have) > 0 {
		return nil, wrap(surgetank.CodeExists, fmt.Sprintf("there is a log in %s already; repair into an empty directory", dst))
	}
	newest, err := r.copySnapshots(fs, found, snaps)
	if err != nil {
		return nil, err
	}
	if err := r.copyEntries(fs, src, dst, found, newest); err != nil {
		return nil, err
	}
	return r, nil
}

// copySnapshots copies the intact snapshots and returns the offset of the newest.
func (r *RepairReport) copySnapshots(fs vfs.FS, found *Report, to *Snapshots) (newest commitlog.Offset, err error) {
	for _, f := range found.Files {
		if f.Kind != KindSnapshot || len(f.Problems) > 0 {
			continue
		}
		in, err := openSnapshot(fs, f.File, f.First)
		if err != nil {
			return 0, err
		}
		err = to.Save(f.First, func(w io.Writer) error { _, err := io.Copy(w, in); return err })
		if closeErr := in.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return 0, err
		}
		newest = max(newest, f.First)
		r.Snapshots++
	}
	return newest, nil
}

// copyEntries writes the intact entries into a new log. The new log starts with the first entry of
// the source's state file. If that file is damaged, it starts with the first entry that was found.
func (r *RepairReport) copyEntries(fs vfs.FS, src, dst string, found *Report, newest commitlog.Offset) error {
	first, trimmed, limits := sourceLimits(fs, src, found)
	if r.Trimmed = trimmed; newest > 0 {
		first = min(first, newest+1) // trimmed entries that no intact snapshot covers are lost
	}
	log, err := newID(nil)
	if err != nil {
		return err
	}
	m := &files{fs: fs, dir: dst, log: log, now: func() int64 { return time.Now().Unix() }}
	size := segmentBytes(found)
	if _, err := m.create(1, min(DefaultFirstBytes, size), nil, nil); err != nil {
		return openError(dst, err)
	}
	if err := writeState(fs, m.path(stateName), state{log: log, generation: 1, oldest: 1, first: uint64(first)}); err != nil {
		return openError(dst, err)
	}
	if err := fs.SyncDir(dst); err != nil {
		return openError(dst, err)
	}
	replay, out, err := OpenStepped(Options{FS: fs, Dir: dst, SegmentBytes: size, CacheBytes: -1, MinFree: -1})
	if err != nil {
		return err
	}
	w := &repairWriter{r: r, out: out, next: first}
	var segment uint64 // segment of the newest entry
	err = replay.Close()
	if err == nil {
		err = inspect(fs, src, true, true, func(e EntryInfo) error {
			if e.Offset < w.next || e.Offset >= limits[e.Segment] {
				return nil // the entry is a second copy (of an interrupted recovery), or is after a torn tail
			}
			segment = e.Segment
			if err := w.lose(e.Offset); err != nil {
				return err
			}
			if e.Lost {
				return w.lose(e.Offset + 1)
			}
			return w.save(append([]byte(nil), e.Data...))
		})
	}
	if err == nil {
		err = w.lose(newest + 1) // a snapshot covers entries after the last intact entry
	}
	for _, p := range found.Problems {
		if err == nil {
			err = w.lose(p.LastLost + 1) // a mark proves that entries followed the last intact entry
		}
	}
	if r.Tail = found.tailLost(segment); err == nil && r.Tail {
		err = w.lose(w.next + 1)
	}
	if err == nil {
		err = w.flush()
	}
	return errorsJoin(err, out.Close())
}

// segmentBytes returns the size of the new log's segments, which is the size of the source's
// largest segment. So a small log stays small. The next opening uses its own size.
func segmentBytes(found *Report) int64 {
	size := int64(MinSegmentBytes)
	for _, f := range found.Files {
		if f.Kind == KindSegment && !f.Foreign {
			size = max(size, f.Size)
		}
	}
	return pageEnd(min(size, DefaultSegmentBytes))
}

// tailLost reports whether entries after the newest intact one are damaged. segment contains the
// newest intact entry.
func (r *Report) tailLost(segment uint64) bool {
	for _, p := range r.Problems {
		if number, ok := parseSegmentName(filepath.Base(p.File)); ok && p.Tail && number >= segment {
			return true
		}
	}
	return false
}

// sourceLimits returns the limits for copying. first is the number of the first entry to copy.
// trimmed is the number of the first entry that was not trimmed (0: not known). limits contains,
// for each segment, the number of the first entry in later segments. A segment's entries from its
// limit on are ignored.
func sourceLimits(fs vfs.FS, src string, found *Report) (first, trimmed commitlog.Offset, limits map[uint64]commitlog.Offset) {
	limits = map[uint64]commitlog.Offset{}
	limit := ^commitlog.Offset(0)
	var oldest uint64
	if err := withFile(fs, filepath.Join(src, stateName), func(f vfs.File) error {
		st, err := readState(f, stateName)
		first, trimmed, oldest = commitlog.Offset(st.first), commitlog.Offset(st.first), st.oldest
		return err
	}); err != nil {
		first, trimmed, oldest = max(found.First, 1), 0, 0 // verify reported the damaged state file; the entries show where the log begins
	}
	for i := len(found.Files) - 1; i >= 0; i-- {
		f := found.Files[i]
		number, ok := parseSegmentName(filepath.Base(f.File))
		if f.Kind != KindSegment || !ok || number < oldest || f.Foreign {
			continue // the segment's limit stays 0, so none of its entries is copied
		}
		limits[number] = limit
		if f.Entries > 0 {
			limit = f.First
		}
	}
	return first, trimmed, limits
}

// repairBatch is how many bytes are written between syncs.
const repairBatch = 16 << 20

// maxLost limits the number of consecutive placeholders, because each needs space.
const maxLost = 100_000_000

// repairWriter appends to the repaired log.
type repairWriter struct {
	r     *RepairReport
	out   *Stepped
	next  commitlog.Offset
	bytes int
	err   error
}

func (w *repairWriter) append(p pending) error {
	p.done = func(_ commitlog.Offset, err error) { w.err = errors.Join(w.err, err) }
	w.out.mu.Lock()
	w.out.queue = append(w.out.queue, p)
	w.out.mu.Unlock()
	w.next++
	if w.bytes += len(p.data) + frameHeader; w.bytes > repairBatch {
		return w.flush()
	}
	return nil
}

func (w *repairWriter) save(data []byte) error {
	if w.r.Entries++; w.r.First == 0 {
		w.r.First = w.next
	}
	w.r.Last = w.next
	return w.append(pending{data: data})
}

// lose writes placeholders for the entries before until.
func (w *repairWriter) lose(until commitlog.Offset) error {
	if until > w.next+maxLost {
		return damaged(w.out.o.Dir, 0, "%d entries in a row are missing, which is impossible", until-w.next)
	}
	if w.next < until {
		if n := len(w.r.Lost); n > 0 && w.r.Lost[n-1].Last+1 == w.next {
			w.r.Lost[n-1].Last = until - 1
		} else {
			w.r.Lost = append(w.r.Lost, LostRange{w.next, until - 1})
		}
	}
	for w.next < until {
		if err := w.append(pending{lost: true}); err != nil {
			return err
		}
	}
	return nil
}

func (w *repairWriter) flush() error {
	w.bytes = 0
	w.out.Pump()
	w.out.mu.Lock()
	left := len(w.out.queue)
	w.out.mu.Unlock()
	if w.err == nil && left > 0 {
		return wrap(surgetank.CodeFull, fmt.Sprintf("the disk is full: %d entries of the repaired log could not be written; free space and repair again into an empty directory", left))
	}
	return w.err
}
