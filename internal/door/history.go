package door

// Opening is one opening of a data directory by a broker.
type Opening struct {
	// Incarnation is a random number, drawn at each opening. A data directory and its copy have the
	// same openings up to the copy. Later openings have different incarnations.
	Incarnation uint64
	// First is the number of the first log entry that this opening wrote.
	First uint64
}

// Span is a range of a queue's messages that were confirmed in one incarnation. It begins at number
// First and ends before the next span.
type Span struct {
	Incarnation uint64
	First       uint64
}

// History is a queue's position in the history of its data directory. All fields are durable and
// from one moment.
type History struct {
	Queue    uint64    // the queue's number
	Floor    uint64    // every message with a lower number was settled for good
	Next     uint64    // the number of the next message
	Entry    uint64    // the number of the newest log entry
	Openings []Opening // in order; the last one is the current one; only the newest MaxOpenings are kept
	Spans    []Span    // in order, from the span of Floor on
	Counted  uint64    // messages in the requested ranges that are not settled
}

// MaxOpenings is how many openings a data directory remembers.
const MaxOpenings = 4096

// NumberRange is a range of message numbers. Both ends belong to it.
type NumberRange struct{ First, Last uint64 }

// HistoryFunc reads the history of one queue, as Broker.History does.
type HistoryFunc func(count ...NumberRange) (History, error)
