package adapt

import (
	"fmt"
	"math"
)

// Reason says why the limit or the batch size changed.
type Reason uint8

// The reasons. Those from BatchTimedOut on are for changes of the batch size, the earlier ones for
// changes of the limit.
const (
	Started           Reason = iota // the controller is new
	Resumed                         // the queue was paused
	BreakerOpen                     // the breaker opened
	TargetDown                      // the target cannot be used
	Idle                            // no job was in flight for IdleAfter
	Stalled                         // jobs are in flight, and none returned
	SlowStart                       // a window of slow start was within the tolerance
	SlowStartEnd                    // two windows of slow start exceeded the tolerance
	RoomLeft                        // the ratio is below the tolerance
	TooSlow                         // the ratio is above the tolerance
	Overload                        // in three windows the ratio was above three times the tolerance, or too few jobs had a result
	Throttled                       // the target asked for less load
	NoErrors                        // latency is too varied, and a cycle passed without errors
	Reconfigured                    // the settings changed
	BatchTimedOut                   // a batch timed out
	BatchTooLarge                   // the target refused a batch as too large, or ran out of memory
	BatchSlow                       // a batch lasts longer than a second at the smallest limit
	BatchGood                       // a trial of another size had more throughput for its latency
	BatchReconfigured               // the settings changed
	reasons
)

var reasonNames = [reasons]string{"started", "resumed", "breaker_open", "target_down", "idle", "stalled", "slow_start", "slow_start_end", "room_left", "too_slow", "overload",
	"throttled", "no_errors", "reconfigured", "batch_timed_out", "batch_too_large", "batch_slow", "batch_good", "batch_reconfigured"}

var sentences = [reasons]string{
	Started:           "It begins low after a start.",
	Resumed:           "It begins low after a pause.",
	BreakerOpen:       "It begins low because the breaker opened.",
	TargetDown:        "It begins low because the target was down.",
	Idle:              "It begins low because the queue was idle.",
	Stalled:           "Messages are in flight, and none came back for a long time.",
	SlowStart:         "Slow start: the target is still fast enough.",
	SlowStartEnd:      "Slow start ended: the target became slower than the tolerance allows.",
	RoomLeft:          "The target is faster than the tolerance asks for.",
	TooSlow:           "The target is slower than the tolerance allows.",
	Overload:          "The target is several times slower than the tolerance allows, or answers are missing.",
	Throttled:         "The target asked for less.",
	NoErrors:          "Latency is too varied to compare. There were no errors, so the limit rises by one.",
	Reconfigured:      "The settings changed.",
	BatchTimedOut:     "A batch timed out.",
	BatchTooLarge:     "A batch was too large for the target.",
	BatchSlow:         "A batch lasts longer than a second.",
	BatchGood:         "A trial of this size had more throughput for its latency.",
	BatchReconfigured: "The settings changed.",
}

// String returns a name that never changes, for metrics and JSON.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Sentence explains the reason to a user.
func (r Reason) Sentence() string {
	if r < reasons {
		return sentences[r]
	}
	return r.String()
}

// OfBatch reports whether the reason is for a change of the batch size.
func (r Reason) OfBatch() bool { return r >= BatchTimedOut && r < reasons }

// Change is one change of the limit, or of the batch size if Reason.OfBatch. Ratio is the latency
// under load as a multiple of the latency in probes. It is 0 if the reason needs no ratio.
type Change struct {
	At       int64
	From, To int32
	Ratio    float32
	Reason   Reason
}

// String returns a line for users, without the time.
func (c Change) String() string {
	what := "limit"
	if c.Reason.OfBatch() {
		what = "batch size"
	}
	s := fmt.Sprintf("%s %d → %d. %s", what, c.From, c.To, c.Reason.Sentence())
	if c.Ratio > 0 {
		s += fmt.Sprintf(" Latency is %.2f × that at the smallest limit.", c.Ratio)
	}
	return s
}

// HistorySize is the number of changes that a Controller remembers.
const HistorySize = 64

// record adds a change to the history. If the number does not change, record adds only a start.
func (c *Controller) record(now int64, from, to int, reason Reason, ratio float64) {
	if from == to && reason != Started {
		return
	}
	if math.IsInf(ratio, 1) {
		ratio = 0 // an infinite ratio means that no latency was measured
	}
	c.history[c.changes%HistorySize] = Change{At: now, From: int32(from), To: int32(to), Ratio: float32(ratio), Reason: reason}
	c.changes++
}

// Changes returns the number of changes since the start. It grows with each new entry of History.
func (c *Controller) Changes() uint64 { return c.changes }

// History appends the last changes to dst, oldest first, and returns it.
func (c *Controller) History(dst []Change) []Change {
	for i := c.changes - min(c.changes, HistorySize); i < c.changes; i++ {
		dst = append(dst, c.history[i%HistorySize])
	}
	return dst
}

// last returns the last change.
func (c *Controller) last() Change { return c.history[(c.changes-1)%HistorySize] }
