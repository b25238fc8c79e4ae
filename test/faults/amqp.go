//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/load"
)

// The clients in this file do the same work over AMQP 0-9-1 as the clients in load.go do over HTTP.
// AMQP reports less, and the journal records only what AMQP reports. AMQP has no message ids. A
// basic.ack has no answer, so the ack is certain only after the channel was closed in order. A
// lease ends with its channel; the journal records this as a nack that may have happened.

// amqpPublisher publishes with confirms until it is stopped. It publishes unconfirmed messages
// again with the same dedup id.
func (l *clients) amqpPublisher(ctx context.Context, i int) {
	rng := l.rng(3, i)
	queue := []string{grouped, plain}[i%2]
	name := fmt.Sprintf("a%d", i)
	var conn *amqp.Connection
	defer func() { closeQuietly(conn) }()
	for seq := 1; ; {
		select {
		case <-l.stop:
			return
		default:
		}
		batch := make([]outgoing, 1+rng.IntN(l.batch))
		for k := range batch {
			v := history.Value(name, seq)
			seq++
			batch[k] = outgoing{value: v, dedup: "id-" + v}
			if queue == grouped {
				batch[k].group = fmt.Sprintf("g%d", rng.IntN(l.groups))
			}
		}
		for try := 0; len(batch) > 0; try++ {
			var ops []history.Op
			ops, conn = l.amqpPublish(ctx, conn, i, queue, batch, try > 0)
			var again []outgoing
			for k, op := range ops {
				if op.Outcome == history.OK {
					l.confirmed.Add(1)
				} else {
					again = append(again, batch[k])
				}
			}
			batch = again
			if len(batch) > 0 && (int64(l.journal.Now()) > l.deadline.Load() || !load.Sleep(ctx.Done(), time.Duration(5+rng.IntN(40))*time.Millisecond)) {
				return
			}
		}
		if !load.Sleep(l.stop, time.Duration(rng.Int64N(int64(l.pause)))) {
			return
		}
	}
}

// amqpPublish sends a batch on a channel of its own and waits for its confirms. It returns the
// connection for the next batch, or nil if the connection is broken.
func (l *clients) amqpPublish(ctx context.Context, conn *amqp.Connection, i int, queue string, batch []outgoing, again bool) ([]history.Op, *amqp.Connection) {
	number := l.journal.Batch()
	ops := make([]history.Op, len(batch))
	for k, m := range batch {
		now := l.journal.Now()
		ops[k] = history.Op{Kind: history.Publish, Outcome: history.Fail, Client: 200 + i, Call: now, Return: now, Batch: number, Index: k,
			Queue: queue, Value: m.value, Group: m.group, Dedup: m.dedup, Code: "not sent"}
	}
	defer func() { l.journal.Add(ops...) }()
	conn, ch, err := l.amqpChannel(conn)
	if err != nil {
		return ops, conn
	}
	if err := ch.Confirm(false); err != nil {
		closeQuietly(conn)
		return ops, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	waits := make([]*amqp.DeferredConfirmation, len(batch))
	for k, m := range batch {
		p := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: body(m.value, l.size),
			Headers: amqp.Table{"x-deduplication-header": m.dedup}}
		if m.group != "" {
			p.Headers["x-group-id"] = m.group
		}
		ops[k].Call = l.journal.Now()
		ops[k].Outcome, ops[k].Code = history.Info, "no answer"
		if waits[k], err = ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, p); err != nil {
			break
		}
	}
	good := err == nil
	for k, w := range waits {
		if w == nil {
			continue
		}
		acked, err := w.WaitContext(ctx)
		ops[k].Return = l.journal.Now()
		switch {
		case err == nil && acked:
			ops[k].Outcome, ops[k].Code, ops[k].Duplicate = history.OK, "", again
		case err == nil:
			ops[k].Code = "nack" // refused, or not known to be stored
		default:
			good = false
		}
	}
	if !good || ch.Close() != nil {
		closeQuietly(conn)
		return ops, nil
	}
	return ops, conn
}

// amqpConsumer consumes some messages on one channel after another, until l.quit is closed.
func (l *clients) amqpConsumer(ctx context.Context, i int) {
	rng := l.rng(4, i)
	queue := []string{grouped, plain}[i%2]
	var conn *amqp.Connection
	defer func() { closeQuietly(conn) }()
	for round := 0; ; round++ {
		select {
		case <-l.quit:
			return
		default:
		}
		conn = l.amqpRound(ctx, rng, conn, i, round, queue)
		if conn == nil && !load.Sleep(l.quit, time.Duration(5+rng.IntN(40))*time.Millisecond) {
			return
		}
	}
}

// amqpRound uses one channel: it consumes for 100 ms, settles, and closes. When the close is
// answered, the acks are certain.
func (l *clients) amqpRound(ctx context.Context, rng *rand.Rand, conn *amqp.Connection, i, round int, queue string) *amqp.Connection {
	conn, ch, err := l.amqpChannel(conn)
	if err != nil {
		return conn
	}
	ended := ch.NotifyClose(make(chan *amqp.Error, 1))
	call := l.journal.Now()
	var in <-chan amqp.Delivery
	if err = ch.Qos(20, 0, false); err == nil {
		in, err = ch.ConsumeWithContext(ctx, queue, "c", false, false, false, false, nil)
	}
	if err != nil {
		closeQuietly(conn)
		return nil
	}
	var open, settled []history.Op
	over := time.NewTimer(100 * time.Millisecond)
	defer over.Stop()
	for taking := true; taking; {
		select {
		case <-over.C:
			taking = false
		case d, ok := <-in:
			if !ok {
				taking = false
				break
			}
			v, whole := load.ReadBody(d.Body)
			group, _ := d.Headers["x-group-id"].(string)
			op := history.Op{Kind: history.Deliver, Outcome: history.OK, Client: 300 + i, Call: call, Return: l.journal.Now(), Queue: queue, Value: v,
				Group: group, Receipt: fmt.Sprintf("amqp-%d-%d-%d", i, round, d.DeliveryTag), Again: d.Redelivered, Damaged: !whole}
			l.journal.Add(op)
			op.Kind, op.Call = history.Ack, l.journal.Now()
			switch k := rng.IntN(100); {
			case k < 90 || l.drain.Load():
				err = d.Ack(false)
			case k < 96:
				op.Kind = history.Nack
				err = d.Nack(false, true)
			default: // the message is not settled before the channel ends
				open = append(open, op)
				continue
			}
			settled = append(settled, op)
			taking = err == nil
		}
	}
	// If a dead connection has already ended the channel, Close returns nil, and ended has the
	// reason.
	closed := err == nil && ch.Close() == nil && <-ended == nil
	now := l.journal.Now()
	for k := range settled {
		settled[k].Return = now
		if closed {
			settled[k].Outcome = history.OK
			if settled[k].Kind == history.Ack {
				l.acked.Add(1)
			}
			continue
		}
		settled[k].Outcome = history.Info
		open = append(open, settled[k])
	}
	for k := range open { // an unsettled message may have returned when the channel ended
		open[k].Kind, open[k].Outcome, open[k].Return = history.Nack, history.Info, now
	}
	l.journal.Add(append(settled, open...)...)
	if !closed {
		closeQuietly(conn)
		return nil
	}
	return conn
}

// amqpChannel opens a channel. If there is no connection, it opens one.
func (l *clients) amqpChannel(conn *amqp.Connection) (*amqp.Connection, *amqp.Channel, error) {
	if conn == nil {
		var err error
		if conn, err = client.Connect(l.door(), client.Options{Patience: 2 * time.Second, Heartbeat: l.heartbeat}); err != nil {
			return nil, nil, err
		}
	}
	ch, err := conn.Channel()
	if err != nil {
		closeQuietly(conn)
		return nil, nil, err
	}
	return conn, ch, nil
}

func closeQuietly(conn *amqp.Connection) {
	if conn != nil {
		_ = conn.Close() // the connection may already be closed
	}
}

// amqpKills kills the server while clients of both protocols use the same queues. Messages
// published over one protocol are consumed over both.
func amqpKills(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{publishers: 2, consumers: 2, amqp: 4}); err != nil {
		return err
	}
	for range r.times(5, 200) {
		if err := r.sleep(ctx, r.between(50*time.Millisecond, 500*time.Millisecond)); err != nil {
			return err
		}
		r.inject("kill")
		r.server.Kill()
		if err := r.server.Start(ctx); err != nil {
			return err
		}
	}
	confirmed := r.load.confirmed.Load()
	if !r.progress(ctx, 100, 10*time.Second) {
		return errors.Join(fmt.Errorf("nothing was confirmed after the last start (%d before)", confirmed), r.end(ctx))
	}
	return r.end(ctx)
}
