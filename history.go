package surgetank

// Opening is one opening of a data directory by a broker.
type Opening struct {
	// Incarnation is drawn at random at each opening. Two directories that share a past, because
	// one is a copy of the other or was restored from a backup, have different incarnations from
	// then on.
	Incarnation uint64
	// First is the number of the first log entry that this opening wrote.
	First uint64
}

// Span says that the messages of a queue from number First on, up to the next span, were confirmed
// in this incarnation.
type Span struct {
	Incarnation uint64
	First       uint64
}

// History is where a queue stands in the history of its data directory. All of it is of one moment,
// and durable.
type History struct {
	Queue    uint64    // the queue's number
	Floor    uint64    // every message with a lower number is settled for good
	Next     uint64    // the number of the next message
	Entry    uint64    // the number of the newest log entry
	Openings []Opening // in order; the last one is the present one. The newest MaxOpenings are kept
	Spans    []Span    // in order, from the one that holds Floor on
	Counted  uint64    // messages among the numbers asked about that are not settled
}

// MaxOpenings is how many openings a data directory remembers.
const MaxOpenings = 4096

// NumberRange is a range of message numbers, both included.
type NumberRange struct{ First, Last uint64 }
