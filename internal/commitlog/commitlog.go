// Package commitlog defines a log, in which a broker's facts become durable.
//
// A log has five operations (Open, Append, Read, Trim, Close) and will not get more. An entry is
// one opaque batch of bytes. The log never sees messages. Implementations are internal/disklog
// (files), internal/memlog (tests and simulation) and internal/jetlog (a stream of NATS
// JetStream). Every implementation passes commitlogtest.Run.
package commitlog

import (
	"errors"
	"fmt"
	"io"
)

// Offset is an entry's position in a log. Offsets increase and may have gaps. The first is at least
// 1, so that 0 can mean "before everything".
type Offset uint64

// MaxEntry is the largest entry in bytes. One message of the largest configurable size fits into
// it, with its headers.
const MaxEntry = 130 << 20

// Errors of a log. ErrFailed and ErrCorrupt are final for the handle. Close it and open the log
// again, which fences this handle.
var (
	ErrClosed  = errors.New("the log is closed")
	ErrFailed  = errors.New("the log failed and must be opened again")
	ErrFenced  = errors.New("another process opened the log")
	ErrLocked  = errors.New("the log is in use by another process")
	ErrTrimmed = errors.New("the entry was trimmed")
	ErrCorrupt = errors.New("stored bytes are not what was written")
)

// Entry is one stored entry, as a replay returns it. Data is valid until the next call of Next.
type Entry struct {
	Offset Offset
	Data   []byte
	// Lost means that repair could not read the entry, and this is its placeholder. Data is nil. A
	// replay always returns lost entries, so that its caller knows which entries are missing.
	Lost bool
}

// Replay iterates over the stored entries in order. Next returns io.EOF after the last one. Read it
// to its end, or close it, before the first Append.
type Replay interface {
	Next() (Entry, error)
	io.Closer
}

// Log is an open log. Opening fences every older handle. Only one goroutine may call Append: the
// loop that owns the log. Other goroutines may call Read and Trim at the same time.
type Log interface {
	// Append stores one entry after all others. It does not wait. done is called once: with the
	// entry's offset when the entry is durable, or with an error. The calls of done come in the
	// order of the appends, on a goroutine of the log or of the caller that runs it, and must not
	// block. Several entries can be in flight: appended and not called back. The log calls back in
	// order even if it learns of their success in another order. After the first failure every later
	// append fails, in order too; no entry after a failed one is called back with success. The
	// caller must not change data, not even after done, because readers share it.
	Append(data []byte, done func(Offset, error))
	// Read returns a durable entry. It verifies the checksum whenever it reads storage. The result
	// must not be changed.
	Read(Offset) ([]byte, error)
	// Trim tells the log that entries before an offset are no longer needed. The log may free them
	// later, or only some of them.
	Trim(before Offset) error
	// Close stores the appended entries and unlocks the log.
	Close() error
}

// Freer is an optional interface of a log that knows how much space a trim would free. With any
// other log, a broker decides by the bytes logged.
type Freer interface {
	// Freeable returns the bytes of storage that Trim(before) would free now.
	Freeable(before Offset) int64
	// Room returns the approximate number of bytes of entries that can still be appended, even on a
	// full disk. It includes space that is kept free for acks.
	Room() int64
	// KeepFree sets how many bytes a snapshot needs. The log never uses this space. It is in
	// addition to the space that the log's own limit leaves free.
	KeepFree(bytes int64)
}

// PartReader is an optional interface of a log that can read a part of an entry at less cost than
// the whole entry.
type PartReader interface {
	// ReadPart returns n bytes of a durable entry, from a position in the entry on. It verifies the
	// bytes like Read. It returns ErrCorrupt if the entry does not have these bytes.
	ReadPart(at Offset, from, n int) ([]byte, error)
}

// ReadPart reads a part of an entry from any log. See PartReader.
func ReadPart(l Log, at Offset, from, n int) ([]byte, error) {
	if p, ok := l.(PartReader); ok {
		return p.ReadPart(at, from, n)
	}
	data, err := l.Read(at)
	if err != nil {
		return nil, err
	}
	return Part(data, at, from, n)
}

// Part returns a part of the entry data, which is at the offset at. It returns ErrCorrupt if the
// entry does not have these bytes.
func Part(data []byte, at Offset, from, n int) ([]byte, error) {
	if from < 0 || n < 0 || from > len(data) || n > len(data)-from {
		return nil, fmt.Errorf("%d bytes at position %d of entry %d are needed, and the entry has %d: %w", n, from, at, len(data), ErrCorrupt)
	}
	return data[from : from+n : from+n], nil
}

// Snapshots stores copies of the state up to an offset, so that an opening replays only later
// entries.
type Snapshots interface {
	// Save durably stores the output of write as the state up to and including at. Then it removes
	// snapshots that are no longer needed. The bytes are checksummed in blocks. After an error the
	// older snapshot is unchanged.
	Save(at Offset, write func(io.Writer) error) error
	// Latest opens the newest complete snapshot. It returns (0, nil, nil) if there is no snapshot,
	// and ErrCorrupt if the newest one is damaged. The reader verifies every block's checksum
	// before it returns the block's bytes, and the total checksum at the end.
	Latest() (at Offset, r io.ReadCloser, err error)
}
