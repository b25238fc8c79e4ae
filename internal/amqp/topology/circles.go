package topology

import (
	"sync"

	"github.com/surgetank/surgetank/internal/digest"
)

// circles sums up dead letters of a virtual host that were dropped because they would have come to
// the same queue twice by themselves (translate.DeathCycle). The log has a line for two queues at
// once, then at most one a period with the sum since the line before.
type circles struct {
	mu    sync.Mutex
	lines digest.Lines
}

// note takes a dead letter that died in a queue and must not go to the queue next, both by their
// names here.
func (c *circles) note(vh *Vhost, queue, next string) {
	c.mu.Lock()
	c.lines.Note(digest.Key{Kind: "circled", Queue: queue, To: next}, 1, "", int64(vh.env.Clock.Passed()))
	c.mu.Unlock()
	c.say(vh)
}

// SayCircles writes the lines that are due about dead letters that went round. The janitor calls
// it, for what happened last.
func (vh *Vhost) SayCircles() { vh.circles.say(vh) }

// say writes the lines that are due.
func (c *circles) say(vh *Vhost) {
	c.mu.Lock()
	lines := c.lines.Take(int64(vh.env.Clock.Passed()))
	c.mu.Unlock()
	for _, l := range lines {
		vh.env.Log.Warn("dead letters were dropped because queues dead-letter to each other in a circle; change the TTL, the limit or the dead-letter exchange of one of them",
			"vhost", vh.Name, "queue", l.Queue, "next", l.To, "messages", l.Count)
	}
}
