package disklog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// Names of files in a log's directory. A file whose name ends in .tmp is unfinished and ignored.
const (
	lockName    = "LOCK"
	stateName   = "log.state"
	reserveName = "reserve.spare"
	segmentExt  = ".seg"
	spareExt    = ".spare"
	tmpExt      = ".tmp"
)

func segmentName(number uint64) string { return fmt.Sprintf("%016d%s", number, segmentExt) }

// parseSegmentName returns the number in a segment's name.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentExt)
	if !ok || len(digits) < 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && segmentName(n) == name
}

// segment is one segment file. Any goroutine may read the fields that never change. Log.segMu
// guards index, first and end. handles guards file, refs and used.
type segment struct {
	header segmentHeader
	name   string // path
	size   int64  // size of the file
	seal   sealer

	first  uint64   // number of the first entry; in an empty segment, of the next entry
	index  []uint32 // positions of the durable entries, in units of alignment
	end    int64    // position after the last durable entry
	sealed bool
	// indexed means that the file ends with an intact index and footer. A sealed segment without
	// them is read completely at every opening.
	indexed bool

	file vfs.File
	refs int
	used uint64
	dead bool
}

// next returns the number after the last entry.
func (s *segment) next() uint64 { return s.first + uint64(len(s.index)) }

// place returns where an entry's frame begins and ends.
func (s *segment) place(number uint64) (from, to int64) {
	i := int(number - s.first)
	from, to = int64(s.index[i])*alignment, s.end
	if i+1 < len(s.index) {
		to = int64(s.index[i+1]) * alignment
	}
	return from, to
}

// checkFrame verifies that a buffer contains the frame of an entry at pos, and returns the entry.
func (s *segment) checkFrame(b []byte, pos int64, number uint64) ([]byte, error) {
	if len(b) < frameHeader {
		return nil, damaged(s.name, pos, "the index has no room for entry %d", number)
	}
	fr, err := s.checkHead(b, pos, int64(len(b)), number)
	if err != nil {
		return nil, err
	}
	data := b[frameHeader : frameHeader+fr.length : frameHeader+fr.length]
	if crc32.Update(s.seal.entryBase(pos, number), castagnoli, data) != fr.sum {
		return nil, s.wrongSum(pos, number, fr)
	}
	if fr.kind == frameLost {
		return nil, wrap(surgetank.CodeCorrupt, fmt.Sprintf("%s at byte %d: entry %d was damaged and repair could not read it", s.name, pos, number), errLost, commitlog.ErrCorrupt)
	}
	return data, nil
}

// checkHead verifies the header of an entry's frame. room is the frame's size according to the
// index.
func (s *segment) checkHead(b []byte, pos, room int64, number uint64) (frame, error) {
	fr, ok := s.seal.decode(b, pos)
	switch {
	case !ok || fr.kind == frameMark:
		return fr, damaged(s.name, pos, "entry %d should begin here and does not", number)
	case fr.number != number:
		return fr, damaged(s.name, pos, "entry %d should be here, but this is entry %d", number, fr.number)
	case frameSize(fr.length) != room:
		return fr, damaged(s.name, pos, "entry %d has %d bytes, but %d in the index", number, frameSize(fr.length), room)
	}
	return fr, nil
}

func (s *segment) wrongSum(pos int64, number uint64, fr frame) error {
	return damaged(s.name, pos, "entry %d (%d bytes) has a wrong checksum", number, fr.length)
}

// errLost is the cause of the error for an entry that repair could not read.
var errLost = errors.New("lost")

// readHeader reads a segment file's header. It checks that the segment has the number in the file's
// name and belongs to this log.
func readHeader(f vfs.File, name string, number uint64, log id) (segmentHeader, int64, error) {
	size, err := f.Size()
	if err != nil {
		return segmentHeader{}, 0, unreadable(name, 0, err)
	}
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return segmentHeader{}, 0, unreadable(name, 0, err)
	}
	h, wrong := decodeSegmentHeader(b[:n])
	switch {
	case wrong != "" && n >= headerSize && blockSum(b) == le.Uint32(b[12:]) && string(b[:8]) == segmentMagic && le.Uint32(b[8:]) != formatVersion:
		return h, 0, otherVersion(name, le.Uint32(b[8:]))
	case wrong != "":
		return h, 0, damaged(name, 0, "the segment's header %s", wrong)
	case h.log != log:
		return h, 0, misplaced(name, 16, "the file belongs to another log; move it out of the directory, and put the right one in its place")
	case h.number != number:
		return h, 0, damaged(name, 48, "the file holds segment %d, not the one that its name says", h.number)
	}
	return h, size, nil
}

func otherVersion(name string, version uint32) error {
	return wrap(surgetank.CodeCorrupt, fmt.Sprintf("%s has version %d of the format and this program reads version %d; nothing was changed; open the data directory with the version of Surgetank that wrote it",
		name, version, formatVersion), commitlog.ErrCorrupt)
}

// readIndex reads a sealed segment's footer and index. ok is false if there is no intact one.
func readIndex(f io.ReaderAt, name string, seal sealer, size int64) (ft footer, index []uint32, ok bool, err error) {
	if size < dataStart+footerSize {
		return ft, nil, false, nil
	}
	b := make([]byte, footerSize)
	if _, err := f.ReadAt(b, size-footerSize); err != nil && !errors.Is(err, io.EOF) {
		return ft, nil, false, unreadable(name, size-footerSize, err)
	}
	ft, sum, ok := seal.decodeFooter(b, size)
	if !ok {
		return ft, nil, false, nil
	}
	raw := make([]byte, indexSize(ft.count)-footerSize) // the size is safe: decodeFooter has compared count with the file's size
	at := size - indexSize(ft.count)
	if _, err := f.ReadAt(raw, at); err != nil && !errors.Is(err, io.EOF) {
		return ft, nil, false, unreadable(name, at, err)
	}
	if crc32.Update(uint32(seal), castagnoli, raw) != sum {
		return ft, nil, false, nil
	}
	index = make([]uint32, ft.count)
	for i := range index {
		index[i] = le.Uint32(raw[4*i:])
		if i == 0 && index[i] != dataStart/alignment || i > 0 && index[i] < index[i-1]+frameHeader/alignment || int64(index[i])*alignment+frameHeader > ft.end {
			return ft, nil, false, nil
		}
	}
	return ft, index, true, nil
}

// handles keeps the files of segments open. When too many are open, it closes the least recently
// used file that is not being read.
type handles struct {
	fs   vfs.FS
	max  int
	mu   sync.Mutex
	open []*segment
	tick uint64
	shut bool // closeAll was called
}

// acquire returns a segment's file for reading until release.
func (h *handles) acquire(s *segment) (vfs.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.shut:
		return nil, errClosed
	case s.dead:
		return nil, commitlog.ErrTrimmed
	}
	h.tick++
	s.used = h.tick
	if s.file == nil {
		if len(h.open) >= h.max {
			if err := h.closeOldest(); err != nil {
				return nil, err
			}
		}
		f, err := h.fs.Open(s.name, vfs.Read)
		if err != nil {
			return nil, unreadable(s.name, 0, err)
		}
		s.file = f
		h.open = append(h.open, s)
	}
	s.refs++
	return s.file, nil
}

// closeOldest closes the least recently used file, if there is one that no reader uses.
func (h *handles) closeOldest() error {
	oldest := -1
	for i, s := range h.open {
		if s.refs == 0 && (oldest < 0 || s.used < h.open[oldest].used) {
			oldest = i
		}
	}
	if oldest < 0 {
		return nil
	}
	s := h.open[oldest]
	h.open = slices.Delete(h.open, oldest, oldest+1)
	f := s.file
	s.file = nil
	return f.Close()
}

// pin protects a segment's file from being renamed, written over or removed until release. It is
// for a reader with an open file of its own.
func (h *handles) pin(s *segment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.shut:
		return errClosed
	case s.dead:
		return commitlog.ErrTrimmed
	}
	s.refs++
	return nil
}

// release ends an acquire or a pin. It reports whether the segment was retired and this was its
// last reader.
func (h *handles) release(s *segment) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.refs--
	if h.shut && s.refs == 0 && s.file != nil {
		f := s.file
		s.file = nil
		_ = f.Close() // the error does not matter: the file was only read, and its log is closed
	}
	return s.dead && s.refs == 0
}

// retire closes a segment's file for good and refuses new readers. It returns false while the file
// is still being read.
func (h *handles) retire(s *segment) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.dead = true
	if s.refs > 0 {
		return false, nil
	}
	if i := slices.Index(h.open, s); i >= 0 {
		h.open = slices.Delete(h.open, i, i+1)
	}
	if s.file == nil {
		return true, nil
	}
	f := s.file
	s.file = nil
	return true, f.Close()
}

// closeAll closes every file for good. A file that is being read is closed at the end of the read.
func (h *handles) closeAll() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
	var errs []error
	for _, s := range h.open {
		if s.file != nil && s.refs == 0 {
			errs = append(errs, s.file.Close())
			s.file = nil
		}
	}
	h.open = nil
	return errors.Join(errs...)
}

// files creates segment files. Only Open and maintenance use it.
type files struct {
	fs     vfs.FS
	dir    string
	log    id
	random io.Reader
	now    func() int64
}

func (m *files) path(name string) string { return filepath.Join(m.dir, name) }

func newID(random io.Reader) (id, error) {
	var x id
	if random == nil {
		random = rand.Reader
	}
	_, err := io.ReadFull(random, x[:])
	return x, err
}

// create creates a durable segment file. It reserves size bytes and writes a header. write, if not
// nil, adds frames and returns their end. The file gets its name last, so a file with a segment's
// name is always complete. After an error the unfinished file is removed.
func (m *files) create(number uint64, size int64, fill func(vfs.File) error, write func(f vfs.File, seal sealer) (end int64, err error)) (*segment, error) {
	name := m.path(segmentName(number))
	tmp := name + tmpExt
	f, err := createAnew(m.fs, tmp)
	if err != nil {
		return nil, err
	}
	s, err := m.prepare(f, number, size, fill, write)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, errors.Join(err, m.fs.Remove(tmp))
	}
	if err := m.publish(tmp, name); err != nil {
		return nil, err
	}
	return s, nil
}

// convert makes a segment file from a file that already has its space.
func (m *files) convert(from string, number uint64, write func(f vfs.File, seal sealer) (end int64, err error)) (*segment, error) {
	f, err := m.fs.Open(from, vfs.ReadWrite)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	var s *segment
	if err == nil {
		s, err = m.prepare(f, number, size, nil, write)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	return s, m.publish(from, m.path(segmentName(number)))
}

// publish renames a finished file to its name and syncs the directory.
func (m *files) publish(from, to string) error {
	if err := m.fs.Rename(from, to); err != nil {
		return err
	}
	if err := m.fs.SyncDir(m.dir); err != nil {
		return err
	}
	return nil
}

// prepare writes a segment file's header and contents and syncs them.
func (m *files) prepare(f vfs.File, number uint64, size int64, fill func(vfs.File) error, write func(f vfs.File, seal sealer) (int64, error)) (*segment, error) {
	x, err := newID(m.random)
	if err != nil {
		return nil, err
	}
	if err := f.Preallocate(size); err != nil {
		return nil, err
	}
	if fill != nil {
		if err := fill(f); err != nil {
			return nil, err
		}
	}
	h := segmentHeader{log: m.log, id: x, number: number, size: size, born: dataStart, created: m.now()}
	seal := newSealer(x)
	if write != nil {
		if h.born, err = write(f, seal); err != nil {
			return nil, err
		}
	}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	return &segment{header: h, name: m.path(segmentName(number)), size: size, seal: seal, end: dataStart}, nil
}
