package fenced

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

const (
	// rounds is how often all replicas are asked for a record before the reader fails.
	rounds = 3
	// readPause is the pause between two rounds.
	readPause = 100 * time.Millisecond
)

// record is a decoded record.
type record struct {
	at   uint64
	h    Header
	data []byte
}

// reader reads consecutive records. If a replica has a hole or a damaged record, the reader tries
// the other replicas.
type reader struct {
	l        *Log
	next, to uint64 // the positions that are not returned yet
	batch    []Stored
	source   int
}

func (l *Log) reader(from, to uint64) *reader { return &reader{l: l, next: from, to: to} }

// more reports whether records are left.
func (r *reader) more() bool { return r.next <= r.to }

// record returns the next record. The error is ErrCorrupt if no replica has it.
func (r *reader) record(ctx context.Context) (record, error) {
	if rec, err := r.take(); err == nil {
		return rec, nil
	}
	var bad, worst error // the first damage, and the newest error
	passing := false
	n := r.l.s.Sources()
	for try := range rounds * n {
		if try > 0 {
			if r.source = (r.source + 1) % n; try%n == 0 {
				r.l.s.Wait(ctx, readPause)
				passing = false
			}
		}
		rec, err := r.fetch(ctx)
		if err == nil {
			if bad != nil {
				r.l.o.Logger.Error("a replica of the log lacks a record or has it damaged; another replica has it; repair the damaged one",
					"log", r.l.o.Name, "position", rec.at, "error", bad)
			}
			return rec, nil
		}
		worst = err
		var d *damage
		switch {
		case ctx.Err() != nil:
			return record{}, wrap(surgetank.CodeUnavailable, fmt.Sprintf("reading the log %s was stopped", r.l.o.Name), ctx.Err())
		case errors.As(err, &d):
			if bad == nil {
				bad = err
			}
		case !errors.Is(err, ErrMissing): // a replica that lags behind has no record, too
			passing = true
		}
	}
	if passing {
		return record{}, r.l.unavailable(fmt.Sprintf("reading position %d of", r.next), worst)
	}
	b, err := r.l.s.Bounds(ctx)
	switch {
	case err != nil:
		return record{}, r.l.unavailable("reading the state of", err)
	case b.First > r.next:
		return record{}, wrap(surgetank.CodeUnavailable, fmt.Sprintf("the record at position %d of the log %s was trimmed, probably by a newer owner; open the log again", r.next, r.l.o.Name), commitlog.ErrTrimmed)
	case b.Last < r.next: // a question to an older leader
		return record{}, r.l.unavailable(fmt.Sprintf("reading position %d of", r.next), cmp.Or(bad, worst))
	}
	return record{}, r.l.corrupt(r.next, cmp.Or(bad, worst))
}

// fetch reads a batch and returns its first record.
func (r *reader) fetch(ctx context.Context) (rec record, err error) {
	if r.batch, err = r.l.s.Read(ctx, r.source, r.next, r.to); err != nil {
		r.batch = nil
		return record{}, err
	}
	return r.take()
}

// damage is the error for a replica that has not what was stored.
type damage struct{ why string }

func (d *damage) Error() string { return d.why }

// take returns the next record of the batch. After an error the batch is empty.
func (r *reader) take() (record, error) {
	if len(r.batch) == 0 {
		return record{}, ErrMissing
	}
	b := r.batch[0]
	r.batch = r.batch[1:]
	if b.At != r.next {
		r.batch = nil
		return record{}, &damage{fmt.Sprintf("a replica has no record there and continues with position %d", b.At)}
	}
	h, data, err := decode(r.l.name, b.Data)
	if err != nil {
		r.batch = nil
		return record{}, &damage{err.Error()}
	}
	r.next++
	return record{b.At, h, data}, nil
}
