package disklog

import (
	"bufio"
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

// A snapshot file is a header, blocks, and a footer:
//
//	header  magic, version, checksum, random id, offset
//	block   length (1 to snapBlock), checksum over id + block number + bytes, bytes
//	footer  a block of length 0: its checksum covers id + number of blocks + total length, which follow
//
// The file gets its name when it is complete and synced.
const (
	snapExt        = ".snap"
	damagedExt     = ".damaged" // appended to the name of a damaged snapshot
	snapBlock      = 256 << 10
	snapHeader     = 64
	snapBlockHead  = 8
	snapFooterTail = 16
	// keepSnapshots is how many complete snapshots are kept.
	keepSnapshots = 2
)

// Snapshots stores the snapshots of one log as files in a directory, possibly the log's directory.
// Only one goroutine at a time may call Save. The two newest snapshots are kept. A snapshot that
// the scrub found damaged is not one of the two and is never removed. After an intact snapshot was
// stored, the damaged one is renamed, so that users can look at it.
type Snapshots struct {
	fs  vfs.FS
	dir string
	mu  sync.Mutex
	// names is locked while files are created, renamed or removed, and read-locked while the scrub
	// reads a file. Some systems cannot rename or remove an open file.
	names sync.RWMutex

	// place, if not nil, returns an error if the directory's path now leads to another directory.
	// The log sets it when it opens.
	place func() error
	// short, if not nil, asks the log to free space on a full disk. The log sets it when it opens.
	short func()
	// random is the source of the files' ids; nil means crypto/rand. The log sets it when it opens.
	random io.Reader

	badMu sync.Mutex
	bad   map[commitlog.Offset]bool // snapshots that the scrub found damaged
}

var _ commitlog.Snapshots = (*Snapshots)(nil)

// OpenSnapshots opens the snapshots in a directory and makes the directory if it is missing. It
// changes nothing else, because the directory is locked later, when the log is opened. It fails
// with ErrLevel if a newer build wrote the directory. Only the process with the lock may call Save.
func OpenSnapshots(fs vfs.FS, dir string) (*Snapshots, error) {
	if err := fs.Mkdir(dir); err != nil {
		return nil, wrap(surgetank.CodeInternal, fmt.Sprintf("making the directory %s failed: %v", dir, err), err)
	}
	if err := checkLevel(fs, dir); err != nil {
		return nil, err
	}
	return &Snapshots{fs: fs, dir: dir}, nil
}

// dropUnfinished removes the file of an interrupted Save. The file can be large, and the next
// snapshot needs its space.
func (s *Snapshots) dropUnfinished() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		stem, tmp := strings.CutSuffix(name, tmpExt)
		if _, ok := parseSnapName(stem); tmp && ok {
			if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Snapshots) path(at commitlog.Offset) string { return filepath.Join(s.dir, snapName(at)) }

func snapName(at commitlog.Offset) string { return fmt.Sprintf("%020d%s", uint64(at), snapExt) }

func parseSnapName(name string) (commitlog.Offset, bool) {
	digits, ok := strings.CutSuffix(name, snapExt)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return commitlog.Offset(n), err == nil
}

// list returns the offsets of the complete snapshots, oldest first.
func (s *Snapshots) list() ([]commitlog.Offset, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, wrap(surgetank.CodeInternal, fmt.Sprintf("listing %s failed: %v", s.dir, err), err)
	}
	var offsets []commitlog.Offset
	for _, name := range names {
		if at, ok := parseSnapName(name); ok {
			offsets = append(offsets, at)
		}
	}
	slices.Sort(offsets)
	return offsets, nil
}

// Save writes a snapshot and names it when it is on disk. After an error the older snapshots are
// unchanged, and a later Save can succeed.
func (s *Snapshots) Save(at commitlog.Offset, write func(io.Writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := filepath.Join(s.dir, snapName(at))
	if s.place != nil {
		if err := s.place(); err != nil {
			return saveError(name, err)
		}
	}
	if err := s.dropUnfinished(); err != nil {
		return saveError(name, err)
	}
	f, err := createAnew(s.fs, name+tmpExt)
	if err != nil {
		return saveError(name, err)
	}
	err = s.fill(f, at, write)
	if err = errorsJoin(err, f.Close()); err == nil {
		var named bool
		if named, err = s.publish(name, at); named {
			return err
		}
	}
	err = errorsJoin(err, s.fs.Remove(name+tmpExt))
	if vfs.IsNoSpace(err) {
		err = errorsJoin(err, s.makeRoom())
	}
	return saveError(name, err)
}

// publish names a complete snapshot, makes the name durable, and removes older snapshots. named
// reports whether the snapshot has its name.
func (s *Snapshots) publish(name string, at commitlog.Offset) (named bool, err error) {
	s.names.Lock()
	defer s.names.Unlock()
	if s.condemned(at) { // the new snapshot needs the damaged one's name; until it is renamed, the older snapshot and the log contain the state
		if err := s.putAside(at); err != nil {
			return false, err
		}
	}
	if err := s.fs.Rename(name+tmpExt, name); err != nil {
		return false, err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return true, saveError(name, err)
	}
	return true, s.dropOld()
}

// makeRoom frees space after a snapshot did not fit, so that the next try may fit. It asks the log
// to remove its spares. It removes all snapshots except the newest intact one. The log after that
// snapshot is complete, so no state is lost.
func (s *Snapshots) makeRoom() error {
	if s.short != nil {
		s.short()
	}
	all, err := s.list()
	if err != nil {
		return err
	}
	whole := slices.DeleteFunc(all, s.condemned)
	if len(whole) < 2 {
		return nil
	}
	s.names.Lock()
	defer s.names.Unlock()
	for _, at := range whole[:len(whole)-1] {
		if err := s.fs.Remove(s.path(at)); err != nil {
			return err
		}
	}
	return s.fs.SyncDir(s.dir)
}

func saveError(name string, err error) error {
	code := surgetank.CodeInternal
	if vfs.IsNoSpace(err) {
		code = surgetank.CodeFull
	}
	return wrap(code, fmt.Sprintf("saving the snapshot %s failed: %v; the older one stays", name, err), err)
}

func (s *Snapshots) fill(f vfs.File, at commitlog.Offset, write func(io.Writer) error) error {
	x, err := newID(s.random)
	if err != nil {
		return err
	}
	h := make([]byte, snapHeader)
	copy(h, snapMagic)
	le.PutUint32(h[8:], formatVersion)
	copy(h[16:], x[:])
	le.PutUint64(h[32:], uint64(at))
	le.PutUint32(h[12:], blockSum(h))
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	w := &snapWriter{f: f, seal: newSealer(x), pos: snapHeader}
	buffered := bufio.NewWriterSize(w, snapBlock)
	if err := write(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return nil
}

// snapWriter splits its input into blocks.
type snapWriter struct {
	f      vfs.File
	seal   sealer
	pos    int64
	blocks uint64
	total  uint64
}

func (w *snapWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+snapBlock)]
		var head [snapBlockHead]byte
		le.PutUint32(head[:], uint32(len(part)))
		le.PutUint32(head[4:], crc32.Update(w.seal.entryBase(w.pos, w.blocks), castagnoli, part))
		if _, err := w.f.WriteVec([][]byte{head[:], part}, w.pos); err != nil {
			return done, err
		}
		w.pos += int64(len(part)) + snapBlockHead
		w.blocks++
		w.total += uint64(len(part))
		done += len(part)
	}
	return done, nil
}

func (w *snapWriter) finish() error {
	b := make([]byte, snapBlockHead+snapFooterTail)
	le.PutUint64(b[8:], w.blocks)
	le.PutUint64(b[16:], w.total)
	le.PutUint32(b[4:], crc32.Update(w.seal.entryBase(w.pos, w.blocks), castagnoli, b[8:]))
	_, err := w.f.WriteAt(b, w.pos)
	return err
}

// dropOld removes all but the newest snapshots, and renames damaged ones. names is held.
func (s *Snapshots) dropOld() error {
	all, err := s.list()
	if err != nil {
		return err
	}
	var whole []commitlog.Offset // snapshots that were not found damaged
	for _, at := range all {
		if !s.condemned(at) {
			whole = append(whole, at)
		} else if err := s.putAside(at); err != nil {
			return wrap(surgetank.CodeInternal, fmt.Sprintf("renaming the damaged snapshot %s failed: %v; the new one is saved", s.path(at), err), err)
		}
	}
	old := whole[:max(len(whole)-keepSnapshots, 0)]
	if len(old) == 0 && len(whole) == len(all) {
		return nil
	}
	for _, at := range old {
		name := s.path(at)
		if err := s.fs.Remove(name); err != nil {
			return wrap(surgetank.CodeInternal, fmt.Sprintf("removing the old snapshot %s failed: %v; the new one is saved", name, err), err)
		}
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return wrap(surgetank.CodeInternal, fmt.Sprintf("syncing %s failed: %v; the new snapshot is saved", s.dir, err), err)
	}
	return nil
}

// condemn records whether the scrub found a snapshot damaged.
func (s *Snapshots) condemn(at commitlog.Offset, is bool) {
	s.badMu.Lock()
	defer s.badMu.Unlock()
	if !is {
		delete(s.bad, at)
		return
	}
	if s.bad == nil {
		s.bad = map[commitlog.Offset]bool{}
	}
	s.bad[at] = true
}

func (s *Snapshots) condemned(at commitlog.Offset) bool {
	s.badMu.Lock()
	defer s.badMu.Unlock()
	return s.bad[at]
}

// putAside renames a damaged snapshot, so that it is ignored and recognized as damaged. The caller
// holds names.
func (s *Snapshots) putAside(at commitlog.Offset) error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	aside := snapName(at) + damagedExt
	for n := 2; slices.Contains(names, aside); n++ {
		aside = fmt.Sprint(snapName(at), damagedExt, n)
	}
	if err := s.fs.Rename(s.path(at), filepath.Join(s.dir, aside)); err != nil {
		return err
	}
	s.condemn(at, false)
	return nil
}

// Latest opens the newest snapshot. Its bytes are verified block by block while they are read. The
// reader returns io.EOF only after a footer that matches the bytes. If the snapshot is damaged, the
// error is ErrCorrupt; Latest never uses an older snapshot instead.
func (s *Snapshots) Latest() (commitlog.Offset, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	offsets, err := s.list()
	if err != nil || len(offsets) == 0 {
		return 0, nil, err
	}
	at := offsets[len(offsets)-1]
	r, err := openSnapshot(s.fs, filepath.Join(s.dir, snapName(at)), at)
	if err != nil {
		return 0, nil, err
	}
	return at, r, nil
}

// snapFile is a file from which a snapshot is read.
type snapFile interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// snapReader reads and verifies a snapshot.
type snapReader struct {
	f      snapFile
	name   string
	seal   sealer
	size   int64
	pos    int64
	blocks uint64
	total  uint64
	block  []byte // the rest of the present block, not returned yet
	buf    []byte
	err    error
}

func openSnapshot(fs vfs.FS, name string, at commitlog.Offset) (*snapReader, error) {
	f, err := fs.Open(name, vfs.Read)
	if err != nil {
		return nil, unreadable(name, 0, err)
	}
	r, err := newSnapReader(f, name, at)
	if err != nil {
		return nil, errorsJoin(err, f.Close())
	}
	return r, nil
}

func newSnapReader(f snapFile, name string, at commitlog.Offset) (*snapReader, error) {
	size, err := f.Size()
	if err != nil {
		return nil, unreadable(name, 0, err)
	}
	h := make([]byte, snapHeader)
	if err := readFull(f, name, h, 0); err != nil {
		return nil, err
	}
	switch wrong := checkBlock(h, snapMagic); {
	case wrong != "" && string(h[:8]) == snapMagic && blockSum(h) == le.Uint32(h[12:]):
		return nil, otherVersion(name, le.Uint32(h[8:]))
	case wrong != "":
		return nil, damaged(name, 0, "the snapshot's header %s", wrong)
	case commitlog.Offset(le.Uint64(h[32:])) != at:
		return nil, damaged(name, 32, "the snapshot is one of offset %d, not the one that its name says", le.Uint64(h[32:]))
	}
	var x id
	copy(x[:], h[16:])
	return &snapReader{f: f, name: name, seal: newSealer(x), size: size, pos: snapHeader}, nil
}

// Read returns verified bytes.
func (r *snapReader) Read(p []byte) (int, error) {
	for len(r.block) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.nextBlock()
	}
	n := copy(p, r.block)
	r.block = r.block[n:]
	return n, nil
}

// nextBlock reads and verifies a block. After the footer it returns io.EOF.
func (r *snapReader) nextBlock() error {
	var head [snapBlockHead + snapFooterTail]byte
	if err := readFull(r.f, r.name, head[:snapBlockHead], r.pos); err != nil {
		return err
	}
	n, sum := le.Uint32(head[:]), le.Uint32(head[4:])
	base := r.seal.entryBase(r.pos, r.blocks)
	if n == 0 {
		if err := readFull(r.f, r.name, head[snapBlockHead:], r.pos+snapBlockHead); err != nil {
			return err
		}
		switch {
		case crc32.Update(base, castagnoli, head[8:]) != sum:
			return damaged(r.name, r.pos, "the snapshot's end has a wrong checksum")
		case le.Uint64(head[8:]) != r.blocks || le.Uint64(head[16:]) != r.total:
			return damaged(r.name, r.pos, "the snapshot should have %d bytes and has %d", le.Uint64(head[16:]), r.total)
		case r.pos+int64(len(head)) != r.size:
			return damaged(r.name, r.pos, "there are bytes after the snapshot's end")
		}
		return io.EOF
	}
	if n > snapBlock {
		return damaged(r.name, r.pos, "a block of %d bytes is impossible", n)
	}
	if len(r.buf) < int(n) {
		r.buf = make([]byte, n)
	}
	b := r.buf[:n]
	if err := readFull(r.f, r.name, b, r.pos+snapBlockHead); err != nil {
		return err
	}
	if crc32.Update(base, castagnoli, b) != sum {
		return damaged(r.name, r.pos, "a block of the snapshot has a wrong checksum")
	}
	r.block = b
	r.pos += int64(n) + snapBlockHead
	r.blocks++
	r.total += uint64(n)
	return nil
}

// Close closes the file.
func (r *snapReader) Close() error {
	r.block, r.err = nil, errors.New("the snapshot is closed")
	return r.f.Close()
}
