//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/ledger"
	"github.com/surgetank/surgetank/test/kit/load"
)

// link is an AMQP connection with one channel.
type link struct {
	*client.AMQP
	til time.Time // time at which the client replaces the connection
}

// dial opens a connection and a channel.
func (d *clients) dial(rng *rand.Rand, confirm bool) (*link, error) {
	til := time.Now().Add(time.Duration(2000+rng.IntN(8000)) * time.Millisecond)
	k, err := client.Dial(d.p.AMQP(), client.Options{Heartbeat: 10 * time.Second}, confirm)
	if err != nil {
		return nil, err
	}
	d.connections.Add(1)
	return &link{k, til}, nil
}

// close ends a connection in order, if there is one.
func (k *link) close() {
	if k != nil {
		k.Close()
	}
}

// over reports whether it is time to replace the connection, as real clients do.
func (k *link) over() bool { return time.Now().After(k.til) }

// publishPlain sends batches with confirms. The messages have no dedup id, so an unanswered message
// is not repeated and its outcome stays unknown.
func (d *clients) publishPlain(ctx context.Context, p *pacer) {
	rng := d.rng()
	var k *link
	defer func() { k.close() }()
	s := d.l.Stream(plain, false)
	defer func() { d.l.Close(s) }()
	for n := 1; p.take(d.stop, n); {
		n = 1 + rng.IntN(96)
		if k == nil {
			var err error
			if k, err = d.dial(rng, true); err != nil {
				d.trouble("connecting", err)
				load.Sleep(d.stop, time.Duration(20+rng.IntN(60))*time.Millisecond)
				continue
			}
		}
		batch := make([]outgoing, n)
		for i := range batch {
			batch[i] = d.make(s, rng, outgoing{})
		}
		left, good := d.publishAMQP(ctx, k, plain, batch)
		for _, m := range left {
			d.l.Published(s, m.h.Seq, ledger.Maybe)
		}
		if !good {
			k.Drop()
			k = nil
		} else if k.over() {
			k.close()
			k = nil
		}
		if k == nil {
			d.l.Close(s)
			s = d.l.Stream(plain, false)
		}
	}
}

// publishAMQP sends a batch and waits for its confirms. It returns the unconfirmed messages, and
// whether the link still works.
func (d *clients) publishAMQP(ctx context.Context, k *link, queue string, batch []outgoing) (left []outgoing, good bool) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	mark, quiet := d.p.undisturbed()
	waits := make([]*amqp.DeferredConfirmation, len(batch))
	times := make([]time.Time, len(batch))
	var err error
	for i := range batch {
		m := &batch[i]
		pub := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: m.Body}
		if m.Dedup != "" || m.Group != "" {
			pub.Headers = amqp.Table{"x-deduplication-header": m.Dedup, "x-group-id": m.Group}
		}
		times[i] = time.Now()
		if waits[i], err = k.Ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, pub); err != nil {
			break
		}
	}
	good = err == nil
	for i, w := range waits {
		acked := false
		if w != nil {
			if acked, err = w.WaitContext(ctx); err != nil {
				good = false
			}
		}
		if !acked {
			left = append(left, batch[i])
			continue
		}
		d.timeIt(mark, quiet, time.Since(times[i]))
		d.l.Published(batch[i].s, batch[i].h.Seq, ledger.Confirmed)
	}
	return left, good && !k.Conn.IsClosed()
}

// publishGroupedAMQP sends batches of grouped messages. It repeats each batch until all its
// messages are confirmed.
func (d *clients) publishGroupedAMQP(ctx context.Context, p *pacer) {
	rng := d.rng()
	g := newGroupSet(d, rng, grouped, 64)
	defer g.close()
	var k *link
	defer func() { k.close() }()
	for n := 1; p.take(d.stop, n); {
		n = 1 + rng.IntN(64)
		left, began := g.batch(n), time.Now()
		for good := false; len(left) > 0; {
			if k == nil {
				var err error
				if k, err = d.dial(rng, true); err != nil {
					d.trouble("connecting", err)
					load.Sleep(ctx.Done(), time.Duration(20+rng.IntN(60))*time.Millisecond)
				}
			}
			if k != nil {
				if left, good = d.publishAMQP(ctx, k, grouped, left); !good {
					k.Drop()
					k = nil
				}
			}
			if len(left) > 0 && (time.Since(began) > retryFor || ctx.Err() != nil) {
				for _, m := range left {
					d.l.Published(m.s, m.h.Seq, ledger.Maybe)
				}
				left = nil
				g.renew()
			}
		}
		if k != nil && k.over() {
			k.close()
			k = nil
		}
	}
}

// consumeAMQP consumes over one connection after another. Acks are certain after the server
// answered a later queue.declare on the channel, which passes through the same log.
func (d *clients) consumeAMQP(ctx context.Context, queue string) {
	rng := d.rng()
	for {
		select {
		case <-d.quit:
			return
		default:
		}
		k, err := d.dial(rng, false)
		if err == nil {
			var gone error
			if gone, err = d.consumeRound(ctx, rng, k, queue), nil; gone != nil || rng.IntN(3) == 0 {
				k.Drop()
			} else {
				k.close()
			}
		}
		if err != nil {
			d.trouble("connecting", err)
			if !load.Sleep(d.quit, time.Duration(20+rng.IntN(60))*time.Millisecond) {
				return
			}
		}
	}
}

// consumeRound runs one consumer on a link until the link is over or broken.
func (d *clients) consumeRound(ctx context.Context, rng *rand.Rand, k *link, queue string) error {
	after := d.l.Now()
	if err := k.Ch.Qos([]int{20, 100, 400}[rng.IntN(3)], 0, false); err != nil {
		return err
	}
	in, err := k.Ch.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	d.consumers.Add(1)
	var acks, rejects []ledger.Hold
	fence := func() error {
		asked := d.l.Now()
		if _, err := k.Ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
			return err
		}
		d.l.Acked(acks)
		d.l.DeadLettered(rejects)
		after, acks, rejects = asked, acks[:0], rejects[:0]
		return nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-d.quit:
			return fence()
		case <-tick.C:
			if err := fence(); err != nil || k.over() {
				return err
			}
			n = 0
		case m, ok := <-in:
			if !ok {
				return client.ErrUnknown
			}
			if n++; n%500 == 0 {
				if err := fence(); err != nil {
					return err
				}
			}
			h, good := d.arrived(m.Body, queue)
			if !good {
				continue
			}
			if d.l.Delivered(h, after, false) && queue == plain {
				d.reached(h)
			}
			one := []ledger.Hold{h}
			switch c := rng.IntN(1000); {
			case c < 980 || d.drain.Load():
				d.l.Settling(one)
				acks = append(acks, h)
				err = m.Ack(false)
			case c < 995:
				err = m.Nack(false, true)
			default:
				d.l.Settling(one)
				rejects = append(rejects, h)
				err = m.Reject(false)
			}
			if err != nil {
				return fmt.Errorf("settling: %w", err)
			}
		}
	}
}
