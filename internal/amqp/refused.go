package amqp

import (
	"sync"

	"github.com/surgetank/surgetank"
)

// refusals are messages that a queue with x-overflow=reject-publish-dlx did not take, in the order in which they were refused. One
// goroutine at a time dead-letters them, so that they come to their dead-letter queue in that order. A publisher is told of the
// refusal after its message is there.
type refusals struct {
	mu      sync.Mutex
	waiting []refusal
	running bool
}

type refusal struct {
	message surgetank.Publishing
	who     publisher
}

// maxRefusals is how many refused messages are dead-lettered by one call.
const maxRefusals = 1024

// deadLetterRefused takes a refused message; it does not block.
func (vh *vhost) deadLetterRefused(m surgetank.Publishing, who publisher) {
	r := &vh.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting = append(r.waiting, refusal{m, who}); !r.running {
		r.running = true
		vh.srv.background(vh.serveRefusals)
	}
}

func (vh *vhost) serveRefusals() {
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
			batch[i].who.ch.confirm(batch[i].who.seq, false)
		}
	}
}

// publishRefused sends refused messages where the dead-letter exchanges of the queues lead that refused them.
func (vh *vhost) publishRefused(batch []refusal) {
	s := vh.srv
	var out []surgetank.Publishing
	for i := range batch {
		m := &batch[i].message
		for _, full := range m.Queues {
			_, name := surgetank.SplitName(full)
			q := vh.known(name)
			if q == nil || q.attrs().overflow != overflowRejectDLX || !q.attrs().hasDLX {
				continue
			}
			d := surgetank.Delivery{Message: m.Message, Queue: full,
				Deaths: []surgetank.Death{{Queue: full, Reason: surgetank.ReasonOverflow, Time: s.clock.Now()}}}
			if p := vh.deadLetter(&d, *q.attrs()); len(p.Queues) > 0 {
				out = append(out, p)
			}
		}
	}
	if len(out) == 0 {
		return
	}
	results, err := s.broker.Publish(s.ctx, out)
	failed := 0
	for i := range results {
		if results[i].Err != nil {
			failed++
			err = results[i].Err
		}
	}
	if err != nil {
		s.log.Warn("refused messages could not be dead-lettered; their publishers are told of the refusal", "vhost", vh.name,
			"messages", len(out), "failed", max(failed, 1), "err", err)
	}
}
