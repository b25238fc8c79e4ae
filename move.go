package surgetank

import "time"

// DefaultMoveWait is how long a move waits for leased messages if MoveOptions.LeaseWait is 0.
const DefaultMoveWait = 30 * time.Second

// MoveOptions are the settings of MoveQueue.
type MoveOptions struct {
	Shard int // the new shard, from 1
	// LeaseWait is how long the end of the move waits for leased messages. Meanwhile the queue
	// delivers nothing. Messages that are still leased afterwards are delivered again, and their
	// attempts do not count. 0: DefaultMoveWait; negative: no wait.
	LeaseWait time.Duration
	// Progress is called on the caller's goroutine after each step. If it panics, the move ends
	// with an error, and the queue stays where it is.
	Progress func(MoveInfo)
}

// MoveResult is a finished move.
type MoveResult struct {
	From, Shard int      // the old and the new shard, from 1
	Queues      []string // the queues that moved: the queue and its own dead-letter queue
	Messages    int64    // messages that were copied; a message that changed meanwhile counts again
	Returned    int64    // leases that the move ended
}

// MoveInfo is the state of a move that is under way.
type MoveInfo struct {
	Shard int       // the new shard, from 1
	State MoveState // what the move does now
	Since time.Time // when the move began
	// Copied is the number of copied messages. Left is about how many are still to copy.
	Copied, Left int64
}

// MoveState is a part of a move.
type MoveState string

// The parts of a move, in their order.
const (
	MoveCopying   MoveState = "copying"   // messages are copied, and the queue works as usual
	MoveWaiting   MoveState = "waiting"   // nothing is delivered until the leases have ended
	MoveSwitching MoveState = "switching" // publishers and consumers wait until the queue is in its new shard
)
