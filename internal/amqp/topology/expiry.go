package topology

import (
	"time"

	"github.com/surgetank/surgetank"
)

// The janitor asks the broker for queues that another door has deleted. It asks for lookEach queues
// a second, which costs little. It asks for each queue at most once in lookPause.
const (
	lookEach  = 64
	lookPause = 30 * time.Second
)

// GoneQueues finds queues that this door knows and another door has deleted. A use of such a queue
// would also reveal the deletion. But if the queue is never used again, its bindings and records
// would stay without this search. The janitor owns it.
type GoneQueues struct {
	in    *Registry
	left  []*Queue      // queues of this round that are not checked yet
	began time.Duration // start of this round
}

// NewGoneQueues returns a GoneQueues whose first round begins at once.
func NewGoneQueues(r *Registry) *GoneQueues {
	return &GoneQueues{in: r, began: r.Clock.Passed() - lookPause}
}

// Look asks the broker for some of the queues. The janitor calls it once a second. now is the
// passed time of the clock.
func (g *GoneQueues) Look(now time.Duration) {
	if len(g.left) == 0 {
		if now-g.began < lookPause {
			return
		}
		g.began = now
		for _, vh := range g.in.All() {
			vh.mu.RLock()
			for _, q := range vh.queues {
				g.left = append(g.left, q)
			}
			vh.mu.RUnlock()
		}
	}
	n := min(lookEach, len(g.left))
	for _, q := range g.left[:n] {
		q.forgetIfGone()
	}
	clear(g.left[:n])
	if g.left = g.left[n:]; len(g.left) == 0 {
		g.left = nil
	}
}

// forgetIfGone asks the broker whether the queue exists, and forgets it if not. A queue's number is
// never used again, so a new queue with the same name does not confuse it.
func (q *Queue) forgetIfGone() {
	vh := q.Vhost
	if vh.Known(q.Name) != q {
		return
	}
	info, err := vh.env.Broker.Queue(vh.env.Context, q.Full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound || err == nil && info.ID != q.ID {
		vh.Forget(q)
	}
}

// ExpireQueues deletes queues that were unused for their x-expires. now is the passed time of the
// clock. The janitor calls it.
func (r *Registry) ExpireQueues(now time.Duration) {
	for _, vh := range r.All() {
		var due []*Queue
		vh.mu.RLock()
		for _, q := range vh.queues {
			if q.Attrs().Expires > 0 && len(q.consumers) == 0 && now-q.lastUse >= q.Attrs().Expires {
				due = append(due, q)
			}
		}
		vh.mu.RUnlock()
		for _, q := range due {
			// A consumer of another door that receives without a subscription also uses the queue.
			if info, err := r.Broker.Queue(r.Context, q.Full); err == nil && info.Delivered != q.delivered {
				q.delivered = info.Delivered
				q.Touch()
				continue
			}
			_, err := vh.DeleteQueueIf(q, surgetank.DeleteOptions{IfUnused: true})
			if err != nil { // another door's consumer uses it
				q.Touch()
				r.Log.Debug("an expired queue is still in use", "queue", q.Name, "vhost", vh.Name, "err", err)
			}
		}
	}
}
