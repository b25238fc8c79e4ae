package door

import (
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// A queue can move to another shard while it is in use. The router copies the queue into a hidden
// queue of the other shard, the arriving queue. This file has the steps that the two shards do for
// the router; internal/shards/move.go has their order.

// MoveNamespace is the namespace of the marks of frozen queues, in the metadata of their shard. The
// name of a value is the queue's name, and the value is the number of the new shard, from 0. The
// machine writes the marks, and obeys them also after an opening.
const MoveNamespace = "shard.move"

// arrivingMark begins the hidden name of an arriving queue.
const arrivingMark = hiddenMark + "move" + hiddenMark

// Arriving returns the hidden name of a queue that is being copied into a shard.
func Arriving(name string) string { return arrivingMark + name }

// ArrivingOf is the reverse of Arriving.
func ArrivingOf(name string) (of string, ok bool) { return strings.CutPrefix(name, arrivingMark) }

// MoveOp is one step of a move.
type MoveOp uint8

// Steps of the old shard. Hold, Freeze, Thaw and Depart also apply to the queue's own dead-letter
// queue, if there is one.
const (
	// MoveHold stops hand-outs, or continues them if Off is set. Leases go on. A hold is not
	// stored: an opening ends it. Leased is the number of leased messages.
	MoveHold MoveOp = iota + 1
	// MoveOutline lists some messages, from number From on, as Outline. Next is where the list goes
	// on; 0 at the end.
	MoveOutline
	// MoveRead reads the messages with the numbers Seqs. Messages that were settled are left out.
	MoveRead
	// MoveFreeze ends all leases and stores that the queues move to shard To. From then on, nothing
	// changes in the queues. Names are the frozen queues.
	MoveFreeze
	// MoveThaw undoes MoveFreeze.
	MoveThaw
	// MovePack returns the state of one frozen queue besides its messages, as Frames, and its
	// settings. Outboxes lists the outboxes of other shards whose positions belong to the queue.
	MovePack
	// MoveDepart removes the frozen queues, which are in the other shard now.
	MoveDepart
)

// Steps of the new shard.
const (
	// MoveStage creates the empty arriving queue with the number ID and the settings Config. It
	// removes an older arriving queue with this name.
	MoveStage MoveOp = iota + 64
	// MoveCompare compares the messages from number From up to number To with Outline. It removes
	// the messages that the outline does not have. Seqs are the messages that are missing or
	// differ.
	MoveCompare
	// MoveCopy stores Copies. A message that is there already is replaced.
	MoveCopy
	// MoveUnpack stores Frames of MovePack.
	MoveUnpack
	// MoveArrive turns the arriving queues Names into queues, in one step. Parts has their
	// settings.
	MoveArrive
	// MoveUnstage removes an arriving queue, if there is one.
	MoveUnstage
)

// MoveStep is one step of a move with its result.
type MoveStep struct {
	Op    MoveOp
	Queue string
	Off   bool
	To    int

	From, Last, Next uint64 // numbers of messages
	Outline          []MoveItem
	Seqs             []uint64
	Copies           []MoveCopied
	Frames           [][]byte
	Outboxes         []string
	Names            []string
	Configs          []surgetank.QueueConfig // of Names
	Config           surgetank.QueueConfig
	ID               uint64
	Leased           int64
}

// MoveItem is a message in an outline: its number and a hash of its state in the queue.
type MoveItem struct{ Seq, Hash uint64 }

// MoveCopied is a message with its state in the queue.
type MoveCopied struct {
	Message     surgetank.Message
	Seq         uint64
	Time        time.Time // when it was published first
	Since       int64     // when it was confirmed or, if later, when its publisher's delay ends; whole seconds as nanoseconds
	Due         int64     // it waits until then; 0: it does not
	Expires     int64     // 0: never
	Attempts    int
	Priority    uint8 // in its queue
	Redelivered bool
	Late        bool   // Since is the end of a delay
	Failure     string // why it was returned last
	Deaths      []surgetank.Death
	Redriven    bool // the newest death is not a part of its trail
}
