//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/test/kit/ledger"
)

// visit is one short-lived queue and its clients. The queue is created, filled, emptied and
// deleted.
type visit struct {
	d     *clients
	rng   *rand.Rand
	w     *web
	k     *link // the queue's own connection, if the queue is created over AMQP
	queue string
	s     *ledger.Stream
}

// churn creates and deletes short-lived queues of every kind, each with its own connections,
// consumer and messages. If a kill interrupts a visit, its queue is deleted later.
func (d *clients) churn(ctx context.Context, p *pacer) {
	rng := d.rng()
	w := newWeb(d.p)
	defer w.Close()
	var leftovers []string
	for n := 1; p.take(d.stop, n); {
		n = 10 + rng.IntN(60)
		v := &visit{d: d, rng: rng, w: w, queue: fmt.Sprintf("churn-%x", rng.Uint64())}
		v.s = d.l.Stream(v.queue, false)
		err := v.run(ctx, n)
		v.k.close()
		if err != nil {
			d.l.Discard(v.s)
			leftovers = append(leftovers, v.queue)
			if !errors.Is(err, errSkipped) {
				d.trouble("a queue that comes and goes", err)
			}
		}
		var still []string
		for _, q := range leftovers {
			if w.Delete(ctx, q) != nil || w.Delete(ctx, q+".dead") != nil {
				still = append(still, q)
			}
		}
		leftovers = still
	}
	for _, q := range leftovers {
		_ = w.Delete(ctx, q) // the end of the run reports a queue that remains
	}
}

var errSkipped = errors.New("cut off")

// kinds are the arguments of queues over AMQP; other queues are created over HTTP.
var kinds = []amqp.Table{
	{"x-max-priority": int32(5)},
	{"x-expires": int32(60_000)},
	{"x-message-ttl": int32(60_000), "x-max-length": int32(100_000)},
	{"x-queue-type": "quorum"},
	{"x-single-active-consumer": true},
}

func (v *visit) run(ctx context.Context, n int) error {
	d, rng := v.d, v.rng
	d.queues.Add(1)
	kind := rng.IntN(len(kinds) + 3)
	var err error
	switch {
	case kind < len(kinds):
		if v.k, err = d.dial(rng, true); err != nil {
			return errSkipped
		}
		if _, err = v.k.Ch.QueueDeclare(v.queue, true, false, false, false, kinds[kind]); err != nil {
			return err
		}
	default:
		settings := []string{`{}`, `{"group":{"max_in_flight":1}}`, `{"dedup":{"window":"5s"}}`}[kind-len(kinds)]
		if err = v.w.Declare(ctx, v.queue, settings); err != nil {
			return err
		}
	}
	batch := make([]outgoing, n)
	for i := range batch {
		m := outgoing{}
		if kind == len(kinds)+1 {
			m.Group = fmt.Sprintf("%s-%d", v.queue, rng.IntN(8))
		}
		batch[i] = d.make(v.s, rng, m)
	}
	if v.k != nil {
		left, good := d.publishAMQP(ctx, v.k, v.queue, batch)
		for _, m := range left {
			d.l.Published(v.s, m.h.Seq, ledger.Maybe)
		}
		if !good {
			return errSkipped
		}
	} else if !d.publishHTTP(ctx, v.w, rng, v.queue, batch) {
		return errSkipped
	}
	if rng.IntN(6) > 0 { // otherwise the queue is deleted with all its messages
		if err := v.takeAll(ctx, n); err != nil {
			return err
		}
		d.l.Close(v.s)
	} else {
		d.l.Discard(v.s)
	}
	return v.w.Delete(ctx, v.queue)
}

// takeAll receives and acks all messages.
func (v *visit) takeAll(ctx context.Context, n int) error {
	d := v.d
	if v.k != nil && v.rng.IntN(2) == 0 {
		return v.consumeAll(ctx, n)
	}
	for until := time.Now().Add(20 * time.Second); n > 0; {
		call := d.l.Now()
		list, a := v.w.Receive(ctx, v.queue, 100, time.Second, 5*time.Second)
		if err := a.Err(); err != nil {
			return err
		}
		got := make([]incoming, len(list))
		for i, m := range list {
			h, ok := d.arrived(m.Body, v.queue)
			if !ok {
				return errSkipped
			}
			got[i] = incoming{m.Receipt, h}
			if d.l.Delivered(h, call, false) {
				n--
			}
		}
		d.settle(ctx, v.w, "ack", v.queue, got, "")
		if time.Now().After(until) {
			return fmt.Errorf("%d messages of %s did not come within 20 s", n, v.queue)
		}
	}
	return nil
}

// consumeAll is takeAll over AMQP.
func (v *visit) consumeAll(ctx context.Context, n int) error {
	d, ch := v.d, v.k.Ch
	call := d.l.Now()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	in, err := ch.ConsumeWithContext(ctx, v.queue, "", false, false, false, false, nil)
	if err != nil {
		return errSkipped
	}
	d.consumers.Add(1)
	var hs []ledger.Hold
	for ; n > 0; n-- {
		select {
		case m, ok := <-in:
			if !ok {
				return errSkipped
			}
			h, good := d.arrived(m.Body, v.queue)
			if !good {
				return errSkipped
			}
			d.l.Delivered(h, call, false)
			hs = append(hs, h)
			if n == 1 {
				d.l.Settling(hs)
				if err := m.Ack(true); err != nil {
					return errSkipped
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("%d messages of %s did not come within 20 s over AMQP", n, v.queue)
		}
	}
	if _, err := ch.QueueDeclarePassive(v.queue, true, false, false, false, nil); err != nil {
		return errSkipped
	}
	d.l.Acked(hs)
	return nil
}
