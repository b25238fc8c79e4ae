package sim

import (
	"io"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// countedLog counts what is logged.
type countedLog struct {
	commitlog.Log
	w *world
}

func (l countedLog) Append(data []byte, done func(commitlog.Offset, error)) {
	l.w.count.Entries++
	_ = queue.Records(data, func(_ queue.EntryHeader, r *queue.Record) error { // an entry that cannot be read fails at the next opening
		l.w.count.Records++
		if r.Kind == queue.KindMoved {
			l.w.count.Relocations += len(r.Targets)
		}
		return nil
	})
	l.Log.Append(data, done)
}

// countedSnapshots counts snapshots.
type countedSnapshots struct {
	commitlog.Snapshots
	w *world
}

func (s countedSnapshots) Save(at commitlog.Offset, write func(io.Writer) error) error {
	err := s.Snapshots.Save(at, write)
	if err == nil {
		s.w.count.SnapshotsSaved++
	}
	return err
}

func (s countedSnapshots) Latest() (commitlog.Offset, io.ReadCloser, error) {
	at, r, err := s.Snapshots.Latest()
	if r != nil {
		s.w.count.SnapshotsRestored++
	}
	return at, r, err
}
