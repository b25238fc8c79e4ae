package disklog

import (
	"errors"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"slices"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

const (
	// coldChunk is how much the scrub reads at a time. It is small because the log's own syncs may
	// have to wait for the read.
	coldChunk = 256 << 10
	// maxFindings is how many findings of one file are reported separately.
	maxFindings = 64
)

// coldFile reads a file of the log, or a snapshot, without the page cache. The file is open, and
// protected from being renamed or removed, only while a piece of it is read.
type coldFile struct {
	c       *scrubber
	name    string
	segment *segment // nil: the file is no segment
	snaps   *Snapshots
	buf     []byte
	off     int64 // position of buf[0]
	n       int   // number of bytes in buf
	careful int64 // pieces before this position are minimal, because reading a larger piece failed
}

// open prepares the scrubber's coldFile for reading another file.
func (c *scrubber) open(t *scrubTarget) *coldFile {
	f := &c.file
	*f = coldFile{c: c, name: t.name, segment: t.segment, buf: f.buf}
	if t.kind == scrubSnapshots {
		f.snaps = c.l.o.Snapshots
	}
	if f.buf == nil {
		f.buf = make([]byte, coldChunk)
	}
	return f
}

// at returns the buffered bytes from pos on: at least n, or fewer at the end of the file. The bytes
// are valid until the next call. n is at most coldChunk less a page.
func (f *coldFile) at(pos int64, n int) ([]byte, error) {
	if pos < f.off || pos+int64(n) > f.off+int64(f.n) || f.n == 0 {
		if err := f.fill(pos, n); err != nil {
			return nil, err
		}
	}
	return f.buf[min(int(pos-f.off), f.n):f.n], nil
}

// fill reads the pages from pos on. If reading a large piece fails, fill reads a small one, because
// the needed bytes can still be readable.
func (f *coldFile) fill(pos int64, n int) error {
	from := pos / pageSize * pageSize
	size := int64(coldChunk)
	if from < f.careful {
		size = pageEnd(pos+int64(n)) - from
	}
	err := f.read(from, f.buf[:size])
	if err == nil || size < coldChunk || reason(err) != nil {
		return err
	}
	f.careful = from + size
	return f.read(from, f.buf[:pageEnd(pos+int64(n))-from])
}

// read waits until the scrub's rate allows it, and then reads one piece.
func (f *coldFile) read(from int64, b []byte) error {
	f.off, f.n = from, 0
	if err := f.c.l.runner.permit(f.c, len(b)); err != nil {
		return err
	}
	l := f.c.l
	if s := f.segment; s != nil {
		if err := l.handles.pin(s); err != nil {
			return errScrubGone
		}
		defer func() {
			if l.handles.release(s) {
				l.wake()
			}
		}()
	}
	if s := f.snaps; s != nil {
		s.names.RLock()
		defer s.names.RUnlock()
	}
	n, err := vfs.ReadCold(l.fs, f.name, b, from)
	f.c.stats.mu.Lock()
	f.c.stats.Bytes += int64(n)
	f.c.stats.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, io.EOF):
		f.n = n
		return nil
	case vfs.IsShortage(err):
		return errScrubShort
	}
	return err
}

// reason returns the error that ends the check of a file, or nil if err is a finding.
func reason(err error) error {
	for _, r := range []error{errScrubStopped, errScrubGone, errScrubShort} {
		if errors.Is(err, r) {
			return r
		}
	}
	return nil
}

// ReadAt reads through the buffer.
func (f *coldFile) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		b, err := f.at(off+int64(n), 1)
		if err != nil {
			return n, err
		}
		if len(b) == 0 {
			return n, io.EOF
		}
		n += copy(p[n:], b)
	}
	return n, nil
}

// Size returns the file's size.
func (f *coldFile) Size() (size int64, err error) {
	if f.snaps != nil {
		f.snaps.names.RLock()
		defer f.snaps.names.RUnlock()
	}
	file, err := f.c.l.fs.Open(f.name, vfs.Read)
	if vfs.IsShortage(err) {
		return 0, errScrubShort
	}
	if err != nil {
		return 0, err
	}
	size, err = file.Size()
	return size, errorsJoin(err, file.Close())
}

// Close does nothing, because no file is open.
func (f *coldFile) Close() error { return nil }

// findings collects the damage of one file. Consecutive entries with the same kind of damage are
// one finding.
type findings struct {
	list []commitlog.Damage
	file string
}

// add adds an error of reading or checking. It returns an error if the check of the file must end.
func (d *findings) add(kind commitlog.DamageKind, at int64, number uint64, err error) error {
	if r := reason(err); r != nil {
		return r
	}
	if errors.Is(err, iofs.ErrNotExist) {
		err = damaged(d.file, 0, "the file is missing")
	}
	unread := !errors.Is(err, commitlog.ErrCorrupt)
	offset := commitlog.Offset(number)
	if n := len(d.list); n > 0 && kind == commitlog.DamagedEntry {
		if last := &d.list[n-1]; last.Kind == kind && last.Last+1 == offset && last.Unreadable == unread {
			last.Last = offset
			return nil
		}
	}
	d.list = append(d.list, commitlog.Damage{Kind: kind, File: d.file, At: at, First: offset, Last: offset, Unreadable: unread, Err: err})
	return nil
}

// look reads a file and compares it with the log's data in memory. It returns an error if the file
// could not be checked.
func (c *scrubber) look(t *scrubTarget) ([]commitlog.Damage, error) {
	d := findings{file: t.name}
	var err error
	switch t.kind {
	case scrubState:
		err = c.lookAtState(t, &d)
	case scrubSnapshots:
		err = c.lookAtSnapshot(t, &d)
	default:
		err = c.lookAtSegment(t, &d)
	}
	if err == nil && len(d.list) > 0 && !c.live(t.name) {
		err = errScrubGone // the file was trimmed, or replaced by a newer one
	}
	if err != nil {
		return nil, err
	}
	return d.list, nil
}

// lookAtState checks the state file, while maintenance possibly writes one of its slots.
func (c *scrubber) lookAtState(t *scrubTarget, d *findings) error {
	known := c.l.keeper.generation.Load()
	st, err := readState(c.open(t), t.name)
	if err == nil && st.generation < known {
		err = damaged(t.name, int64(known%2)*stateSlot, "its newer slot is damaged, and the other one is out of date")
	}
	if err != nil {
		return d.add(commitlog.DamagedState, 0, 0, err)
	}
	return nil
}

// lookAtSnapshot reads a snapshot to its end.
func (c *scrubber) lookAtSnapshot(t *scrubTarget, d *findings) error {
	r, err := newSnapReader(c.open(t), t.name, t.at)
	pos := int64(0)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		pos = r.pos
	}
	if err != nil {
		return d.add(commitlog.DamagedSnapshot, pos, uint64(t.at), err)
	}
	return nil
}

// lookAtSegment checks a segment: its header, each durable entry and, if it is sealed, its index
// and footer. It finds entries by the index in memory. In the active segment it ignores bytes after
// the durable entries.
func (c *scrubber) lookAtSegment(t *scrubTarget, d *findings) error {
	s, l := t.segment, c.l
	l.segMu.RLock()
	index, end, indexed := s.index, s.end, s.indexed
	l.segMu.RUnlock()
	f := c.open(t)

	b := make([]byte, headerSize)
	err := readFull(f, s.name, b, 0)
	if err == nil {
		if h, wrong := decodeSegmentHeader(b); wrong != "" {
			err = damaged(s.name, 0, "the segment's header %s", wrong)
		} else if h != s.header {
			err = damaged(s.name, 0, "the segment's header is that of another one")
		}
	}
	if err != nil {
		if err := d.add(commitlog.DamagedHeader, 0, 0, err); err != nil {
			return err
		}
	}
	for i, at := range index {
		pos, to, number := int64(at)*alignment, end, s.first+uint64(i)
		if i+1 < len(index) {
			to = int64(index[i+1]) * alignment
		}
		err := f.checkEntry(s, pos, to-pos, number)
		if err == nil {
			continue
		}
		if err := d.add(commitlog.DamagedEntry, pos, number, err); err != nil {
			return err
		}
		if len(d.list) > maxFindings { // too many findings: this finding represents the remaining ones
			d.list[len(d.list)-1].Last = commitlog.Offset(s.first + uint64(len(index)) - 1)
			break
		}
	}
	if !indexed {
		return nil
	}
	ft, stored, ok, err := readIndex(f, s.name, s.seal, s.size)
	// An interrupted recovery may have copied the last entries into the next segment.
	if err == nil && (!ok || ft.first != s.first || len(stored) < len(index) || !slices.Equal(stored[:len(index)], index)) {
		err = damaged(s.name, s.size-footerSize, "the segment's index or footer is not whole")
	}
	if err != nil {
		return d.add(commitlog.DamagedIndex, s.size-footerSize, 0, err)
	}
	return nil
}

// checkEntry verifies the frame of an entry. The entry may be larger than one read.
func (f *coldFile) checkEntry(s *segment, pos, room int64, number uint64) error {
	b, err := f.at(pos, frameHeader)
	if err != nil {
		return unreadable(s.name, pos, err)
	}
	if len(b) < frameHeader {
		return damaged(s.name, pos, "the file ends before entry %d", number)
	}
	fr, err := s.checkHead(b, pos, room, number)
	if err != nil {
		return err
	}
	sum := s.seal.entryBase(pos, number)
	for at, left := pos+frameHeader, fr.length; left > 0; {
		b, err := f.at(at, 1)
		if err != nil {
			return unreadable(s.name, at, err)
		}
		if len(b) == 0 {
			return damaged(s.name, at, "the file ends within entry %d", number)
		}
		b = b[:min(len(b), left)]
		sum = crc32.Update(sum, castagnoli, b)
		at += int64(len(b))
		left -= len(b)
	}
	if sum != fr.sum {
		return s.wrongSum(pos, number, fr)
	}
	return nil
}
