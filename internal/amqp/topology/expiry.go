package topology

import (
	"time"

	"github.com/surgetank/surgetank"
)

// How the janitor looks for queues that another door has deleted: some each second, so that it
// costs the broker little, and each queue not more often than the pause.
const (
	lookEach  = 64
	lookPause = 30 * time.Second
)

// GoneQueues looks through the queues that this door knows for those that another one has deleted.
// Their use would show it, but nobody may ever use them again, and then they and their bindings and
// records would stay. The janitor owns it.
type GoneQueues struct {
	in    *Registry
	left  []*Queue      // of this round
	began time.Duration // of the round
}

// NewGoneQueues makes the first round begin at once.
func NewGoneQueues(r *Registry) *GoneQueues {
	return &GoneQueues{in: r, began: r.Clock.Passed() - lookPause}
}

// Look asks the broker for some of the queues. The janitor calls it once a second.
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

// forgetIfGone asks the broker. The number of a queue is never used again, so that what is gone
// stays gone, whatever is declared under its name meanwhile.
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

// ExpireQueues deletes queues that nobody has used for their x-expires. now is what has passed on
// the clock. The janitor calls it.
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
			// Who receives over another door without a subscription uses the queue as well.
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
