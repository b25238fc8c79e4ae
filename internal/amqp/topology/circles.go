package topology

import (
	"sync"

	"github.com/surgetank/surgetank/internal/digest"
)

// circles counts dead letters of a virtual host that were dropped because they would have cycled
// forever (translate.DeathCycle). For each pair of queues the log gets a line at once, and then at
// most one line a period with the count since the last line.
type circles struct {
	mu    sync.Mutex
	lines digest.Lines
}

// note counts a dead letter that died in queue and would cycle forever if it were moved to next.
// Both are names within the virtual host.
func (c *circles) note(vh *Vhost, queue, next string) {
	c.mu.Lock()
	c.lines.Note(digest.Key{Kind: "circled", Queue: queue, To: next}, 1, "", int64(vh.env.Clock.Passed()))
	c.mu.Unlock()
	c.say(vh)
}

// SayCircles writes the log lines that are due about dead letters in cycles. The janitor calls it,
// so that the last events are logged too.
func (vh *Vhost) SayCircles() { vh.circles.say(vh) }

// say writes the log lines that are due.
func (c *circles) say(vh *Vhost) {
	c.mu.Lock()
	lines := c.lines.Take(int64(vh.env.Clock.Passed()))
	c.mu.Unlock()
	for _, l := range lines {
		vh.env.Log.Warn("dead letters were dropped because queues dead-letter to each other in a circle; change the TTL, the limit or the dead-letter exchange of one of them",
			"vhost", vh.Name, "queue", l.Queue, "next", l.To, "messages", l.Count)
	}
}
