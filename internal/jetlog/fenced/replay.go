package fenced

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// Open returns a replay of the entries after from. The records are read from the newest snapshot at
// or before from. Without such a snapshot the whole log is read, and nothing of it may be trimmed.
func (l *Log) Open(ctx context.Context, from commitlog.Offset) (commitlog.Replay, error) {
	base, newest, err := l.snaps.base(ctx, uint64(from))
	if err != nil {
		return nil, err
	}
	first := l.known.from()
	switch {
	case newest >= l.fence && newest > 0:
		return nil, wrap(surgetank.CodeCorrupt, fmt.Sprintf("the log %s ends at position %d, before its snapshot at %d: records are missing", l.o.Name, l.fence, newest), commitlog.ErrCorrupt)
	case first > base.At+1 && newest > uint64(from):
		return nil, wrap(surgetank.CodeUnavailable, fmt.Sprintf("the log %s begins with position %d, and a newer snapshot at %d was saved meanwhile; read that snapshot and open the log again", l.o.Name, first, newest))
	case first > base.At+1:
		return nil, wrap(surgetank.CodeCorrupt, fmt.Sprintf("the records after position %d are needed, and the log %s begins with %d: records are missing", base.At, l.o.Name, first), commitlog.ErrCorrupt)
	}
	l.known.start(base.At, rule{base.Epoch, base.N})
	p := &replay{l: l, ctx: ctx, from: uint64(from), seen: base.At, rule: rule{base.Epoch, base.N}, r: l.reader(base.At+1, l.fence)}
	// An entry at from or after it must be stored. The first one is read here.
	for p.seen < p.from && p.pending == nil {
		e, err := p.step()
		if errors.Is(err, io.EOF) {
			if p.seen >= p.from {
				break
			}
			return nil, wrap(surgetank.CodeCorrupt, fmt.Sprintf("a replay from after position %d is needed, and the newest entry of the log %s is at %d: records are missing", from, l.o.Name, p.seen), commitlog.ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
		if e.Offset > from {
			p.pending = &e
		}
	}
	return p, nil
}

// replay iterates over the entries up to the F record of this opening.
type replay struct {
	l       *Log
	ctx     context.Context
	from    uint64
	seen    uint64 // the newest valid position
	rule    rule
	join    joiner
	r       *reader
	pending *commitlog.Entry
	closed  bool
}

// Next returns the next entry.
func (p *replay) Next() (commitlog.Entry, error) {
	if p.closed {
		return commitlog.Entry{}, commitlog.ErrClosed
	}
	for {
		if e := p.pending; e != nil {
			p.pending = nil
			return *e, nil
		}
		e, err := p.step()
		if err != nil {
			return commitlog.Entry{}, err
		}
		if e.Offset > commitlog.Offset(p.from) {
			return e, nil
		}
	}
}

// step reads records up to the end of the next entry.
func (p *replay) step() (commitlog.Entry, error) {
	for p.r.more() {
		rec, err := p.r.record(p.ctx)
		if err != nil {
			return commitlog.Entry{}, err
		}
		v := p.rule.admit(rec.at, rec.h)
		switch v {
		case begins:
			p.l.known.begin(rec.at)
		case valid:
			p.l.known.extend(p.rule.epoch, rec.at)
			p.seen = rec.at
		}
		if at, data, ok := p.join.add(rec.at, v, rec.h, rec.data); ok {
			return commitlog.Entry{Offset: commitlog.Offset(at), Data: data}, nil
		}
	}
	p.l.known.end()
	return commitlog.Entry{}, io.EOF
}

// Close ends the replay. If it was not read to its end, no snapshot can be saved.
func (p *replay) Close() error {
	p.closed, p.pending, p.r.batch = true, nil, nil
	return nil
}
