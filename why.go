package surgetank

import (
	"fmt"
	"time"
)

// ExplainOptions choose what Explain explains: a group's first message, or one message. Without a
// group and a message, Explain explains the queue's next message.
type ExplainOptions struct {
	Group string
	ID    MessageID
}

// Explanation says why a message waits. Members that do not apply are zero.
type Explanation struct {
	Verdict string    // a stable word; docs/flow-control.md lists them
	Text    string    // a sentence
	Until   time.Time // when the reason ends, or can end, without an action of users; zero: not known
	ID      MessageID // the message; zero: the explanation is about the whole queue
	Group   string    // the message's group
	Attempt int       // attempts that ended without an ack
	Failure string    // why the message came back last
	NextTry time.Time // the time of the next try of a message in back-off
	// Ahead is the number of messages of its group that are delivered before, counted up to
	// 100,000. Behind is why the first of these messages waits. Ahead and Behind are set with the
	// verdict "behind".
	Ahead  int64
	Behind *Explanation
	Turn   int64         // with the verdict "turn": about how many deliveries of other groups come first
	Leases []LeaseHolder // leases that block the message, oldest first, at most 8

	// Drain and Groups are set only in explanations of a queue's next message.
	Drain  Drain          // when the backlog will be done
	Groups []GroupFigures // groups with one of the highest figures of any kind; at most 256, most waiting messages first
}

// Drain is an estimate of the time until a queue's backlog is done.
type Drain struct {
	Backlog int64 // messages that wait or are in flight, without delayed messages
	// Low and High are the range from the rates of the last minute and of the last 10 minutes. Low
	// and High are 0 if there is no estimate. Only High is 0 if more messages came in than left in
	// the last 10 minutes.
	Low, High time.Duration
	By        string // the slowest term: "rates", "level.rate", "group" or "group.rate"
	Text      string // a sentence with the estimate, or with the reason why there is none
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
	Since    time.Time // the time of the delivery
	Until    time.Time // zero: until the consumer settles the message or goes away
}

// Who returns the consumer's name, or its number if it has none.
func (h LeaseHolder) Who() string {
	if h.Name != "" {
		return fmt.Sprintf("%q", h.Name)
	}
	return fmt.Sprint(h.Consumer)
}
