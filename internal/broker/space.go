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

// spaceState is the freeing of log space by moving survivors: when most of the log is dead, the few messages of the
// oldest part that are still needed are written again at its end, and the next snapshot lets the log drop that part.
type spaceState struct {
	running bool
}

const (
	// spaceWaste is how much dead log is always tolerated, and spaceFactor how many times the needed bytes the
	// log may have before survivors are moved.
	spaceWaste  = 128 << 20
	spaceFactor = 2
	// moveBytes is how much one Relocate brings along.
	moveBytes = 1 << 20
)

// freeSpace starts moving survivors when it pays.
func (b *Broker) freeSpace() {
	if b.space.running || b.opts.Snapshots == nil {
		return
	}
	size, live := b.machine.LogShare()
	if size < spaceFactor*live+b.waste() {
		return
	}
	first, end, _, _, ok := b.machine.Oldest()
	if !ok {
		return
	}
	b.space.running = true
	b.scan(&queue.Survivors{First: first, End: end})
}

func (b *Broker) waste() int64 {
	if b.opts.SnapshotBytes < 64<<20 {
		return 2 * b.opts.SnapshotBytes // a small log, in tests
	}
	return spaceWaste
}

// scan asks the machine for survivors, a part at a time, then moves them.
func (b *Broker) scan(c *queue.Survivors) {
	b.internal(c, func(err error) {
		switch {
		case err != nil:
		case !c.Done:
			b.scan(c)
		default:
			// The copies that share a record follow each other, so that it is written once.
			slices.SortStableFunc(c.Found, func(x, y queue.Survivor) int { return cmp.Compare(x.Ref, y.Ref) })
			b.background(func() { b.move(c.Found) })
		}
	})
}

// internal sends a command of the broker's own.
func (b *Broker) internal(cmd queue.Command, release func(error)) {
	if err := b.mailbox.put(context.Background(), &op{cmd: cmd, release: release}, false); err != nil {
		release(err)
	}
}

// move reads survivors and has them written again, some at a time. It runs beside the loop.
func (b *Broker) move(found []queue.Survivor) {
	r := reader{b: b}
	c := &queue.Relocate{}
	bytes := 0
	for len(found) > 0 && bytes < moveBytes {
		v := found[0]
		found = found[1:]
		m, err := r.survivor(&v)
		if errors.Is(err, commitlog.ErrTrimmed) {
			continue // it was moved or settled meanwhile
		}
		if err != nil {
			b.logger.Error("a message cannot be read to be moved; its part of the log is kept", "queue", v.Queue, "seq", v.Seq, "error", err)
			b.internal(queue.Nop{}, func(error) {}) // running stays set: nothing is freed on doubt
			return
		}
		c.Items = append(c.Items, m)
		bytes += len(m.Message.Body) + 256
	}
	b.internal(c, func(err error) {
		switch {
		case err != nil:
		case len(found) > 0:
			b.background(func() { b.move(found) })
		default:
			b.space.running = false
		}
	})
}

// survivor reads a message and its whole history.
func (r *reader) survivor(v *queue.Survivor) (queue.Relocation, error) {
	entry, err := r.load(v.Ref.Entry())
	if err != nil {
		return queue.Relocation{}, err
	}
	var s queue.Stored
	if err := queue.ReadMessage(entry, v.Ref, &s); err != nil {
		return queue.Relocation{}, err
	}
	var deaths []surgetank.Death
	for _, ref := range v.Notes {
		entry, err := r.load(ref.Entry())
		if err != nil {
			return queue.Relocation{}, err
		}
		death, err := queue.ReadNote(entry, ref)
		if err != nil {
			return queue.Relocation{}, err
		}
		deaths = append(deaths, death)
	}
	deaths = append(deaths, s.Deaths...)
	return queue.Relocation{Survivor: *v, Message: &s.Message, Deaths: deaths[:min(len(deaths), queue.MaxDeaths)], Time: s.Time}, nil
}
