package broker

import (
	"log/slog"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// circlesEvery is how often the log tells of messages that were dropped because queues gave them to each other.
const circlesEvery = time.Minute

// maxCircles bounds the pairs of queues that are told apart between two log lines.
const maxCircles = 64

// circles sums up messages that were dropped because they went round. Each pair of queues gets a log line at once, then at
// most one a minute with the sum since the line before. The loop owns it.
type circles struct {
	pairs map[[2]string]*circled
}

type circled struct {
	said    int64 // when, in the loop's time
	dropped int64 // since then
}

// note takes what a turn dropped.
func (c *circles) note(log *slog.Logger, dropped []queue.Circle, now int64) {
	for _, d := range dropped {
		pair := [2]string{d.From, d.To}
		p := c.pairs[pair]
		if p == nil {
			if c.pairs == nil || len(c.pairs) >= maxCircles {
				c.pairs = map[[2]string]*circled{}
			}
			p = &circled{said: now - int64(circlesEvery)}
			c.pairs[pair] = p
		}
		if p.dropped += d.Messages; now-p.said < int64(circlesEvery) {
			continue
		}
		vhost, from := surgetank.SplitName(d.From)
		_, to := surgetank.SplitName(d.To)
		log.Warn("messages were dropped because queues dead-letter to each other in a circle; change ttl, overflow or dead_letter of one of them",
			"vhost", vhost, "queue", from, "next", to, "messages", p.dropped)
		p.said, p.dropped = now, 0
	}
}
