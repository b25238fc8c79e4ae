package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// subscribe attaches a consumer of some kind.
func (w *world) subscribe(rng *rand.Rand) {
	o := door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1 + rng.IntN(6), Lease: pick(rng, []time.Duration{0, 0, 3 * time.Second, surgetank.LeaseForever}), Priority: rng.IntN(2), ManualCredit: rng.IntN(5) == 0, Single: rng.IntN(8) == 0, NoAck: w.o.NoAck && rng.IntN(3) == 0}, GroupRun: pick(rng, []int{0, 0, 3}), OwnLevel: rng.IntN(6) == 0}
	name := w.anyQueue(rng)
	if w.o.Exclusive && rng.IntN(3) == 0 {
		o.Exclusive = true
	}
	if !w.o.Pools || rng.IntN(2) == 0 {
		w.attach(name, o)
		return
	}
	// Each queue has its own pool. The order of service among several queues is not a promise, so
	// the model does not follow this order.
	for i, p := range w.o.Queues {
		if at := slices.Index([]string{p.Name, p.Dead(), p.Last()}, name); at >= 0 {
			o.Pool = uint64(1 + 3*i + at)
		}
	}
	w.attach(name, o)
	w.send(&queue.PoolLimit{Pool: o.Pool, Limit: 1 + rng.IntN(3)}, func(error) {})
}

// receiveOnce makes a Receive: a consumer that ends after its first hand-outs, or when its wait
// time is over.
func (w *world) receiveOnce(rng *rand.Rand) {
	c := &queue.Attach{Queue: w.anyQueue(rng), Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1 + rng.IntN(4), ManualCredit: true, NoAck: w.o.NoAck && rng.IntN(3) == 0}}}
	wait := rng.IntN(2) == 0
	if c.Once, c.Now = wait, !wait; wait {
		w.count.one(OnceReceives)
	} else {
		w.count.one(NowReceives)
	}
	cl := w.join(c)
	cl.once = true
	if !wait || rng.IntN(3) == 0 {
		return // the receive ends by itself, or with the broker
	}
	w.run()
	if w.ledger.bad != "" || !cl.ready || !w.ok(cl.life) {
		return
	}
	w.clock.Advance(time.Duration(rng.IntN(3000)) * time.Millisecond)
	w.send(&queue.Stop{Consumer: c.Consumer}, func(error) {})
	w.send(&queue.Detach{Consumer: c.Consumer}, func(error) {})
}

func (w *world) attach(name string, o door.SubscribeOptions) {
	w.join(&queue.Attach{Queue: name, Opts: o})
}

func (w *world) join(c *queue.Attach) *client {
	cl := &client{queue: c.Queue, opts: c.Opts, attach: c, life: w.life}
	cl.sub = w.b.NewSubscription(c)
	w.clients = append(w.clients, cl)
	w.tracef("subscribe to %s %+v once=%v now=%v", c.Queue, c.Opts, c.Once, c.Now)
	w.send(c, func(err error) { cl.ready = err == nil && c.Err == nil })
	return cl
}

// receive reads the messages that a subscription has received.
func (w *world) receive(cl *client, limit int) {
	if !cl.ready || cl.closed {
		return
	}
	life := w.life
	ds, err := cl.sub.TryReceive(nil, limit, 1<<20)
	if !w.ok(life) {
		return
	}
	if err != nil {
		cl.closed = true
		if code := surgetank.CodeOf(err); code == surgetank.CodeCorrupt && !w.blamed() {
			w.ledger.violation("readable", "receiving failed: %v", err)
		}
	}
	for i := range ds {
		d := &ds[i]
		w.tallyDelivery(cl, d)
		w.tracef("delivered %v %.20s group %q attempt %d again=%v receipt %v until %v to a client of %s", d.ID, d.Body, d.Group, d.Attempt, d.Redelivered, d.Receipt,
			d.Deadline.Sub(w.b.Now()), cl.queue)
		if c := w.ledger.delivered(cl, d); c != nil && d.Receipt.Lease != 0 {
			w.deliveries = append(w.deliveries, delivery{c, d.Receipt})
		}
	}
	if floor, _ := cl.sub.Floor(); floor > 0 && len(ds) > 0 {
		q := ds[0].ID.Queue
		w.ledger.floors[q] = max(w.ledger.floors[q], floor)
	}
}

// settleSome settles a few deliveries, sometimes with a void receipt.
func (w *world) settleSome(rng *rand.Rand) {
	for range 1 + rng.IntN(4) {
		if len(w.deliveries) == 0 {
			return
		}
		i := len(w.deliveries) - 1 - rng.IntN(min(len(w.deliveries), 12))
		d := w.deliveries[i]
		s := surgetank.Settlement{Receipt: d.receipt, Op: pick(rng, []surgetank.SettleOp{surgetank.Ack, surgetank.Ack, surgetank.Ack, surgetank.Nack, surgetank.Reject, surgetank.Extend}),
			Delay: pick(rng, []time.Duration{0, surgetank.RetryBackoff, 2 * time.Second}), Lease: 5 * time.Second, Uncounted: rng.IntN(3) == 0, Reason: pick(rng, []string{"", "no", "not yet"})}
		if w.o.Breakers && rng.IntN(3) == 0 {
			s.Target, s.RetryAfter = surgetank.TargetReport(rng.IntN(3)), time.Duration(rng.IntN(4))*time.Second
			s.Elapsed = time.Duration(rng.IntN(3)) * 100 * time.Millisecond
		}
		w.settle(d, s)
		if rng.IntN(4) != 0 { // otherwise a later action can use the receipt again
			w.deliveries = slices.Delete(w.deliveries, i, i+1)
		}
	}
}

func (w *world) settle(d delivery, s surgetank.Settlement) {
	w.ledger.settling(d.copy, &s)
	w.tracef("settle %v (%s) op %d delay %v uncounted %v", d.receipt, d.copy.m.body, s.Op, s.Delay, s.Uncounted)
	life := w.life
	c := &queue.Settle{Items: []surgetank.Settlement{s}, Results: make([]error, 1), At: w.b.Now().UnixNano()}
	send := w.b.Send
	if w.o.Hold > 0 {
		send = w.b.SendQuiet
	}
	err := send(c, func(err error) {
		if !w.ok(life) {
			return
		}
		if err == nil {
			err = c.Results[0]
		}
		if err == nil && s.Op == surgetank.Ack {
			w.count.one(Acked)
		}
		w.tracef("settled %v op %d: %v", d.receipt, s.Op, err)
		w.ledger.settled(d.copy, &s, err)
	})
	if err != nil && w.b.Err() == nil {
		w.ledger.violation("answers", "an ack was refused by the mailbox: %v", err)
	}
}

// settleAll acks all messages that the clients have. It is for the healed part.
func (w *world) settleAll() {
	for _, d := range w.deliveries {
		if d.receipt == d.copy.lease && d.receipt.Epoch == w.b.Epoch() && !d.copy.acked {
			w.settle(d, surgetank.Settlement{Receipt: d.receipt, Op: surgetank.Ack})
		}
	}
	w.deliveries = nil
}

// unsubscribe ends a subscription as Cancel and Close do. It stops the subscription, then returns
// the messages that the client has not read.
func (w *world) unsubscribe(rng *rand.Rand) {
	if len(w.clients) == 0 {
		return
	}
	i := rng.IntN(len(w.clients))
	cl := w.clients[i]
	if !cl.ready || cl.closed || cl.once {
		return
	}
	cl.closed = true
	w.clients = slices.Delete(w.clients, i, i+1)
	all := rng.IntN(2) == 0
	w.tracef("unsubscribe from %s, all=%v", cl.queue, all)
	w.send(&queue.Stop{Consumer: cl.attach.Consumer}, func(err error) {
		if err != nil {
			return
		}
		if all {
			w.ledger.detached(cl)
		}
		w.send(w.beside.detach(&queue.Detach{Consumer: cl.attach.Consumer, Return: w.b.Drain(cl.sub), All: all}), func(error) {})
	})
}
