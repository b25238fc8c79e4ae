package fenced

import (
	"fmt"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// Read returns a durable entry, from memory or from the stream.
func (l *Log) Read(at commitlog.Offset) ([]byte, error) {
	if l.isClosed() {
		return nil, errClosed
	}
	pos := uint64(at)
	if first := l.known.from(); pos < first && pos > 0 {
		return nil, l.trimmed(pos)
	}
	if data, ok := l.recent.get(pos); ok {
		return data, nil
	}
	if possible, _ := l.known.has(pos); !possible {
		return nil, l.noEntry(pos)
	}
	data, err := l.fetch(pos)
	if err != nil {
		if pos < l.known.from() { // it was trimmed meanwhile
			return nil, l.trimmed(pos)
		}
		return nil, err
	}
	l.recent.add(pos, data)
	return data, nil
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *Log) trimmed(at uint64) error {
	return wrap(surgetank.CodeNotFound, fmt.Sprintf("the entry at position %d of the log %s was trimmed", at, l.o.Name), commitlog.ErrTrimmed)
}

func (l *Log) noEntry(at uint64) error {
	return wrap(surgetank.CodeCorrupt, fmt.Sprintf("the log %s has no entry at position %d", l.o.Name, at), commitlog.ErrCorrupt)
}

// fetch reads an entry from the stream.
func (l *Log) fetch(at uint64) ([]byte, error) {
	rec, err := l.reader(at, at).record(l.ctx)
	if err != nil {
		return nil, err
	}
	if rec.h.Kind != Blob || !rec.h.First || rec.h.Epoch+rec.h.N != at {
		return nil, l.noEntry(at)
	}
	if rec.h.Last {
		return rec.data, nil
	}
	if len(rec.data) == 0 {
		return nil, l.corrupt(at, fmt.Errorf("the first part of a large entry is empty"))
	}
	parts := (uint64(rec.h.Total) + uint64(len(rec.data)) - 1) / uint64(len(rec.data))
	data := append(make([]byte, 0, rec.h.Total), rec.data...)
	epoch, r := rec.h.Epoch, l.reader(at+1, at+parts-1)
	for r.more() {
		if rec, err = r.record(l.ctx); err != nil {
			return nil, err
		}
		if rec.h.Kind != Blob || rec.h.First || rec.h.Epoch != epoch || rec.h.Epoch+rec.h.N != rec.at {
			return nil, l.noEntry(at)
		}
		data = append(data, rec.data...)
	}
	if !rec.h.Last || len(data) != cap(data) && len(data) != int(rec.h.Total) {
		return nil, l.noEntry(at)
	}
	return data, nil
}

// Trim says that entries before an offset are not needed. They are removed when a snapshot that
// covers them is durable.
func (l *Log) Trim(before commitlog.Offset) error {
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if err != nil {
		return err
	}
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	l.wanted = max(l.wanted, uint64(before))
	return l.cut()
}

// covered says that a snapshot and its S record are durable.
func (l *Log) covered(m *manifest) error {
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	if l.cover = m.At; m.Epoch == 0 {
		l.cover = 0
	}
	return l.cut()
}

// cut removes records that are not wanted and that a snapshot covers. trimMu is locked.
func (l *Log) cut() error {
	before := min(l.wanted, l.cover+1)
	if l.cover == 0 || before <= l.known.from() {
		return nil
	}
	if err := l.s.Purge(l.ctx, before); err != nil {
		return l.unavailable("trimming", err)
	}
	l.known.forget(before)
	return nil
}
