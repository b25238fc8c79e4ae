package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// snapState is a snapshot under way. The machine encodes it in pieces, the loop passes them on
// between turns, and the executor stores them.
//
//	since ≥ limit ─▶ begin: machine.StartSnapshot(n) ─▶ entry n lands: storing starts ─▶ pieces … ─▶ last ─▶ stored ─▶ trim
type snapState struct {
	since   int64 // bytes logged after the newest snapshot
	size    int64 // size of the newest snapshot
	active  bool
	number  uint64 // the last entry that the snapshot covers
	storing bool
	piece   []byte // encoded and not passed on yet
	last    bool   // the machine has no further piece
	written int64
	pieces  pieces
}

type snapResult struct {
	at  commitlog.Offset
	err error
}

// defaultPiece is how many bytes of a snapshot are encoded between two turns.
const defaultPiece = 256 << 10

var errAbandoned = errors.New("the snapshot was given up")

// maintain starts a snapshot if a replay of the log would last long, or if damage requires a
// snapshot. Other reasons are in reclaim.go.
func (b *core) maintain() {
	s := &b.snap
	if b.opts.Snapshots == nil || s.active {
		return
	}
	if s.since >= b.opts.SnapshotBytes && s.since >= 2*min(s.size, b.snapshotCost(b.now())) || b.harm.snapshotDue(b) {
		b.beginSnapshot()
	}
}

// beginSnapshot starts a snapshot up to the newest entry. The caller makes sure that no other
// snapshot is under way.
func (b *core) beginSnapshot() {
	b.machine.StartSnapshot(b.number)
	b.snap = snapState{active: true, number: b.number, size: b.snap.size}
	b.snapLanded(ticket{entry: b.durable}) // starts storing now if no entry is under way
}

// snapLanded starts storing when the last covered entry is durable. A snapshot must not contain an
// entry that the log can still lose.
func (b *core) snapLanded(t ticket) {
	s := &b.snap
	if !s.active || s.storing || t.entry < s.number {
		return
	}
	s.storing = true
	at, _ := b.places.offset(s.number)
	head := b.snapHead(s.number)
	s.pieces = b.exec.store(func(write func(io.Writer) error) error {
		return b.opts.Snapshots.Save(at, func(w io.Writer) error {
			if _, err := w.Write(head); err != nil {
				return err
			}
			return write(w)
		})
	}, func(err error) { b.stored(snapResult{at, err}) })
}

// snapHead returns the broker's own part of a snapshot up to an entry: the offsets of its entries.
func (b *core) snapHead(number uint64) []byte {
	runs := b.places.copy(number)
	head := binary.AppendUvarint(nil, uint64(len(runs)))
	for _, r := range runs {
		head = binary.AppendUvarint(head, r.number)
		head = binary.AppendUvarint(head, uint64(r.offset))
	}
	return head
}

// snapPiece passes on the next piece of a snapshot. It returns false if there is none, or if the
// storage accepts no piece now.
func (b *core) snapPiece() bool {
	s := &b.snap
	if !s.storing || s.last && s.piece == nil {
		return false
	}
	if s.piece == nil {
		s.piece, s.last = b.machine.SnapshotNext(b.opts.SnapshotPiece)
		s.written += int64(len(s.piece))
	}
	if !s.pieces.put(s.piece, s.last) {
		return false
	}
	s.piece = nil
	return true
}

// abandon ends the storing without a snapshot.
func (s *snapState) abandon() {
	if s.storing && !(s.last && s.piece == nil) {
		s.pieces.abandon()
	}
	s.storing = false
}

// snapDone trims the log after a snapshot was stored. It trims up to the previous snapshot, not up
// to the new one. So the previous snapshot and the log after it still contain the whole state, and
// repair loses nothing if the new snapshot is damaged. On a full disk it trims up to the new
// snapshot.
func (b *core) snapDone(r snapResult) {
	s := &b.snap
	b.harm.snapshotDone(b, s.number, r.err)
	b.reclaim.stored(b, r.err)
	if r.err != nil {
		// The older snapshot and the whole log still exist. Only the next opening needs longer.
		b.logger.Error("a snapshot could not be stored; the log grows, or stays as large as it is, until one can be", "error", r.err)
		b.snap = snapState{size: s.size}
		return
	}
	number := s.number
	b.logger.Debug("snapshot stored", "entry", number, "bytes", s.written)
	b.snap = snapState{size: s.written, since: s.since}
	before := b.older
	if b.older = number; b.full {
		before = number
	}
	if before > 0 {
		b.trim(before)
	}
	if b.harm.renew { // damage was found after the snapshot began
		b.maintain()
	}
}

// trim plans to free all entries that no message needs and that the snapshot covers. trimFreed
// frees them when the newest entry is durable.
func (b *core) trim(snapshot uint64) {
	b.freed = freed{before: min(snapshot+1, b.machine.Needed()), known: b.number}
	b.trimFreed()
}

// freed is the beginning of the log, which the machine no longer needs. The machine decided this
// from facts, such as an ack or a copy at the log's end. Until these facts are durable, a crash can
// undo them. After such a crash the messages exist again and must be readable, so the trim waits.
type freed struct {
	before, known uint64 // when the entry known is durable, trim all entries below before; 0: nothing to trim
}

// trimFreed trims the part in b.freed when the entry known is durable.
func (b *core) trimFreed() {
	f := b.freed
	if f.before == 0 || f.known > b.durable {
		return
	}
	b.freed = freed{}
	at, ok := b.places.offset(f.before - 1)
	if !ok {
		return // there is no entry to trim
	}
	at++
	b.places.trim(f.before)
	b.exec.background(func() {
		if err := b.log.Trim(at); err != nil && b.Err() == nil {
			b.logger.Error("the log could not be trimmed", "error", err)
		}
	})
}

// defaultQuickReplay is a length of log. Replaying it is faster than writing a large snapshot.
const defaultQuickReplay = 1 << 20

// finalSnapshot stores the state at a clean stop, so that the next opening replays almost nothing.
func (b *core) finalSnapshot() {
	s := &b.snap
	if b.opts.Snapshots == nil || s.since < b.opts.QuickReplay {
		return
	}
	if s.active {
		b.machine.AbandonSnapshot()
		started := s.storing
		s.abandon()
		if started {
			s.pieces.wait()
		}
		s.active = false
	}
	if err := b.saveAll(); err != nil {
		b.logger.Error("the closing snapshot could not be stored; the next start replays the log instead", "error", err)
	}
}

// restore reads the newest snapshot into the machine. It returns the offset that the snapshot
// covers, or 0 if there is no snapshot.
func (b *core) restore() (commitlog.Offset, error) {
	if b.opts.Snapshots == nil {
		return 0, nil
	}
	at, file, err := b.opts.Snapshots.Latest()
	if err != nil || file == nil {
		return 0, err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 16<<10) // a small buffer is enough, because file reads whole blocks
	bad := func(err error) error {
		return surgetank.Errorf(surgetank.CodeCorrupt, "the snapshot up to offset %d cannot be understood: %w", at, err)
	}
	n, err := binary.ReadUvarint(r)
	for range n {
		number, err1 := binary.ReadUvarint(r)
		offset, err2 := binary.ReadUvarint(r)
		if err = errors.Join(err, err1, err2); err != nil {
			break
		}
		b.places.add(number, commitlog.Offset(offset))
	}
	if err != nil {
		return 0, bad(err)
	}
	var frame []byte
	number, err := b.machine.Restore(r, func(n int) ([]byte, error) {
		frame = frame[:0]
		for len(frame) < n { // frame grows with the bytes read, because the declared size can be wrong
			step := min(n-len(frame), max(64<<10, len(frame)))
			have := len(frame)
			frame = append(frame, make([]byte, step)...)
			if _, err := io.ReadFull(r, frame[have:]); err != nil {
				return nil, err
			}
		}
		return frame, nil
	})
	if err == nil {
		_, err = io.Copy(io.Discard, r) // read to the end, where the checksum of the whole snapshot is checked
	}
	if err != nil {
		return 0, bad(err)
	}
	b.number, b.older = number, number
	b.places.last = number
	if got, ok := b.places.offset(number); !ok || got != at {
		return 0, bad(fmt.Errorf("it says that it covers entry %d, which is not at that offset", number))
	}
	return at, nil
}
