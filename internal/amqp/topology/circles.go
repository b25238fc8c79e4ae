package topology

import (
	"sync"
	"time"
)

// circlesEvery is how often the log tells of dead letters that were dropped because they went round.
const circlesEvery = time.Minute

// circles sums up dead letters of a virtual host that were dropped because they would have come to the same queue twice by
// themselves (DeathCycle). There is a log line at once, then at most one a minute with the sum since the line before.
type circles struct {
	mu      sync.Mutex
	begun   bool
	said    time.Duration // what had passed on the server's clock
	dropped int64
}

// note takes a dead letter that died in a queue and must not go to the queue next, both by their names here.
func (c *circles) note(vh *Vhost, queue, next string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := vh.env.Clock.Passed()
	if c.dropped++; c.begun && now-c.said < circlesEvery {
		return
	}
	vh.env.Log.Warn("dead letters were dropped because queues dead-letter to each other in a circle; change the TTL, the limit or the dead-letter exchange of one of them",
		"vhost", vh.Name, "queue", queue, "next", next, "messages", c.dropped)
	c.begun, c.said, c.dropped = true, now, 0
}
