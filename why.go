package surgetank

import (
	"fmt"
	"time"
)

// ExplainOptions choose what Explain explains: a group's first message, or one message. With
// neither, it is the queue's next message.
type ExplainOptions struct {
	Group string
	ID    MessageID
}

// Explanation says why a message waits. Members that do not apply are zero.
type Explanation struct {
	Verdict string    // a stable word; docs/flow-control.md lists them
	Text    string    // a sentence
	Until   time.Time // when the reason ends, or can end, without an action of users; zero: not known
	ID      MessageID // the message; zero: the queue as a whole
	Group   string    // the message's group
	Attempt int       // attempts that ended without an ack
	Failure string    // why the message came back last
	NextTry time.Time // of a message that backs off
	// Ahead is how many messages of its group come first. At 100,000 the count ends. Behind is why
	// the first of them waits. Both are set with the verdict "behind".
	Ahead  int64
	Behind *Explanation
	Turn   int64         // with the verdict "turn": about how many deliveries of others come first
	Leases []LeaseHolder // leases that block, oldest first, at most 8

	// These are set in explanations of a queue's next message only.
	Drain  Drain          // when the backlog will be done
	Groups []GroupFigures // the groups that lead in one of the figures: most waiting messages first, at most 256
}

// Drain is an estimate of the time until a queue's backlog is done.
type Drain struct {
	Backlog int64 // messages that wait or are in flight, without delayed ones
	// Low and High are the range from the rates of the last minute and of the last 10 minutes. Both
	// are 0 if there is no estimate. Only High is 0 if more came than went in the last 10 minutes.
	Low, High time.Duration
	By        string // what decides: "rates", "level.rate", "group" or "group.rate"
	Text      string // a sentence; it says why there is no estimate
}

// GroupFigures are the present figures of one group.
type GroupFigures struct {
	Group             string
	Waiting, InFlight int64         // Waiting includes delayed messages
	Rate              float64       // deliveries a second, estimated over about two minutes
	Age               time.Duration // how long its first message has waited
}

// Rates are averages of messages a second.
type Rates struct {
	Minute, TenMinutes float64
}

// LeaseHolder is a lease on a message and the consumer that has it.
type LeaseHolder struct {
	ID       MessageID
	Consumer uint64    // the broker's number of the consumer
	Name     string    // the consumer's name; empty if it has none
	Since    time.Time // of the delivery
	Until    time.Time // zero: until the consumer settles the message or goes away
}

// Who returns the consumer's name, or its number if it has none.
func (h LeaseHolder) Who() string {
	if h.Name != "" {
		return fmt.Sprintf("%q", h.Name)
	}
	return fmt.Sprint(h.Consumer)
}
