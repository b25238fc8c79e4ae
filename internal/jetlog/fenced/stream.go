package fenced

import (
	"context"
	"errors"
	"time"
)

// Any is the condition of an append that is stored at any position.
const Any = ^uint64(0)

// Errors of a Stream. After any other error it is not known whether a record was stored, or will be
// stored later.
var (
	// ErrMoved: the stream does not end at the position of the condition, so the record was not
	// stored.
	ErrMoved = errors.New("the stream does not end where the record must follow")
	// ErrMissing: the replica has no record at the first position.
	ErrMissing = errors.New("the record is missing")
)

// FinalError is an error after which no further try can succeed.
type FinalError struct{ Err error }

// Error returns the text of the cause.
func (e *FinalError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FinalError) Unwrap() error { return e.Err }

// Stored is a record as a Stream returns it.
type Stored struct {
	At   uint64
	Data []byte
}

// Bounds describes a stream. The positions First to Last are stored. An empty stream has Last =
// First-1.
type Bounds struct {
	First, Last uint64
	Bytes       int64
}

// Answer is the answer to Stream.Send.
type Answer struct {
	Epoch, N uint64 // of the blob
	At       uint64 // its position, if Err is nil
	Err      error
}

// Stream is a replicated, ordered sequence of records, and the snapshots of one log. Positions
// begin with 1 and have no gaps. What a Stream returns was stored by a quorum and never changes.
// Many goroutines may call its methods at the same time.
type Stream interface {
	// Listen sets the functions that the Stream calls. answer is called at most once for each Send.
	// disturbed is called when answers may have been lost: after a disconnect, and when the stream
	// has a new leader. Neither function waits.
	Listen(answer func(Answer), disturbed func())
	// Send appends a record if the stream ends at the position after. It does not wait, and keeps
	// no reference to the record.
	Send(epoch, n, after uint64, record []byte) error
	// Append appends a record if the stream ends at the position after, or at any position if after
	// is Any. It returns the record's position.
	Append(ctx context.Context, after uint64, record []byte) (at uint64, err error)
	// Bounds asks the leader. If another leader was elected and the old one does not know, the
	// bounds are old ones.
	Bounds(ctx context.Context) (Bounds, error)
	// Read returns records from the position from on, at least one and none after to. source is a
	// number below Sources and chooses the replica: 0 is the nearest one, 1 is the leader. A
	// replica with a hole returns what follows the hole, or ErrMissing.
	Read(ctx context.Context, source int, from, to uint64) ([]Stored, error)
	// Sources returns the number of ways to read.
	Sources() int
	// Purge removes all records before a position.
	Purge(ctx context.Context, before uint64) error
	// MaxData is the most bytes of data in one record.
	MaxData() int
	// Wait waits before another try. It returns early when the context ends.
	Wait(ctx context.Context, d time.Duration)

	// PutSnapshot durably stores a piece of a snapshot under a name.
	PutSnapshot(ctx context.Context, name string, data []byte) error
	// GetSnapshot reads a piece. source is as for Read, and 0 is the leader. The error is
	// ErrMissing if there is no piece with the name.
	GetSnapshot(ctx context.Context, source int, name string) ([]byte, error)
	// SnapshotNames returns the names of all pieces.
	SnapshotNames(ctx context.Context) ([]string, error)
	// DropSnapshot removes the piece with a name, and all pieces whose names begin with it and a
	// dot.
	DropSnapshot(ctx context.Context, name string) error
}
