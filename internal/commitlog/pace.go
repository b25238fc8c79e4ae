package commitlog

import "time"

// Pace says how a log wants to get its entries. A local disk stores one entry at a time fastest,
// and the zero value means that: the next entry is appended when the one before is durable. A remote
// log needs several entries in flight, because each lasts long.
type Pace struct {
	// Entries and Bytes are the most entries in flight, and the bytes at which no further entry is
	// appended. An entry is in flight from its append to its callback. Entries of 0 or 1 means one
	// entry at a time; Bytes of 0 means no limit.
	Entries int
	Bytes   int64
	// EntryBytes is the size of a full entry, which is appended at once. A large message can make a
	// larger entry. 0 means the size that the caller prefers.
	EntryBytes int64
	// Gather is the shortest time between two entries while entries are in flight and the next one is
	// not full.
	Gather time.Duration
}

// Pacer is an optional interface of a log that is not fed like a local disk.
type Pacer interface {
	// Pace returns the log's pace. It does not change while the log is open.
	Pace() Pace
}

// PaceOf returns the pace of any log.
func PaceOf(l Log) Pace {
	if p, ok := l.(Pacer); ok {
		return p.Pace()
	}
	return Pace{}
}
