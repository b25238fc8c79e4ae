package topology

import (
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/fullname"
)

// refusals are messages that a queue with x-overflow=reject-publish-dlx refused, in the order of
// refusal. One goroutine at a time dead-letters them, so that the dead-letter queue gets them in
// that order. A publisher gets the nack after its message is in the dead-letter queue.
type refusals struct {
	mu      sync.Mutex
	waiting []refusal
	running bool
}

type refusal struct {
	message surgetank.Publishing
	told    func() // tells the publisher
}

// maxRefusals is the largest number of refused messages that one call dead-letters.
const maxRefusals = 1024

// DeadLetterRefused dead-letters a refused message in the background, and then calls told. It does
// not block.
func (vh *Vhost) DeadLetterRefused(m surgetank.Publishing, told func()) {
	r := &vh.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting = append(r.waiting, refusal{m, told}); !r.running {
		r.running = true
		vh.env.Background(vh.serveRefusals)
	}
}

func (vh *Vhost) serveRefusals() {
	r := &vh.refusals
	for {
		r.mu.Lock()
		batch := r.waiting
		if len(batch) > maxRefusals {
			batch = batch[:maxRefusals:maxRefusals]
		}
		r.waiting = r.waiting[len(batch):]
		if len(batch) == 0 {
			r.waiting, r.running = nil, false
		}
		r.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		vh.publishRefused(batch)
		for i := range batch {
			batch[i].told()
		}
	}
}

// publishRefused publishes refused messages to the dead-letter exchanges of the queues that refused
// them.
func (vh *Vhost) publishRefused(batch []refusal) {
	s := vh.env
	var out []surgetank.Publishing
	for i := range batch {
		m := &batch[i].message
		for _, full := range m.Queues {
			_, name := fullname.Split(full)
			q := vh.Known(name)
			if q == nil || q.Attrs().Overflow != translate.OverflowRejectDLX || !q.Attrs().HasDLX {
				continue
			}
			d := surgetank.Delivery{Message: m.Message, Queue: full,
				Deaths: []surgetank.Death{{Queue: full, Reason: surgetank.ReasonOverflow, Time: s.Clock.Now()}}}
			if p := vh.deadLetter(&d, *q.Attrs()); len(p.Queues) > 0 {
				out = append(out, p)
			}
		}
	}
	if len(out) == 0 {
		return
	}
	results, err := s.Broker.Publish(s.Context, out)
	failed := 0
	for i := range results {
		if results[i].Err != nil {
			failed++
			err = results[i].Err
		}
	}
	if err != nil {
		s.Log.Warn("refused messages could not be dead-lettered; their publishers get the nack", "vhost", vh.Name,
			"messages", len(out), "failed", max(failed, 1), "err", err)
	}
}
