package memlog

import (
	"fmt"
	"io"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// replay iterates over the entries that were stored at Open.
type replay struct {
	entries []entry
	closed  bool
}

// Next returns the next entry.
func (r *replay) Next() (commitlog.Entry, error) {
	if r.closed {
		return commitlog.Entry{}, commitlog.ErrClosed
	}
	if len(r.entries) == 0 {
		return commitlog.Entry{}, io.EOF
	}
	e := r.entries[0]
	if e.data == nil {
		return commitlog.Entry{}, fmt.Errorf("memlog: entry %d: %w", e.at, commitlog.ErrCorrupt)
	}
	r.entries = r.entries[1:]
	return commitlog.Entry{Offset: e.at, Data: e.data}, nil
}

// Close ends the replay.
func (r *replay) Close() error {
	r.closed, r.entries = true, nil
	return nil
}
