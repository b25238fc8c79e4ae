package memlog

import (
	"bytes"
	"io"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// Snapshots returns the snapshots in the store.
func (s *Store) Snapshots() commitlog.Snapshots { return snapshots{s} }

type snapshots struct{ s *Store }

// Save stores the output of write if write succeeds.
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
