package broker

import (
	"errors"
	"io"
	"log/slog"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// RepairOptions describe the log that a repair wrote.
type RepairOptions struct {
	// OpenLog opens the repaired log for a replay from its beginning. Nothing is appended to the
	// log.
	OpenLog   func() (commitlog.Replay, commitlog.Log, error)
	Snapshots commitlog.Snapshots // the intact snapshots
	Clock     clock.Clock         // nil: the real clock
	Limits    queue.Limits
	// Trimmed is the offset of the first entry that was not trimmed; 0 means unknown. Entries
	// before it were no longer needed.
	Trimmed commitlog.Offset
	// Tail means that the last lost entry stands for an unknown number of entries.
	Tail bool
}

// Repair makes a repaired log ready for Open. It replays the remaining entries, and removes
// messages whose bodies are lost. Then it stores a snapshot that covers the whole log and lists the
// losses. Open accepts no lost entry, but it only replays entries after that snapshot. If nothing
// is lost, Repair stores nothing.
func Repair(o RepairOptions) (*queue.RepairReport, error) {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	b := &core{opts: Options{Snapshots: o.Snapshots, SnapshotPiece: defaultPiece}, clock: o.Clock, logger: slog.New(slog.DiscardHandler)}
	b.machine = queue.New(o.Limits, 0)
	covered, err := b.restore()
	if err != nil {
		return nil, err
	}
	replay, log, err := o.OpenLog()
	if err != nil {
		return nil, err
	}
	v := &repairer{b: b, s: b.machine.StartRepair(o.Clock.Now().UnixNano()), covered: covered, lost: map[uint64]bool{}}
	err = errors.Join(v.replay(replay), replay.Close())
	if err == nil {
		report := v.finish(o)
		if !report.Whole() {
			err = b.saveAll()
		}
		if err == nil {
			return report, log.Close()
		}
	}
	return nil, errors.Join(err, log.Close())
}

// repairer is one run of Repair.
type repairer struct {
	b       *core
	s       *queue.Repair
	covered commitlog.Offset // offset up to which the snapshot covers the log
	first   commitlog.Offset // first offset of the log; 0: the log is empty
	lost    map[uint64]bool  // entries whose bytes are lost
}

func (v *repairer) replay(replay commitlog.Replay) error {
	for {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if v.first == 0 {
			v.first = e.Offset
		}
		switch {
		case e.Offset > v.covered:
			err = v.entry(e)
		case e.Lost:
			if number, ok := v.b.places.number(e.Offset); ok {
				v.lost[number] = true
				v.s.Body(number)
			}
		}
		if err != nil {
			return err
		}
	}
}

// entry replays an entry that the snapshot does not cover.
func (v *repairer) entry(e commitlog.Entry) error {
	b := v.b
	number := b.number + 1
	if b.number == 0 && v.covered == 0 {
		number = uint64(e.Offset) // the lost entry's number is not known; in a log on files, numbers equal offsets
	}
	if !e.Lost {
		h, _, err := queue.ParseHeader(e.Data)
		if err == nil && h.Number <= b.number {
			return surgetank.Errorf(surgetank.CodeCorrupt, "the log's entry at offset %d has the number %d, and %d came before it; restore a backup", e.Offset, h.Number, b.number)
		}
		number = max(number, h.Number)
	}
	if number > b.number+1 {
		v.s.Gap(b.number+1, number-1)
	}
	b.number = number
	b.places.add(number, e.Offset)
	if e.Lost {
		v.s.Gap(number, number)
		v.lost[number] = true
		return nil
	}
	if _, err := v.s.Entry(e.Data); err != nil {
		return surgetank.Errorf(surgetank.CodeCorrupt,
			"the log's entry at offset %d is intact and cannot be understood: %w; repair with the version of Surgetank that wrote it", e.Offset, err)
	}
	return nil
}

func (v *repairer) finish(o RepairOptions) *queue.RepairReport {
	b := v.b
	behind := false // an entry that was not trimmed is lost
	for number := range v.lost {
		at, ok := b.places.offset(number)
		behind = behind || !ok || at >= o.Trimmed
	}
	report := v.s.Finish(o.Tail, func(entry uint64) bool {
		at, ok := b.places.offset(entry)
		return o.Trimmed > 0 && !behind && (!ok || at < o.Trimmed)
	}, func(entry uint64) bool {
		at, ok := b.places.offset(entry)
		return ok && v.first > 0 && at >= v.first && !v.lost[entry]
	})
	b.machine.Recovered(o.Clock.Now().UnixNano())
	return report
}

// saveAll stores a snapshot up to the newest entry.
func (b *core) saveAll() error {
	at, ok := b.places.offset(b.number)
	if !ok {
		return surgetank.Errorf(surgetank.CodeInternal, "the place of entry %d is not known", b.number)
	}
	b.machine.StartSnapshot(b.number)
	err := b.opts.Snapshots.Save(at, func(w io.Writer) error {
		if _, err := w.Write(b.snapHead(b.number)); err != nil {
			return err
		}
		for {
			piece, last := b.machine.SnapshotNext(b.opts.SnapshotPiece)
			if _, err := w.Write(piece); err != nil || last {
				return err
			}
		}
	})
	if err != nil {
		b.machine.AbandonSnapshot()
	}
	return err
}
