package door

import (
	"time"

	"github.com/surgetank/surgetank"
)

// Level is the part of a queue's flow control that a consumer with OwnLevel must follow.
type Level struct {
	Adaptive surgetank.AdaptiveConfig
	// Resumed and Opened count the ends of pauses and the openings of the breaker since the broker
	// started. After each of them the load must begin low.
	Resumed, Opened uint64
}

// TargetReport is what a consumer found out about the target without a message. It settles nothing
// and counts no attempt. One report is one piece of evidence for the breaker of the queue.
type TargetReport struct {
	Up         bool          // the target accepts connections; false: the target is down
	RetryAfter time.Duration // with a target that is down: the pause that the target asked for
}
