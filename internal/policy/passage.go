package policy

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/settings"
)

type duration = time.Duration

// InternalVhost contains the broker queues that doors use for themselves. auth.Store chooses the
// internal names of users' virtual hosts and never uses this name, so no user can enter it.
const InternalVhost = settings.DoorVhost

// Passage returns the broker queue through which a virtual host's dead letters pass to an exchange.
// The door that has exchanges consumes this queue; until then dead letters wait there.
func Passage(vhost string) string { return fullname.Of(InternalVhost, vhost) }

// IsPassage reports whether a full name is the name of a passage.
func IsPassage(full string) bool {
	v, _ := fullname.Split(full)
	return v == InternalVhost
}

// PassageConfig is the declaration of a passage: a message is retried until it has been forwarded.
var PassageConfig = surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: surgetank.DeadLetterDrop}
