package broker

import (
	"errors"
	"io"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// recover restores the state: the newest snapshot, then every later entry, then the first entry of
// a new epoch.
func (b *core) recover() error {
	start, passed := b.clock.Now(), b.clock.Passed()
	b.machine = queue.New(b.opts.Limits, b.opts.Seed)
	from, err := b.restore()
	if err != nil {
		return err
	}
	replay, log, err := b.opts.OpenLog(from, LogHooks{Full: b.onFull, Damage: b.onDamage})
	if err != nil {
		return err
	}
	b.log = log
	b.pacing.set(commitlog.PaceOf(log), b.machine.TurnBytes())
	if b.pacing.Gather > 0 {
		b.mailbox.enough = b.pacing.EntryBytes
	}
	entries, err := b.replay(replay)
	if err := errors.Join(err, replay.Close()); err != nil {
		return err
	}
	if after := b.opts.After; after != 0 && !b.machine.Contains(after) {
		return surgetank.Errorf(surgetank.CodeInvalid,
			"the log is an older copy of the log that was open before; start the program again if it must continue with this copy")
	}
	b.startTime(start, passed)
	b.machine.Recovered(b.now())
	b.epoch, b.durable = b.machine.Epoch()+1, b.number
	b.opening = b.opts.Incarnation
	// The first entry opens the epoch. All other outputs are pending until this entry is durable.
	b.front = []*op{{cmd: &queue.OpenEpoch{Epoch: b.epoch, Incarnation: b.opening, Continued: b.opts.After != 0},
		release: func(err error) { b.opened <- err }}}
	for _, info := range b.machine.Infos() {
		b.groups.set(info.Name, info.Config.GroupBy)
		b.dedups.set(info.Name, info.Config.DedupBy)
		b.coalesces.set(info.Name, info.Config.Coalesce.By)
	}
	for _, l := range b.machine.Losses() {
		b.logger.Warn("this log was repaired: these entries are lost with their content", "first", l.First, "last", l.Last, "and_all_behind", l.Tail, "bodies_only", l.Known, "repaired", l.At())
	}
	b.logger.Info("recovered", "from_snapshot", from > 0, "entries", entries, "took", b.clock.Passed()-passed)
	return nil
}

func (b *core) replay(replay commitlog.Replay) (entries int, err error) {
	for {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		if e.Lost {
			return entries, surgetank.Errorf(surgetank.CodeCorrupt,
				"the entry at offset %d was lost, and no snapshot says what became of its messages; run surgetank repair on the data directory", e.Offset)
		}
		h, err := b.machine.Replay(e.Data)
		if err != nil {
			return entries, surgetank.Errorf(surgetank.CodeCorrupt, "the log's entry at offset %d cannot be understood: %w", e.Offset, err)
		}
		if h.Number != b.number+1 {
			return entries, surgetank.Errorf(surgetank.CodeCorrupt,
				"the log has a gap: entry %d is followed by entry %d (offset %d), or the snapshot before it is missing; run surgetank verify on the data directory", b.number, h.Number, e.Offset)
		}
		b.number = h.Number
		b.snap.since += int64(len(e.Data))
		b.places.add(h.Number, e.Offset)
		entries++
	}
}
