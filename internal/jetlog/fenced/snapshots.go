package fenced

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// A snapshot is chunks and a manifest, which is stored last:
//
//	chunk.<at>.<id>.<i>    checksum over name and data, data
//	manifest.<at>.<id>     checksum over name and JSON, JSON
//
// Then an S record is appended to the log. When that is durable, older snapshots are removed, and
// the log may be trimmed. Chunks without a manifest are the rest of an interrupted Save.
const (
	chunkBytes = 512<<10 - 4
	// keepSnapshots is how many complete snapshots are kept. The broker keeps the log after the
	// older one.
	keepSnapshots = 2
)

// manifest describes a complete snapshot.
type manifest struct {
	At     uint64 `json:"at"`    // the snapshot covers the log up to this position
	Epoch  uint64 `json:"epoch"` // the state of the rule after At; 0: unknown, so a replay needs the whole log
	N      uint64 `json:"n"`
	Chunks int    `json:"chunks"`
	Bytes  int64  `json:"bytes"`
	Sum    uint32 `json:"sum"` // over all bytes
	id     string
}

func (m *manifest) name() string       { return fmt.Sprintf("manifest.%020d.%s", m.At, m.id) }
func (m *manifest) chunks() string     { return fmt.Sprintf("chunk.%020d.%s", m.At, m.id) }
func (m *manifest) chunk(i int) string { return fmt.Sprintf("%s.%d", m.chunks(), i) }

// Snapshots are the snapshots of a log. Only the log's owner can save one.
type Snapshots struct {
	l  *Log
	mu sync.Mutex
}

var _ commitlog.Snapshots = (*Snapshots)(nil)

// Snapshots returns the log's snapshots.
func (l *Log) Snapshots() *Snapshots { return &l.snaps }

// seal puts a checksum in front of data.
func (s *Snapshots) seal(name string, data []byte) []byte {
	sum := crc32.Update(crc32.Update(s.l.name, castagnoli, []byte(name)), castagnoli, data)
	return append(binary.LittleEndian.AppendUint32(make([]byte, 0, len(data)+4), sum), data...)
}

// get reads a piece from the first replica that has it intact.
func (s *Snapshots) get(ctx context.Context, name string) ([]byte, error) {
	var worst error
	passing := false
	for try := range rounds * s.l.s.Sources() {
		if try > 0 && try%s.l.s.Sources() == 0 {
			s.l.s.Wait(ctx, readPause)
			passing = false
		}
		b, err := s.l.s.GetSnapshot(ctx, try%s.l.s.Sources(), name)
		switch {
		case ctx.Err() != nil:
			return nil, s.l.unavailable("reading a snapshot of", ctx.Err())
		case errors.Is(err, ErrMissing):
			worst = errors.New("it is missing")
		case err != nil:
			worst, passing = err, true
		case len(b) < 4 || !slices.Equal(s.seal(name, b[4:])[:4], b[:4]):
			worst = errors.New("its checksum is wrong")
		default:
			return b[4:], nil
		}
	}
	if passing {
		return nil, s.l.unavailable("reading a snapshot of", worst)
	}
	return nil, wrap(surgetank.CodeCorrupt, fmt.Sprintf("the piece %s of a snapshot of the log %s is damaged on all replicas: %v; nothing was changed; restore a backup", name, s.l.o.Name, worst), commitlog.ErrCorrupt)
}

// list returns all complete snapshots, oldest first, and the names of the chunks' snapshots.
func (s *Snapshots) list(ctx context.Context) (complete []manifest, chunks map[string]manifest, err error) {
	var names []string
	if err := s.l.retry(ctx, "listing the snapshots of", func() (err error) {
		names, err = s.l.s.SnapshotNames(ctx)
		return err
	}); err != nil {
		return nil, nil, err
	}
	chunks = map[string]manifest{}
	for _, name := range names {
		part := strings.Split(name, ".")
		if len(part) < 3 {
			continue
		}
		at, err := strconv.ParseUint(part[1], 10, 64)
		if err != nil {
			continue
		}
		m := manifest{At: at, id: part[2]}
		if part[0] == "manifest" {
			complete = append(complete, m)
		} else {
			chunks[m.chunks()] = m
		}
	}
	slices.SortFunc(complete, func(a, b manifest) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.id, b.id)) })
	return complete, chunks, nil
}

// load reads a manifest.
func (s *Snapshots) load(ctx context.Context, m manifest) (manifest, error) {
	b, err := s.get(ctx, m.name())
	if err != nil {
		return m, err
	}
	at := m.At
	if err := json.Unmarshal(b, &m); err != nil || m.At != at {
		return m, wrap(surgetank.CodeCorrupt, fmt.Sprintf("the manifest %s of a snapshot of the log %s is wrong", m.name(), s.l.o.Name), commitlog.ErrCorrupt, err)
	}
	return m, nil
}

// base returns the newest snapshot at or before a position at which the rule's state is known, and
// the position of the newest snapshot. Without a snapshot, the base is the beginning of the log.
func (s *Snapshots) base(ctx context.Context, from uint64) (base manifest, newest uint64, err error) {
	all, _, err := s.list(ctx)
	if err != nil || len(all) == 0 {
		return manifest{}, 0, err
	}
	for _, m := range slices.Backward(all) {
		if m.At > from || from == 0 {
			continue
		}
		if m, err = s.load(ctx, m); err != nil {
			return manifest{}, 0, err
		}
		if m.Epoch > 0 {
			return m, all[len(all)-1].At, nil
		}
	}
	return manifest{}, all[len(all)-1].At, nil
}

// Latest opens the newest complete snapshot.
func (s *Snapshots) Latest() (commitlog.Offset, io.ReadCloser, error) {
	ctx := s.l.ctx
	all, _, err := s.list(ctx)
	if err != nil || len(all) == 0 {
		return 0, nil, err
	}
	m, err := s.load(ctx, all[len(all)-1])
	if err != nil {
		return 0, nil, err
	}
	return commitlog.Offset(m.At), &snapReader{s: s, ctx: ctx, m: m}, nil
}

// Save stores a snapshot. Many snapshots of one position can be stored; each has an id of its own.
func (s *Snapshots) Save(at commitlog.Offset, write func(io.Writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.l
	if err := l.Failure(); err != nil {
		return err
	}
	var id [8]byte
	if _, err := io.ReadFull(l.o.Rand, id[:]); err != nil {
		return s.saveError(at, err)
	}
	m := manifest{At: uint64(at), id: hex.EncodeToString(id[:])}
	if r, ok := l.known.at(m.At); ok {
		m.Epoch, m.N = r.epoch, r.n
	} else if l.known.from() > 1 {
		return s.saveError(at, errors.New("the position is not known to be an entry of the log"))
	}
	if err := s.store(&m, write); err != nil {
		if e := l.s.DropSnapshot(l.ctx, m.chunks()); e != nil {
			l.o.Logger.Debug("the rest of a snapshot could not be removed; a later one removes it", "log", l.o.Name, "error", e)
		}
		return s.saveError(at, err)
	}
	// From here on the chunks stay after an error, because the manifest can be stored later.
	b, err := json.Marshal(m)
	if err == nil {
		err = l.s.PutSnapshot(l.ctx, m.name(), s.seal(m.name(), b))
	}
	if err != nil {
		return s.saveError(at, err)
	}
	if err := s.point(&m); err != nil {
		return err
	}
	if err := s.dropOld(&m); err != nil {
		return wrap(surgetank.CodeUnavailable, fmt.Sprintf("removing old snapshots of the log %s failed: %v; the new one is saved", l.o.Name, err), err)
	}
	return l.covered(&m)
}

func (s *Snapshots) saveError(at commitlog.Offset, err error) error {
	return wrap(surgetank.CodeUnavailable, fmt.Sprintf("saving a snapshot of the log %s at %d failed: %v; the older one stays", s.l.o.Name, at, err), err)
}

// store stores the chunks.
func (s *Snapshots) store(m *manifest, write func(io.Writer) error) error {
	w := &chunkWriter{s: s, m: m}
	buffered := bufio.NewWriterSize(w, chunkBytes)
	if err := write(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// point appends the S record and waits until it is durable.
func (s *Snapshots) point(m *manifest) error {
	var err error
	done := make(chan struct{})
	s.l.enqueue(&item{kind: Snapshot, data: []byte(m.name()), done: func(_ uint64, e error) {
		err = e
		close(done)
	}})
	s.l.runner.await(s.l, done)
	return err
}

// dropOld removes older snapshots and the chunks of interrupted ones. A process that was the owner
// before can still be writing one, but not of a later position. One of the same position stays,
// because it becomes as good as the newest.
func (s *Snapshots) dropOld(newest *manifest) error {
	complete, chunks, err := s.list(s.l.ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{newest.chunks(): true}
	for _, m := range complete[max(0, len(complete)-keepSnapshots):] {
		keep[m.chunks()] = true
	}
	for _, m := range complete {
		if !keep[m.chunks()] {
			if err := s.l.s.DropSnapshot(s.l.ctx, m.name()); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name, m := range chunks { // unordered: sorted by the caller
			if !keep[name] && m.At < newest.At && !yield(name) {
				return
			}
		}
	}) {
		if err := s.l.s.DropSnapshot(s.l.ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// chunkWriter stores its input as chunks.
type chunkWriter struct {
	s *Snapshots
	m *manifest
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+chunkBytes)]
		name := w.m.chunk(w.m.Chunks)
		if err := w.s.l.s.PutSnapshot(w.s.l.ctx, name, w.s.seal(name, part)); err != nil {
			return done, err
		}
		w.m.Chunks++
		w.m.Bytes += int64(len(part))
		w.m.Sum = crc32.Update(w.m.Sum, castagnoli, part)
		done += len(part)
	}
	return done, nil
}

// snapReader reads and verifies a snapshot.
type snapReader struct {
	s     *Snapshots
	ctx   context.Context
	m     manifest
	next  int
	chunk []byte
	bytes int64
	sum   uint32
	err   error
}

// Read returns verified bytes.
func (r *snapReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.nextChunk()
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

func (r *snapReader) nextChunk() (err error) {
	if r.next == r.m.Chunks {
		if r.bytes != r.m.Bytes || r.sum != r.m.Sum {
			return wrap(surgetank.CodeCorrupt, fmt.Sprintf("the snapshot of the log %s at %d has %d bytes that differ from the %d that were saved", r.s.l.o.Name, r.m.At, r.bytes, r.m.Bytes), commitlog.ErrCorrupt)
		}
		return io.EOF
	}
	if r.chunk, err = r.s.get(r.ctx, r.m.chunk(r.next)); err != nil {
		return err
	}
	r.next++
	r.bytes += int64(len(r.chunk))
	r.sum = crc32.Update(r.sum, castagnoli, r.chunk)
	return nil
}

// Close ends the reading.
func (r *snapReader) Close() error {
	r.chunk, r.err = nil, errors.New("the snapshot is closed")
	return nil
}
