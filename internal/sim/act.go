package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// kinds are the actions and how often each comes, of those that the options allow.
func kinds(o *Options) (list []string) {
	add := func(n int, kind string, on bool) {
		for range n {
			if on {
				list = append(list, kind)
			}
		}
	}
	add(12, "publish", true)
	add(3, "republish", o.Dedup > 0)
	add(3, "subscribe", true)
	add(9, "receive", true)
	add(10, "settle", true)
	add(2, "unsubscribe", true)
	add(1, "credit", true)
	add(6, "wait", true)
	add(2, "info", true)
	add(1, "pause", true)
	add(1, "configure", true)
	add(1, "meta", true)
	add(1, "peek", true)
	add(2, "redrive", o.Redrive)
	add(1, "purge", o.Purge)
	add(1, "delete", o.Delete)
	add(4, "transact", o.Transactions)
	add(2, "crash", o.Crashes)
	add(3, "crash-in", o.Crashes && o.Files)
	add(1, "kill", o.Kills)
	add(2, "fault", o.Faults)
	add(2, "full", o.Full && o.Files)
	add(2, "jump", o.Jumps)
	return list
}

// Script draws the actions of a run.
func Script(o Options) []Action {
	rng := rand.New(rand.NewPCG(o.Seed, 0xac7))
	from := kinds(&o)
	actions := make([]Action, o.Steps)
	for i := range actions {
		actions[i] = Action{from[rng.IntN(len(from))], rng.Uint64()}
	}
	return actions
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func (w *world) anyQueue(rng *rand.Rand) string {
	p := pick(rng, w.o.Queues)
	if rng.IntN(6) == 0 {
		return p.Dead()
	}
	return p.Name
}

func (w *world) act(kind string, rng *rand.Rand) {
	switch kind {
	case "publish":
		for range 1 + rng.IntN(4) {
			w.publish(w.newMessage(rng))
		}
	case "republish":
		if n := len(w.ledger.order); n > 0 {
			if m := w.ledger.order[n-1-rng.IntN(min(n, 10))]; m.dedup != "" && m.transact == nil {
				w.publish(w.message(m.body, m.dedup, 0), m.queues)
			}
		}
	case "subscribe":
		o := surgetank.SubscribeOptions{Credit: 1 + rng.IntN(6), Lease: pick(rng, []time.Duration{0, 0, 3 * time.Second, surgetank.LeaseForever}),
			GroupRun: pick(rng, []int{0, 0, 3}), Priority: rng.IntN(2), ManualCredit: rng.IntN(5) == 0, Single: rng.IntN(8) == 0, NoAck: w.o.NoAck && rng.IntN(3) == 0}
		w.attach(w.anyQueue(rng), o)
	case "receive":
		if len(w.clients) > 0 {
			w.receive(pick(rng, w.clients), 1+rng.IntN(8))
		}
	case "settle":
		w.settleSome(rng)
	case "unsubscribe":
		w.unsubscribe(rng)
	case "credit":
		if len(w.clients) > 0 {
			if cl := pick(rng, w.clients); cl.ready && !cl.closed {
				w.send(&queue.Credit{Consumer: cl.attach.Consumer, N: rng.IntN(5) - 1}, func(error) {})
			}
		}
	case "wait":
		d := time.Duration(rng.IntN(4000)) * time.Millisecond
		if rng.IntN(8) == 0 {
			d *= 20
		}
		w.tracef("wait %v", d)
		w.clock.Advance(d)
	case "info":
		c := &queue.Info{}
		w.send(c, func(err error) {
			if err == nil {
				w.ledger.counted(c.Infos)
			}
		})
	case "jump":
		w.count.Jumps++
		d := time.Duration(rng.IntN(7200)-3600) * time.Second
		w.tracef("the clock jumps by %v", d)
		w.clock.Advance(d)
	case "crash", "kill":
		w.tracef("%s", kind)
		if kind == "kill" {
			w.count.Kills++
		} else {
			w.count.Crashes++
		}
		w.reopen(rng, kind == "kill")
	case "crash-in":
		w.disk.crashIn(1+rng.IntN(30), rand.New(rand.NewPCG(rng.Uint64(), 0)))
	case "fault":
		w.count.Faults++
		w.faulted = true
		w.tracef("fault: %s", w.disk.fault(rng))
	case "full":
		full := rng.IntN(2) == 0
		w.count.Full++
		w.faulted = true
		w.tracef("disk full: %v", full)
		w.disk.setFull(full)
	default:
		w.admin(kind, rng)
	}
}

func (w *world) admin(kind string, rng *rand.Rand) {
	name := w.anyQueue(rng)
	w.tracef("%s %s", kind, name)
	switch kind {
	case "pause":
		w.send(&queue.Pause{Name: name, Paused: rng.IntN(3) == 0}, func(error) {})
	case "configure":
		p := pick(rng, w.o.Queues)
		c := p.Config
		c.Group.Fair = rng.IntN(2) == 0
		c.Level.MaxInFlight = rng.IntN(5)
		c.Level.Rate = surgetank.Rate(rng.IntN(3) * 5)
		w.send(&queue.Declare{Name: p.Name, Config: c, Mode: surgetank.DeclareUpdate}, func(error) {})
	case "meta":
		w.meta(rng)
	case "peek":
		life := w.life
		ds, err := w.b.Peek(background, name, surgetank.PeekOptions{Max: 1 + rng.IntN(20)})
		if !w.ok(life) || w.b.Err() != nil {
			return
		}
		if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound && !w.blamed() {
			w.ledger.violation("readable", "a peek into %s failed: %v", name, err)
		}
		for i := range ds {
			w.ledger.copyOf(&ds[i])
		}
	case "redrive":
		o := surgetank.RedriveOptions{Max: int64(rng.IntN(4)), DryRun: rng.IntN(5) == 0}
		if rng.IntN(3) == 0 {
			o.To = pick(rng, w.o.Queues).Name
			for _, m := range w.ledger.order { // that queue's rules may end them
				m.excused = m.excused || w.plan(o.To).Lossy
			}
		}
		_, _ = w.b.Redrive(background, pick(rng, w.o.Queues).Dead(), o) // an error leaves the messages where they are
	case "purge":
		w.ledger.excuse(name)
		w.send(&queue.Purge{Name: name}, func(error) {})
	case "delete":
		p := pick(rng, w.o.Queues)
		w.ledger.excuse(p.Name)
		w.send(&queue.Delete{Name: p.Name}, func(error) {})
		w.declare(&p)
	case "transact":
		w.transact(rng)
	}
}

func (w *world) meta(rng *rand.Rand) {
	name := fmt.Sprintf("m%d", rng.IntN(2))
	if rng.IntN(2) == 0 {
		w.serial++
		value := fmt.Sprint(w.serial)
		w.ledger.metaSent(name, value)
		c := &queue.SetMeta{Namespace: "sim", Name: name, Value: []byte(value)}
		w.send(c, func(err error) {
			if err == nil {
				w.ledger.metaSet(name, value)
			}
		})
		return
	}
	possible := slices.Clone(w.ledger.meta[name])
	c := &queue.Meta{Namespace: "sim"}
	w.send(c, func(err error) {
		if err == nil {
			w.ledger.metaRead(name, string(c.Values[name]), possible)
		}
	})
}

// newMessage makes a message that nobody sent before, and where it goes.
func (w *world) newMessage(rng *rand.Rand) (surgetank.Message, []string) {
	w.serial++
	p := pick(rng, w.o.Queues)
	body := fmt.Sprintf("%d", w.serial)
	m := w.message(body, "", rng.IntN(4))
	if w.o.Dedup > 0 && rng.IntN(2) == 0 {
		m.DedupID = "id-" + body
	}
	if m.Group != "" {
		m.Body = []byte(body + "/" + m.Group)
	}
	if rng.IntN(4) == 0 {
		m.Body = append(m.Body, strings.Repeat("-", rng.IntN(600))...)
	}
	m.Priority = uint8(rng.IntN(4))
	if rng.IntN(10) == 0 {
		m.Delay = time.Duration(1+rng.IntN(8000)) * time.Millisecond
	}
	queues := []string{p.Name}
	if w.o.MultiTarget && !p.Strict && rng.IntN(3) == 0 {
		for _, o := range w.o.Queues {
			if !o.Strict && o.Name != p.Name {
				queues = append(queues, o.Name)
			}
		}
	}
	return m, queues
}

func (w *world) message(body, dedup string, group int) surgetank.Message {
	m := surgetank.Message{Body: []byte(body), DedupID: dedup}
	if group > 0 {
		m.Group = fmt.Sprintf("g%d", group)
	}
	if _, g, ok := strings.Cut(body, "/"); ok { // sent again
		m.Group, _, _ = strings.Cut(g, "-")
	}
	return m
}

func (w *world) publish(m surgetank.Message, queues []string) {
	known := w.ledger.sending(string(m.Body), queues, m.DedupID, m.Delay > 0)
	w.count.Published++
	w.tracef("publish %.20s to %v group %q id %q", m.Body, queues, m.Group, m.DedupID)
	life := w.life
	err := w.b.PublishAsync(background, []surgetank.Publishing{{Queues: queues, Message: m}}, func(rs []surgetank.PublishResult, err error) {
		if !w.ok(life) {
			return
		}
		if err != nil {
			w.count.Uncertain++
			return
		}
		w.tracef("published %.20s: %v dup=%v %v", m.Body, rs[0].ID, rs[0].Duplicate, rs[0].Err)
		w.ledger.published(known, rs[0])
	})
	if err != nil && w.b.Err() == nil {
		w.ledger.violation("answers", "a publish was refused by the mailbox: %v", err)
	}
}

func (w *world) attach(name string, o surgetank.SubscribeOptions) {
	cl := &client{queue: name, opts: o, attach: &queue.Attach{Queue: name, Opts: o}, life: w.life}
	cl.sub = w.b.NewSubscription(cl.attach)
	w.clients = append(w.clients, cl)
	w.tracef("subscribe to %s %+v", name, o)
	w.send(cl.attach, func(err error) { cl.ready = err == nil && cl.attach.Err == nil })
}

// receive takes what waits at a subscription.
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
		w.count.Delivered++
		w.tracef("delivered %v %.20s group %q attempt %d again=%v receipt %v until %v to a client of %s", d.ID, d.Body, d.Group, d.Attempt, d.Redelivered, d.Receipt,
			d.Deadline.Sub(w.b.Now()), cl.queue)
		if c := w.ledger.delivered(cl, d); c != nil && d.Receipt.Lease != 0 {
			w.deliveries = append(w.deliveries, delivery{c, d.Receipt})
		}
	}
	if floor := cl.sub.Floor(); floor > 0 && len(ds) > 0 {
		q := ds[0].ID.Queue
		w.ledger.floors[q] = max(w.ledger.floors[q], floor)
	}
}

// settleSome settles a few deliveries, sometimes with a receipt that is void.
func (w *world) settleSome(rng *rand.Rand) {
	for range 1 + rng.IntN(4) {
		if len(w.deliveries) == 0 {
			return
		}
		i := len(w.deliveries) - 1 - rng.IntN(min(len(w.deliveries), 12))
		d := w.deliveries[i]
		s := surgetank.Settlement{Receipt: d.receipt, Op: pick(rng, []surgetank.SettleOp{surgetank.Ack, surgetank.Ack, surgetank.Ack, surgetank.Nack, surgetank.Reject, surgetank.Extend}),
			Delay: pick(rng, []time.Duration{0, surgetank.RetryBackoff, 2 * time.Second}), Lease: 5 * time.Second, Uncounted: rng.IntN(3) == 0}
		w.settle(d, s)
		if rng.IntN(4) != 0 { // otherwise the receipt is used again some time
			w.deliveries = slices.Delete(w.deliveries, i, i+1)
		}
	}
}

func (w *world) settle(d delivery, s surgetank.Settlement) {
	w.ledger.settling(d.copy, &s)
	w.tracef("settle %v (%s) op %d delay %v uncounted %v", d.receipt, d.copy.m.body, s.Op, s.Delay, s.Uncounted)
	life := w.life
	err := w.b.SettleAsync(background, []surgetank.Settlement{s}, func(rs []surgetank.SettleResult, err error) {
		if !w.ok(life) {
			return
		}
		if err == nil {
			err = rs[0]
		}
		if err == nil && s.Op == surgetank.Ack {
			w.count.Acked++
		}
		w.tracef("settled %v op %d: %v", d.receipt, s.Op, err)
		w.ledger.settled(d.copy, &s, err)
	})
	if err != nil && w.b.Err() == nil {
		w.ledger.violation("answers", "an ack was refused by the mailbox: %v", err)
	}
}

// settleAll acks what the clients hold; in the healed part.
func (w *world) settleAll() {
	for _, d := range w.deliveries {
		if d.receipt == d.copy.lease && d.receipt.Epoch == w.b.Epoch() && !d.copy.acked {
			w.settle(d, surgetank.Settlement{Receipt: d.receipt, Op: surgetank.Ack})
		}
	}
	w.deliveries = nil
}

// unsubscribe ends a subscription as Cancel and Close do: stop, then give back what was not received.
func (w *world) unsubscribe(rng *rand.Rand) {
	if len(w.clients) == 0 {
		return
	}
	i := rng.IntN(len(w.clients))
	cl := w.clients[i]
	if !cl.ready || cl.closed {
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
		w.send(&queue.Detach{Consumer: cl.attach.Consumer, GiveBack: w.b.Drain(cl.sub), All: all}, func(error) {})
	})
}

// transact publishes a message and acks another as one.
func (w *world) transact(rng *rand.Rand) {
	if len(w.deliveries) == 0 {
		return
	}
	i := len(w.deliveries) - 1 - rng.IntN(min(len(w.deliveries), 8))
	d := w.deliveries[i]
	if d.copy.ackSent || d.copy.acked || d.copy.lease != d.receipt {
		return
	}
	w.deliveries = slices.Delete(w.deliveries, i, i+1)
	m, queues := w.newMessage(rng)
	m.DedupID = ""
	known := w.ledger.sending(string(m.Body), queues, "", m.Delay > 0)
	t := &transaction{source: d.copy, lease: d.receipt}
	known.transact = t
	w.transactions = append(w.transactions, t)
	s := surgetank.Settlement{Receipt: d.receipt, Op: surgetank.Ack}
	w.ledger.settling(d.copy, &s)
	w.count.Published++
	w.tracef("transact: publish %s to %v, ack %v (%s)", m.Body, queues, d.receipt, d.copy.m.body)
	p := surgetank.Publishing{Queues: queues, Message: m}
	c := &queue.Transact{Publish: queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)},
		Settle: queue.Settle{Items: []surgetank.Settlement{s}}}
	w.send(c, func(err error) {
		w.tracef("transacted %s: %v %v", m.Body, err, c.Err)
		switch {
		case err != nil:
			w.count.Uncertain++
		case c.Err != nil:
			known.high -= len(queues)
			known.transact = nil
			w.transactions = slices.DeleteFunc(w.transactions, func(o *transaction) bool { return o == t })
			w.ledger.settled(d.copy, &s, c.Err)
		default:
			w.count.Acked++
			w.ledger.settled(d.copy, &s, nil)
			w.ledger.published(known, c.Publish.Results[0])
			if e := c.Publish.Results[0].Err; e != nil {
				w.ledger.violation("transactions are whole", "a transaction was confirmed and its publish refused: %v", e)
			}
		}
	})
}
