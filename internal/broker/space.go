package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// spaceState is the state of freeing log space by moving survivors. When most of the log is dead,
// the few messages in its oldest part that are still needed are appended again. After the next
// snapshot the log removes the oldest part.
type spaceState struct {
	running bool
	first   uint64 // first entry of the part to free
	stuck   uint64 // first entry of a part that could not be freed; 0: none
	again   int64  // size of the log at which the stuck part is tried again
}

const (
	// spaceFactor is a limit: survivors are moved when the log is larger than this many times the
	// needed bytes. The bytes logged between two snapshots are allowed in addition.
	spaceFactor = 2
	// quietWaste is the number of dead bytes allowed in the log while little is logged.
	quietWaste = 32 << 20
	// roomShare limits the copies on a full disk to 1/roomShare of the log's room. The rest is for
	// acks.
	roomShare = 2
	// moveBytes is the approximate number of bytes that one Relocate moves.
	moveBytes = 1 << 20
)

// freeSpace starts moving survivors if much of the log is dead. In a quiet log a smaller dead part
// is enough. On a full disk movePays decides.
func (b *core) freeSpace(quiet bool) {
	if b.space.running || b.opts.Snapshots == nil {
		return
	}
	size, live := b.machine.LogShare()
	waste := b.waste()
	switch {
	case b.full:
		waste = 0
	case quiet:
		waste = min(waste, quietWaste)
	}
	dead := size >= spaceFactor*live+waste
	if b.full && !b.movePays(dead) || !b.full && !dead {
		return
	}
	first, end, _, _, ok := b.machine.Oldest()
	if !ok {
		return
	}
	if first == b.space.stuck && size < b.space.again {
		return
	}
	b.space.running, b.space.first = true, first
	b.scan(&queue.Survivors{First: first, End: end})
}

// movePays reports, on a full disk, whether moving messages frees more space than it needs. The log
// must have room for the copies in addition to acks. The part freed by the move must be much larger
// than the copies. If most of the log is dead, somewhat larger is enough, because the dead part can
// be freed afterwards. Space that needs no copies is freed first.
func (b *core) movePays(dead bool) bool {
	f, ok := b.log.(commitlog.Freer)
	if !ok {
		return true
	}
	if b.snap.active || b.gain() > 0 {
		return false // space that needs no copies is freed first
	}
	end, live := b.machine.Prefix(f.Room() / roomShare)
	at, ok := b.places.offset(end)
	if !dead {
		live *= spaceFactor
	}
	return ok && f.Freeable(at) > live
}

func (b *core) waste() int64 {
	if b.opts.SnapshotBytes < 64<<20 {
		return 2 * b.opts.SnapshotBytes // the limits of a small log, in tests
	}
	return b.opts.SnapshotBytes
}

// scan asks the machine for survivors in parts, and then moves them.
func (b *core) scan(c *queue.Survivors) {
	b.internal(c, func(err error) {
		switch {
		case err != nil:
		case !c.Done:
			b.scan(c)
		default:
			// Messages of the same record are moved together, so that the record is written once.
			slices.SortStableFunc(c.Found, func(x, y queue.Survivor) int { return cmp.Compare(x.Ref, y.Ref) })
			b.exec.background(func() { b.move(c.Found) })
		}
	})
}

// internal sends a command of the broker itself.
func (b *core) internal(cmd queue.Command, release func(error)) {
	if err := b.mailbox.put(context.Background(), &op{cmd: cmd, release: release}, false); err != nil {
		release(err)
	}
}

// move reads survivors and appends them again, some at a time. It runs in the background.
func (b *core) move(found []queue.Survivor) {
	r := entryReader{b: b}
	c := &queue.Relocate{}
	bytes := 0
	most := int(b.moveBytes())
	for len(found) > 0 && bytes < most {
		v := found[0]
		found = found[1:]
		m, err := r.survivor(&v)
		if errors.Is(err, commitlog.ErrTrimmed) {
			continue // the message was moved or settled meanwhile
		}
		if err != nil {
			if !b.alive() || surgetank.CodeOf(err) == surgetank.CodeClosed {
				return
			}
			b.immovable(&v, err)
			continue
		}
		c.Items = append(c.Items, m)
		bytes += len(m.Message.Body) + 256
	}
	b.internal(c, func(err error) {
		b.reclaim.moved += int64(bytes)
		switch {
		case err != nil:
		case len(found) > 0:
			b.exec.background(func() { b.move(found) })
		default:
			b.moved()
		}
	})
}

// moveBytes returns the approximate number of bytes that one Relocate moves. It is a small part of
// a segment, so that little space stays unused at the end of a segment.
func (b *core) moveBytes() int64 {
	if n := b.opts.Limits.ExtentBytes; n > 0 {
		return min(moveBytes, n/8)
	}
	return moveBytes
}

// immovable tells the machine and the operator that a survivor cannot be read. Other survivors are
// still moved.
func (b *core) immovable(v *queue.Survivor, cause error) {
	id := surgetank.MessageID{Queue: v.Queue, Seq: v.Seq}
	b.logger.Error("a message cannot be read and so not moved; its part of the log is kept until the message is dropped", "message", id.String(), "error", cause)
	if retryAfter(cause) == 0 {
		b.internal(&queue.Quarantine{ID: id, What: cause.Error()}, func(error) {})
	}
}

// moved ends the freeing of the oldest part. It runs on the loop. If the part has a message that
// cannot be read, no later part can be freed either. In that case the next attempt waits until the
// message is settled or the log has grown much.
func (b *core) moved() {
	s := &b.space
	s.running = false
	size, _ := b.machine.LogShare()
	if first, _, _, live, ok := b.machine.Oldest(); ok && first == s.first {
		if s.stuck != first {
			b.logger.Warn("the log cannot be freed from this entry on: messages there cannot be moved; damaged ones can be dropped", "entry", first, "needed_bytes", live)
		}
		s.stuck, s.again = first, size+b.waste()
		return
	}
	b.freeSpace(b.reclaim.quiet)
}
