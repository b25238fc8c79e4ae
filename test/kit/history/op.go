package history

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind is the kind of an Op.
type Kind string

// Kinds of records. A call on several messages makes one record per message.
const (
	Publish Kind = "pub"
	Deliver Kind = "dlv" // one message in the answer of a receive
	Receive Kind = "rcv" // a receive whose answer was lost: it may have leased messages
	Ack     Kind = "ack"
	Nack    Kind = "nck"
	Reject  Kind = "rej" // a nack to the dead-letter queue
	Extend  Kind = "ext"

	Down  Kind = "dwn" // the server process ended, at some moment between Call and Return
	Up    Kind = "up"  // the server was started at Call and ready at Return
	Fault Kind = "flt" // an injected fault; Code names it
	Count Kind = "cnt" // a queue's own count of its messages, after the drain
)

// Outcome of a call; see the package's comment.
type Outcome string

// The three outcomes.
const (
	OK   Outcome = "ok"
	Fail Outcome = "fail"
	Info Outcome = "info"
)

// Never is the Return of events that may still happen.
const Never = time.Duration(math.MaxInt64)

// Op is one record. Times are since the journal's start, on the monotonic clock.
type Op struct {
	Kind    Kind          `json:"k"`
	Outcome Outcome       `json:"o,omitempty"`
	Client  int           `json:"c,omitempty"`
	Call    time.Duration `json:"t"`
	Return  time.Duration `json:"r"`
	// Batch is the number of the call, the same in all its records; Index is the message's position
	// in it.
	Batch int64 `json:"b,omitempty"`
	Index int   `json:"i,omitempty"`

	Queue     string        `json:"q,omitempty"`
	Value     string        `json:"v,omitempty"`  // "publisher-sequence", from 1
	ID        string        `json:"id,omitempty"` // the server's message id
	Group     string        `json:"g,omitempty"`
	Dedup     string        `json:"d,omitempty"`
	Duplicate bool          `json:"dup,omitempty"` // the server reported a known dedup id
	Receipt   string        `json:"rc,omitempty"`
	Attempt   int           `json:"a,omitempty"`
	Again     bool          `json:"re,omitempty"` // the server marked the delivery as perhaps not the first
	Deadline  time.Duration `json:"dl,omitempty"` // the lease's end (Deliver), or its earliest end after Extend
	Damaged   bool          `json:"bad,omitempty"`
	Code      string        `json:"e,omitempty"` // the error's code, or the fault's name
	N         int64         `json:"n,omitempty"` // Count: number of messages
}

// end returns the latest time at which the call's effect can have happened.
func (o *Op) end() time.Duration {
	if o.Outcome == Info {
		return Never
	}
	return o.Return
}

// message names a message by queue and server id, because a value can be in several queues. A
// dead-letter queue has its own ids.
type message struct{ queue, id string }

// message returns the record's message. If the protocol has no id, the value replaces it.
func (o *Op) message() message {
	if o.ID == "" {
		return message{o.Queue, "value " + o.Value}
	}
	return message{o.Queue, o.ID}
}

// Seq returns the sequence number in a server's message id, "queue-seq", or false if the id has
// another form.
func Seq(id string) (uint64, bool) {
	_, s, ok := strings.Cut(id, "-")
	n, err := strconv.ParseUint(s, 10, 64)
	return n, ok && err == nil
}

// Value makes the unique value of a publisher's message.
func Value(publisher string, seq int) string { return publisher + "-" + strconv.Itoa(seq) }

// SplitValue splits a value. seq is 0 if the text is not a value.
func SplitValue(v string) (publisher string, seq int) {
	i := strings.LastIndexByte(v, '-')
	if i < 0 {
		return v, 0
	}
	n, err := strconv.Atoi(v[i+1:])
	if err != nil || n < 1 {
		return v, 0
	}
	return v[:i], n
}

// Settings are the settings of a queue that the checkers need.
type Settings struct {
	GroupInFlight int    // most leases of one group at a time; 0: no limit
	DeadLetter    string // name of the dead-letter queue
	Dedup         bool
}

// History is a journal, and the harness's knowledge of the queues.
type History struct {
	Ops    []Op
	Queues map[string]Settings
	// Drained says that the queues were emptied after the faults, so undelivered messages are lost.
	Drained bool
}

// Finding is one broken promise. Check is the checker's stable name.
type Finding struct {
	Check  string
	Value  string
	Detail string
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Check, f.Value, f.Detail) }

func finding(check, value, format string, args ...any) Finding {
	return Finding{check, value, fmt.Sprintf(format, args...)}
}

// at formats a time of the journal.
func at(d time.Duration) string {
	if d == Never {
		return "never"
	}
	return d.Round(10 * time.Microsecond).String()
}
