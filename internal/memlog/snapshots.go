package memlog

import (
	"bytes"
	"io"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Snapshots gives the snapshots that live in the store.
func (s *Store) Snapshots() commitlog.Snapshots { return snapshots{s} }

type snapshots struct{ s *Store }

// Save keeps what write produces, if it produces all of it.
func (x snapshots) Save(at commitlog.Offset, write func(io.Writer) error) error {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.snapAt, x.s.snap = at, buf.Bytes()
	if x.s.snap == nil {
		x.s.snap = []byte{}
	}
	return nil
}

// Latest opens the snapshot.
func (x snapshots) Latest() (commitlog.Offset, io.ReadCloser, error) {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.snap == nil {
		return 0, nil, nil
	}
	return x.s.snapAt, io.NopCloser(bytes.NewReader(x.s.snap)), nil
}
