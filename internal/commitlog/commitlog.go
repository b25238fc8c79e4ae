// Package commitlog says what a log is: the one place where a broker's facts become durable.
//
// The interface is five verbs (Open, Append, Read, Trim, Close) and stays five. An entry is one
// opaque batch of bytes; the log never sees messages. Implementations: internal/disklog (files),
// internal/memlog (tests and simulation), later internal/jslog (one JetStream stream). Every
// implementation passes commitlogtest.Run.
package commitlog

import (
	"errors"
	"io"
)

// Offset is an entry's place in a log. Offsets only promise to increase; there may be gaps. The
// first is at least 1, so that 0 can mean "before everything".
type Offset uint64

// MaxEntry is the largest entry in bytes: one message at the ceiling of the configurable limit,
// with room for its headers.
const MaxEntry = 130 << 20

// Errors of a log. ErrFailed and ErrCorrupt are final for the handle: close it and open anew (which
// fences this one).
var (
	ErrClosed  = errors.New("the log is closed")
	ErrFailed  = errors.New("the log failed and must be opened again")
	ErrFenced  = errors.New("another process opened the log")
	ErrLocked  = errors.New("the log is in use by another process")
	ErrTrimmed = errors.New("the entry was trimmed")
	ErrCorrupt = errors.New("stored bytes are not what was written")
)

// Entry is one stored entry as replay gives it. Data is valid until the next call of Next.
type Entry struct {
	Offset Offset
	Data   []byte
	// Lost: the entry was damaged and this is only its place, kept by a repair; Data is nil.
	// Whoever replays must know that something is missing here: a lost entry is never left out
	// without a word.
	Lost bool
}

// Replay iterates over the entries that are stored, in order; Next gives io.EOF behind the last. It
// must be read to its end, or closed, before the first Append.
type Replay interface {
	Next() (Entry, error)
	io.Closer
}

// Log is an open log. Opening fences every older handle. Append is for one goroutine, the loop that
// owns the log; Read and Trim are safe for others beside it.
type Log interface {
	// Append stores one entry behind all others. It does not wait: done is called once, with the
	// entry's offset when it is durable, or with the error. Calls of done come in the order of the
	// appends, on a goroutine of the log (or from Pump where the log is driven by hand), and must
	// not block. After the first failure every later append fails. data must not be changed
	// afterwards, not even after done: readers may share it.
	Append(data []byte, done func(Offset, error))
	// Read gives a durable entry. Its checksum is verified on every read that touches storage. The
	// result must not be changed.
	Read(Offset) ([]byte, error)
	// Trim says that entries before an offset are no longer needed. The log frees what it can, when
	// it can.
	Trim(before Offset) error
	// Close finishes what was appended and releases the log.
	Close() error
}

// Freer is a log that tells what it would cost and bring to trim. It is optional: a broker works
// without the answers, and then looks at how much was logged alone.
type Freer interface {
	// Freeable gives the bytes of storage that Trim(before) would give back now.
	Freeable(before Offset) int64
	// Room gives about the bytes of further entries for which the log has room, or can take room
	// that is kept free for acks, however full its disk is.
	Room() int64
	// KeepFree tells the log how many bytes a snapshot needs. The log leaves so many free, in
	// addition to what it was set to, and takes them for nothing.
	KeepFree(bytes int64)
}

// Snapshots keeps copies of the state that the entries up to an offset make, so that opening need
// not replay everything.
type Snapshots interface {
	// Save stores what write produces as the state up to and including at, durably, and then drops
	// older ones. The bytes are checksummed in blocks; a failure leaves the older snapshot in
	// place.
	Save(at Offset, write func(io.Writer) error) error
	// Latest opens the newest complete snapshot. No snapshot is (0, nil, nil); a damaged one is
	// ErrCorrupt. Every block's checksum is verified before its bytes are given out, and the total
	// at the end.
	Latest() (at Offset, r io.ReadCloser, err error)
}
