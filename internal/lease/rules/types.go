package rules

import (
	"strings"
	"time"
)

// Prefixes of the keys of logs and nodes.
const (
	logPrefix  = "log."
	nodePrefix = "node."
)

// LogKey returns the key of a log.
func LogKey(log string) string { return logPrefix + log }

// NodeKey returns the key of a node.
func NodeKey(id string) string { return nodePrefix + id }

// Any is the expected revision of a write that is always stored.
const Any = ^uint64(0)

// Record is the value of a key.
type Record struct {
	Node    string `json:"node,omitempty"` // id of the writer; "": the log is free
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
	// Sent is the monotonic time of the write. It has a meaning only for its writer.
	Sent time.Duration `json:"sent"`

	// The fields of a log's key. Term is 0 in the first record of a term, whose revision is the
	// term.
	Term  uint64 `json:"term,omitempty"`
	Since int64  `json:"since,omitempty"` // Unix milliseconds at the beginning of the term, for people
	Data  string `json:"data,omitempty"`  // see Announce
	Prev  string `json:"prev,omitempty"`  // of a free log: its last owner
	Next  string `json:"next,omitempty"`  // of a free log: the node that should own it now

	// The fields of a node's key.
	Beat      uint64 `json:"beat,omitempty"`      // number of the heartbeat
	Candidate bool   `json:"candidate,omitempty"` // the node wants logs
	Draining  bool   `json:"draining,omitempty"`
	Gone      bool   `json:"gone,omitempty"` // the node has closed
}

// Config describes a node. All times must be positive.
type Config struct {
	ID, Name, Address string

	Heartbeat time.Duration // between two writes of the node's key
	Renew     time.Duration // between two renewals of a log's key
	TTL       time.Duration // time to live of all keys
	DeadAfter time.Duration // silence after which a node is dead
	Answer    time.Duration // time for the answer to a write
	Stagger   time.Duration // time by which a further heir waits longer
	Pause     time.Duration // between two moves that balance the nodes; a negative time: no such moves
	Leave     time.Duration // time that an owner has to resign after a Leave
}

// Tick is the longest time between two calls of Step.
func (c *Config) Tick() time.Duration { return c.Heartbeat / 5 }

// able is the longest pause between two echoes of a node that can write to the bucket.
func (c *Config) able() time.Duration { return 3 * c.Heartbeat }

// pingAfter is the silence after which a node is pinged.
func (c *Config) pingAfter() time.Duration { return 3 * c.Heartbeat / 2 }

// Event is an input of Step.
type Event interface{ event() }

// The events.
type (
	// Watching: a new watch of the bucket has begun. All present values follow.
	Watching struct{}
	// Complete: the watch has passed all present values.
	Complete struct{}
	// Changed: the watch shows a value. Record is nil if the key was removed.
	Changed struct {
		Key    string
		Rev    uint64
		Record *Record
	}
	// Answered is the answer to a Write.
	Answered struct {
		ID      uint64
		Outcome Outcome
		Rev     uint64 // if Stored
	}
	// Pinged is the result of a Ping.
	Pinged struct {
		Node         string
		NoResponders bool
	}
	// Connected: the state of the connection has changed.
	Connected struct{ Now bool }

	// Campaign: this node wants to own a log. Withdraw is the opposite and ends a term.
	Campaign struct{ Log string }
	Withdraw struct{ Log string }
	// Resign ends a term. A Term that has ended is ignored.
	Resign struct {
		Log  string
		Term uint64
	}
	// Move: this node's log should move to another node. To is "" for the best heir.
	Move struct{ Log, To string }
	// Announce sets the data that all nodes see with a term.
	Announce struct {
		Log  string
		Term uint64
		Data string
	}
	// Drain: the node moves its logs away and acquires none. With On false, it is a candidate
	// again.
	Drain struct{ On bool }
	// Close ends all terms.
	Close struct{}
)

func (Watching) event()  {}
func (Complete) event()  {}
func (Changed) event()   {}
func (Answered) event()  {}
func (Pinged) event()    {}
func (Connected) event() {}
func (Campaign) event()  {}
func (Withdraw) event()  {}
func (Resign) event()    {}
func (Move) event()      {}
func (Announce) event()  {}
func (Drain) event()     {}
func (Close) event()     {}

// Outcome is the result of a write.
type Outcome int

// The outcomes.
const (
	Failed  Outcome = iota // nobody knows whether it was stored, or will be
	Stored                 // a quorum has it
	Refused                // the key has another revision
)

// Action is an output of Step.
type Action interface{ action() }

// The actions.
type (
	// Write stores a record if the key has the revision Expect. 0: the key does not exist.
	Write struct {
		ID     uint64
		Key    string
		Expect uint64
		Record Record
	}
	// Ping sends a request to a node.
	Ping struct{ Node string }
	// Rewatch replaces the watch, which shows nothing any more.
	Rewatch struct{}
	// Began: this node owns a log.
	Began struct {
		Log  string
		Term uint64
	}
	// Leave: the owner should finish its work, close the log and resign.
	Leave struct {
		Log  string
		Term uint64
	}
	// Lost: the term has ended.
	Lost struct {
		Log    string
		Term   uint64
		Reason Reason
	}
)

func (Write) action()   {}
func (Ping) action()    {}
func (Rewatch) action() {}
func (Began) action()   {}
func (Leave) action()   {}
func (Lost) action()    {}

// Reason is why a term ended.
type Reason string

// The reasons.
const (
	ReasonReplaced  Reason = "another node is the owner"
	ReasonRefused   Reason = "the renewal was refused"
	ReasonLapsed    Reason = "the lease could not be renewed in time"
	ReasonResigned  Reason = "the node resigned"
	ReasonLate      Reason = "the log was not closed in the time for a move"
	ReasonWithdrawn Reason = "the node does not want the log any more"
	ReasonClosed    Reason = "the node was closed"
)

// Owner describes the owner of a log.
type Owner struct {
	Node    string // the node's id; "": the log has no owner
	Name    string
	Address string
	Term    uint64
	Since   time.Time
	Data    string
}

// Peer describes a node.
type Peer struct {
	ID, Name, Address string
	Candidate         bool
	Draining          bool
	Dead              bool
	Silent            time.Duration // counted silence
	Logs              int           // logs that it owns
}

// logOf returns the log of a log's key, or false.
func logOf(k string) (string, bool) { return strings.CutPrefix(k, logPrefix) }
