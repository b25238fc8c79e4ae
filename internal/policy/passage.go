package policy

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

type duration = time.Duration

// InternalVhost holds the broker queues that doors use for themselves. Names of virtual hosts of
// users come from auth.Store; this one is never made there, so that no user can enter it.
const InternalVhost = settings.DoorVhost

// Passage is the broker queue through which a virtual host's dead letters pass on their way to an
// exchange. The door that knows exchanges serves it; until it does, dead letters wait there.
func Passage(vhost string) string { return surgetank.FullName(InternalVhost, vhost) }

// IsPassage tells whether a full name is that of a passage.
func IsPassage(full string) bool {
	v, _ := surgetank.SplitName(full)
	return v == InternalVhost
}

// PassageConfig is how a passage is declared: what is in it is tried until it has gone on.
var PassageConfig = surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: surgetank.DeadLetterDrop}
