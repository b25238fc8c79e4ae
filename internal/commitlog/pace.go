package commitlog

import "time"

// Pace says how a log wants to get its entries. The zero value is the pace of a local disk, which
// is fastest with one entry at a time. The next entry is appended when the one before is durable,
// or at once if the one before is full. A remote log needs several entries in flight, because each
// lasts long.
type Pace struct {
	// Entries is the most entries in flight. An entry is in flight from its append to its callback.
	// 0 or 1 means the pace of a local disk, and the other fields have no effect.
	Entries int
	// Bytes is the size of all entries in flight at which no further one is appended; 0 means no
	// limit.
	Bytes int64
	// EntryBytes is the size of a full entry, which is appended at once; 0 means the caller's
	// limit. A caller with a lower limit appends smaller entries. A large message can make a larger
	// one.
	EntryBytes int64
	// Gather is the shortest time between two entries while entries are in flight and the next one
	// is not full.
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
