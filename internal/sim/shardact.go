package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/shards"
	"github.com/surgetank/surgetank/internal/vfs"
)

// shardPublisher numbers its messages.
type shardPublisher struct {
	id   string
	next uint64
}

func (w *shardWorld) plan(name string) *QueuePlan {
	for i := range w.o.Queues {
		if w.o.Queues[i].Name == name {
			return &w.o.Queues[i]
		}
	}
	return nil
}

// sources and sinks return the names of the queues that get messages and that get dead letters.
func (w *shardWorld) names(sink bool) (names []string) {
	for _, p := range w.o.Queues {
		if p.Sink == sink {
			names = append(names, p.Name)
		}
	}
	return names
}

func (w *shardWorld) anyQueue(rng *rand.Rand) string { return pick(rng, w.o.Queues).Name }

// act does one action.
func (w *shardWorld) act(kind string, rng *rand.Rand) {
	w.tracef("%s", kind)
	switch kind {
	case "publish":
		w.publish(rng)
	case "republish":
		w.republish(rng)
	case "receive":
		w.receive(w.anyQueue(rng), 1+rng.IntN(5), 0)
	case "settle":
		w.settle(rng)
	case "wait":
		w.clock.Advance([]time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second}[rng.IntN(3)])
	case "move":
		for range 1 + rng.IntN(6) {
			if w.tick(); w.dead() || !w.step() {
				break
			}
		}
	case "look":
		w.look(w.anyQueue(rng))
	case "redrive":
		w.redrive(rng)
	case "cut":
		s := pick(rng, w.slots)
		if k := cutBefore + cutKind(rng.IntN(2)); rng.IntN(2) == 0 {
			s.cut.arrive = k
		} else {
			s.cut.settle = k
		}
	case "delete":
		w.deleteQueue(pick(rng, w.names(true)), rng)
	case "limit":
		name := pick(rng, w.names(true))
		if p := w.plan(name); !p.Made {
			c := p.Config
			c.MaxMessages = int64(rng.IntN(6))
			_, _, err := w.router.DeclareQueue(background, name, c, surgetank.DeclareUpdate)
			w.tracef("%s has at most %d messages: %v", name, c.MaxMessages, err)
			if surgetank.CodeOf(err) == surgetank.CodeNotFound && !w.dead() {
				c.Shard = 1 + rng.IntN(w.o.Shards)
				_, _, err := w.router.DeclareQueue(background, name, c, surgetank.DeclareIfAbsent)
				w.tracef("%s is created again in shard %d: %v", name, c.Shard, err)
			}
		}
	case "crash":
		w.count.one(Crashes)
		w.count.one(ShardPowerFailures)
		w.reopenAll(rng, false)
	case "kill":
		w.count.one(Kills)
		w.reopenAll(rng, true)
	case "crash-in":
		pick(rng, w.slots).disk.crashIn(1+rng.IntN(60), rng)
	case "fail-shard":
		s := pick(rng, w.slots)
		s.faulted = true
		s.disk.plan(&FaultPlan{N: 1 + rng.IntN(30), Forever: true, Short: rng.IntN(2) == 0})
		w.count.one(Faults)
	case "open-shard":
		for _, s := range w.slots {
			if s.down && !w.dead() {
				w.openShard(s, rng)
			}
		}
	case "fault":
		s := pick(rng, w.slots)
		s.faulted = true
		w.count.one(Faults)
		w.ledger.misread = true
		w.tracef("shard %d: %s", s.index+1, s.disk.fault(rng))
	case "misread":
		full := slices.DeleteFunc(slices.Clone(w.slots), func(s *slot) bool { return !s.sending() })
		if len(full) == 0 {
			break
		}
		w.ledger.misread = true
		pick(rng, full).disk.misread(1 + rng.IntN(2))
		for i := 0; i < 12 && !w.dead() && w.step(); i++ {
			w.tick()
		}
	case "full":
		s := pick(rng, w.slots)
		s.disk.setFull(rng.IntN(2) == 0)
		w.count.one(Full)
	case "copy":
		w.copyShard(rng.IntN(len(w.slots)), rng)
	case "restore":
		w.restore(rng.IntN(len(w.slots)), rng)
	}
	w.tallyOutboxes()
}

// sending tells whether an outbox of the shard has messages.
func (s *slot) sending() bool {
	return s.machine != nil && slices.ContainsFunc(s.machine.Infos(), func(i surgetank.QueueInfo) bool { return door.Hidden(i.Name) && !shards.Empty(&i) })
}

func (w *shardWorld) tallyOutboxes() {
	for _, s := range w.slots {
		if s.machine == nil {
			continue
		}
		for _, i := range s.machine.Infos() {
			if door.Hidden(i.Name) && i.Ready+i.Leased+i.Delayed >= i.Config.MaxMessages && !shards.Empty(&i) {
				w.count.one(OutboxesFull)
			}
		}
	}
}

// publish publishes a few messages in one call.
func (w *shardWorld) publish(rng *rand.Rand) {
	var all []*shardMessage
	for range 1 + rng.IntN(4) {
		from := w.names(false)
		n := 1
		if w.o.MultiTarget && rng.IntN(2) == 0 {
			n = 1 + rng.IntN(len(from))
		}
		rng.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
		w.serial++
		m := &shardMessage{queues: from[:n]}
		m.p = surgetank.Publishing{Queues: from[:n], Message: surgetank.Message{Body: fmt.Appendf(nil, "m%d", w.serial)}}
		switch rng.IntN(4) {
		case 0:
			m.p.Message.DedupID, m.again = fmt.Sprintf("id%d", w.serial), true
		case 1, 2:
			if w.o.Numbers {
				for len(w.publishers) < 2 {
					w.serial++
					w.publishers = append(w.publishers, &shardPublisher{id: fmt.Sprintf("publisher-of-the-simulator-%d", w.serial)})
				}
				pub := pick(rng, w.publishers)
				pub.next++
				m.p.Publisher, m.p.Sequence, m.again = pub.id, pub.next, true
			}
		}
		w.ledger.sending(m)
		all = append(all, m)
	}
	w.send(all)
}

// republish publishes some messages again that have a number or a dedup id.
func (w *shardWorld) republish(rng *rand.Rand) {
	var from, all []*shardMessage
	for _, m := range w.ledger.order {
		if m.again && !m.excused {
			from = append(from, m)
		}
	}
	for i := 0; i < 1+rng.IntN(3) && len(from) > 0; i++ {
		if m := from[max(0, len(from)-1-rng.IntN(20))]; !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	if len(all) > 0 {
		w.send(all)
	}
}

func (w *shardWorld) send(all []*shardMessage) {
	msgs := make([]surgetank.Publishing, len(all))
	several := false
	for i, m := range all {
		msgs[i] = m.p
		several = several || len(m.queues) > 1
	}
	if several {
		w.count.one(SplitPublishes)
	}
	process := w.process
	err := w.router.PublishAsync(background, msgs, func(r []surgetank.PublishResult, err error) {
		if process != w.process || w.dead() {
			return
		}
		for i, m := range all {
			if err != nil {
				continue
			}
			w.ledger.published(m, r[i])
			if w.count.one(Published); r[i].Err != nil && r[i].ID.Seq != 0 {
				w.count.one(SplitPublishesPartly)
			}
			if r[i].Duplicate {
				w.count.one(NumbersKnown)
			}
		}
	})
	if err != nil {
		w.tracef("publishing: %v", err)
	}
}

// receive leases messages of a queue.
func (w *shardWorld) receive(name string, most int, lease time.Duration) {
	process := w.process
	ds, err := w.router.Receive(background, name, surgetank.ReceiveOptions{Max: most, Lease: lease, MaxBytes: 1 << 30})
	if process != w.process || w.dead() {
		return
	}
	w.tracef("received %d messages of %s, %v", len(ds), name, err)
	for i := range ds {
		w.count.one(Delivered)
		if c := w.ledger.delivered(&ds[i]); c != nil {
			w.leased = append(w.leased, c)
		}
	}
}

// settle settles some of the received messages.
func (w *shardWorld) settle(rng *rand.Rand) {
	var cs []*shardCopy
	var items []surgetank.Settlement
	for range 1 + rng.IntN(4) {
		if len(w.leased) == 0 {
			break
		}
		i := rng.IntN(min(3, len(w.leased)))
		c := w.leased[i]
		w.leased = slices.Delete(w.leased, i, i+1)
		s := surgetank.Settlement{Receipt: c.receipt, Op: surgetank.Reject}
		switch n := rng.IntN(10); {
		case n < 3 || c.queue == "e" && n < 8:
			s.Op = surgetank.Ack
		case n == 8:
			s.Op, s.Delay = surgetank.Nack, time.Duration(rng.IntN(3000))*time.Millisecond
		case n == 9:
			continue // the lease ends by itself
		}
		cs, items = append(cs, c), append(items, s)
	}
	if len(items) > 0 {
		w.settleThese(cs, items)
	}
}

func (w *shardWorld) ackAll() {
	items := make([]surgetank.Settlement, len(w.leased))
	for i, c := range w.leased {
		items[i] = surgetank.Settlement{Receipt: c.receipt}
	}
	if len(items) > 0 {
		w.settleThese(w.leased, items)
	}
	w.leased = nil
}

func (w *shardWorld) settleThese(cs []*shardCopy, items []surgetank.Settlement) {
	ordinals := make([]int, len(cs))
	for i, c := range cs {
		ordinals[i] = w.ledger.settling(c, &items[i])
	}
	process := w.process
	err := w.router.SettleAsync(background, items, func(r []surgetank.SettleResult, err error) {
		if process != w.process || w.dead() {
			return
		}
		for i, c := range cs {
			one := err
			if err == nil {
				one = r[i]
			}
			if w.ledger.settled(c, &items[i], ordinals[i], one); one == nil && items[i].Op == surgetank.Ack {
				w.count.one(Acked)
			} else if one == nil && items[i].Op == surgetank.Reject {
				w.count.one(Rejected)
			}
		}
	})
	if err != nil {
		w.tracef("settling: %v", err)
	}
}

// look reads a queue's messages and checks their order.
func (w *shardWorld) look(name string) {
	process := w.process
	ds, err := w.router.Peek(background, name, surgetank.PeekOptions{Max: 100_000, MaxBytes: 1 << 30})
	if process != w.process || w.dead() || err != nil {
		return
	}
	w.count.one(Peeks)
	w.ledger.inOrder(name, ds)
}

// redrive moves dead letters, after a look at their order. Transfers go on meanwhile.
func (w *shardWorld) redrive(rng *rand.Rand) {
	from, process := pick(rng, w.names(true)), w.process
	opts := surgetank.RedriveOptions{Max: int64(rng.IntN(4))}
	if rng.IntN(2) == 0 {
		if opts.To = w.anyQueue(rng); opts.To == from {
			return
		}
	}
	ds, err := w.router.Peek(background, from, surgetank.PeekOptions{Max: 1000, MaxBytes: 1 << 30})
	if process != w.process || w.dead() || err != nil {
		return
	}
	w.ledger.redriving(ds, opts.To)
	w.redriving = true
	defer func() { w.redriving = false }()
	r, err := w.router.Redrive(background, from, opts)
	w.tracef("redrive from %s to %q: %+v, %v", from, opts.To, r, err)
	w.count.N[Redriven] += r.Moved
}

// deleteQueue deletes a queue of dead letters, and possibly creates it again elsewhere.
func (w *shardWorld) deleteQueue(name string, rng *rand.Rand) {
	w.ledger.excuse()
	n, err := w.router.DeleteQueue(background, name, surgetank.DeleteOptions{})
	w.tracef("delete %s: %d, %v", name, n, err)
	if err != nil || w.dead() {
		return
	}
	w.count.one(TargetsDeleted)
	if p := w.plan(name); !p.Made && rng.IntN(2) == 0 {
		c := p.Config
		c.Shard = 1 + rng.IntN(w.o.Shards)
		_, _, err := w.router.DeclareQueue(background, name, c, surgetank.DeclareIfAbsent)
		w.tracef("%s is created again in shard %d: %v", name, c.Shard, err)
	}
}

// copyShard copies the data of a shard while it is used.
func (w *shardWorld) copyShard(i int, rng *rand.Rand) {
	if w.slots[i].down {
		return
	}
	switch d := w.slots[i].disk.(type) {
	case *fileDisk:
		w.copies[i] = d.mem.CrashClone(rng, vfs.Crash{Percent: 100})
	case *memDisk:
		w.fromLog[i] = d.store.Copy()
	}
}

// restore ends the process and restores one shard from a copy. What was published before can be
// lost, or be there twice.
func (w *shardWorld) restore(i int, rng *rand.Rand) {
	if w.copies[i] == nil && w.fromLog[i] == nil {
		return
	}
	w.crashAll(rng, true)
	switch d := w.slots[i].disk.(type) {
	case *fileDisk:
		d.mem = w.copies[i].CrashClone(rng, vfs.Crash{Percent: 100})
		d.wrap()
	case *memDisk:
		d.store = w.fromLog[i].Copy()
	}
	w.tracef("shard %d is restored", i+1)
	w.count.one(ShardsRestored)
	w.ledger.rewound()
	w.publishers = nil
	w.openAll(rng)
}

// between is called between the second step of a transfer and its ack.
func (w *shardWorld) between(stored int) {
	if w.dead() && stored > 0 {
		w.count.one(TransfersCutBetween)
	}
}
