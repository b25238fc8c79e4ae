//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// link is an AMQP connection with one channel.
type link struct {
	nc   net.Conn
	conn *amqp.Connection
	ch   *amqp.Channel
	til  time.Time // time at which the client opens another one
}

// dial opens a connection and a channel.
func (d *load) dial(rng *rand.Rand) (*link, error) {
	_, address := d.p.urls()
	k := &link{til: time.Now().Add(time.Duration(2000+rng.IntN(8000)) * time.Millisecond)}
	var err error
	k.conn, err = amqp.DialConfig("amqp://guest:guest@"+address+"/", amqp.Config{Heartbeat: 10 * time.Second, Dial: func(network, addr string) (net.Conn, error) {
		nc, err := net.DialTimeout(network, addr, 2*time.Second)
		if err == nil {
			err = nc.SetDeadline(time.Now().Add(10 * time.Second)) // for the handshake; the client removes it
			k.nc = nc
		}
		return nc, err
	}})
	if err != nil {
		return nil, err
	}
	if k.ch, err = k.conn.Channel(); err != nil {
		k.drop()
		return nil, err
	}
	d.connections.Add(1)
	d.channels.Add(1)
	return k, nil
}

// close ends a connection in order.
func (k *link) close() {
	if k != nil {
		_ = k.conn.CloseDeadline(time.Now().Add(5 * time.Second)) // it may already be closed
	}
}

// drop ends a connection as a crash of its client would.
func (k *link) drop() {
	if k != nil {
		_ = k.nc.Close() // it may already be closed
		_ = k.conn.CloseDeadline(time.Now().Add(time.Second))
	}
}

// over reports whether a connection has lived long enough: clients come and go.
func (k *link) over() bool { return time.Now().After(k.til) }

// publishPlain sends batches with confirms. Unanswered messages stay open, because they have no
// dedup id.
func (d *load) publishPlain(ctx context.Context, p *pacer) {
	rng := d.rng()
	var k *link
	defer func() { k.close() }()
	s := d.l.stream(plain, false)
	defer func() { d.l.close(s) }()
	for n := 1; p.take(d.stop, n); {
		n = 1 + rng.IntN(96)
		if k == nil {
			var err error
			if k, err = d.confirming(rng); err != nil {
				d.trouble("connecting", err)
				sleep(d.stop, time.Duration(20+rng.IntN(60))*time.Millisecond)
				continue
			}
		}
		batch := make([]outgoing, n)
		for i := range batch {
			batch[i] = d.make(s, rng, outgoing{})
		}
		left, good := d.publishAMQP(ctx, k, plain, batch)
		for _, m := range left {
			d.l.published(s, m.h.seq, maybe)
		}
		if !good {
			k.drop()
			k = nil
		} else if k.over() {
			k.close()
			k = nil
		}
		if k == nil {
			d.l.close(s)
			s = d.l.stream(plain, false)
		}
	}
}

// confirming opens a link whose channel is in confirm mode.
func (d *load) confirming(rng *rand.Rand) (*link, error) {
	k, err := d.dial(rng)
	if err == nil {
		if err = k.ch.Confirm(false); err != nil {
			k.drop()
			return nil, err
		}
	}
	return k, err
}

// publishAMQP sends a batch and waits for its confirms. It returns the unconfirmed messages, and
// whether the link still works.
func (d *load) publishAMQP(ctx context.Context, k *link, queue string, batch []outgoing) (left []outgoing, good bool) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	mark, quiet := d.p.undisturbed()
	waits := make([]*amqp.DeferredConfirmation, len(batch))
	times := make([]time.Time, len(batch))
	var err error
	for i := range batch {
		m := &batch[i]
		pub := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: m.body}
		if m.dedup != "" || m.group != "" {
			pub.Headers = amqp.Table{"x-deduplication-header": m.dedup, "x-group-id": m.group}
		}
		times[i] = time.Now()
		if waits[i], err = k.ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, pub); err != nil {
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
		d.l.published(batch[i].s, batch[i].h.seq, confirmed)
	}
	return left, good && !k.conn.IsClosed()
}

// publishGroupedAMQP sends batches in groups and repeats each until all of it is confirmed.
func (d *load) publishGroupedAMQP(ctx context.Context, p *pacer) {
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
				if k, err = d.confirming(rng); err != nil {
					d.trouble("connecting", err)
					sleep(ctx.Done(), time.Duration(20+rng.IntN(60))*time.Millisecond)
				}
			}
			if k != nil {
				if left, good = d.publishAMQP(ctx, k, grouped, left); !good {
					k.drop()
					k = nil
				}
			}
			if len(left) > 0 && (time.Since(began) > retryFor || ctx.Err() != nil) {
				for _, m := range left {
					d.l.published(m.s, m.h.seq, maybe)
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

// consumeAMQP consumes over one connection after another. Acks are certain when a later call on the
// channel was answered: the declaration of an existing queue goes through the same log.
func (d *load) consumeAMQP(ctx context.Context, queue string) {
	rng := d.rng()
	for {
		select {
		case <-d.quit:
			return
		default:
		}
		k, err := d.dial(rng)
		if err == nil {
			var gone error
			if gone, err = d.consumeRound(ctx, rng, k, queue), nil; gone != nil || rng.IntN(3) == 0 {
				k.drop()
			} else {
				k.close()
			}
		}
		if err != nil {
			d.trouble("connecting", err)
			if !sleep(d.quit, time.Duration(20+rng.IntN(60))*time.Millisecond) {
				return
			}
		}
	}
}

// consumeRound runs one consumer until it ends.
func (d *load) consumeRound(ctx context.Context, rng *rand.Rand, k *link, queue string) error {
	after := d.l.now()
	if err := k.ch.Qos([]int{20, 100, 400}[rng.IntN(3)], 0, false); err != nil {
		return err
	}
	in, err := k.ch.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	d.consumers.Add(1)
	var acks, rejects []hold
	fence := func() error {
		asked := d.l.now()
		if _, err := k.ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
			return err
		}
		d.l.acked(acks)
		d.l.deadLettered(rejects)
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
				return errLost
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
			if d.l.delivered(h, after, false) && queue == plain {
				d.reached(h)
			}
			one := []hold{h}
			switch c := rng.IntN(1000); {
			case c < 980 || d.drain.Load():
				d.l.settling(one)
				acks = append(acks, h)
				err = m.Ack(false)
			case c < 995:
				err = m.Nack(false, true)
			default:
				d.l.settling(one)
				rejects = append(rejects, h)
				err = m.Reject(false)
			}
			if err != nil {
				return fmt.Errorf("settling: %w", err)
			}
		}
	}
}
