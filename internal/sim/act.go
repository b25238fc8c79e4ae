package sim

import (
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank/internal/queue"
)

// kinds returns the actions that the options allow. A frequent action is listed several times.
func kinds(o *Options) (list []string) {
	if o.Shards > 1 {
		return shardKinds(o)
	}
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
	add(1, "breaker", o.Breakers)
	add(1, "report", o.Breakers)
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
	add(1, "far-jump", o.Jumps)
	add(1, "rot", o.Flips && o.Files)
	add(2, "scrub", o.Files)
	add(4, "receive-once", o.Receives)
	add(1, "pool", o.Pools)
	add(4, "numbered", o.Numbers)
	add(4, "numbered-again", o.Numbers)
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
	switch rng.IntN(12) {
	case 0, 1:
		return p.Dead()
	case 2:
		if p.Chain {
			return p.Last()
		}
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
				again := w.message(m.body, m.dedup, 0)
				again.Headers = m.headers
				w.publish(again, m.queues)
			}
		}
	case "numbered", "numbered-again":
		w.publishNumbered(kind == "numbered-again", rng)
	case "subscribe":
		w.subscribe(rng)
	case "receive-once":
		w.receiveOnce(rng)
	case "pool":
		w.send(&queue.PoolLimit{Pool: uint64(1 + rng.IntN(9)), Limit: rng.IntN(4)}, func(error) {})
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
		before := w.b.Now()
		w.count.Simulated += d
		if w.clock.Advance(d); w.b.Now().Sub(before) < d {
			w.ledger.violation("time goes on", "the clock went on by %v, and the broker's time by %v", d, w.b.Now().Sub(before))
		}
	case "info":
		c := &queue.Info{}
		w.send(c, func(err error) {
			if err == nil {
				w.ledger.counted(c.Infos)
			}
		})
	case "jump", "far-jump":
		w.jump(kind == "far-jump", rng)
	case "scrub":
		w.count.one(Scrubs)
		w.disk.scrub(1 + rng.IntN(12))
	case "rot":
		if w.run(); w.ledger.bad == "" && w.b.Err() == nil && !w.disk.crashed() && !w.faulted {
			w.prober.rot(rng)
		}
	case "crash", "kill":
		w.tracef("%s", kind)
		if kind == "kill" {
			w.count.one(Kills)
		} else {
			w.count.one(Crashes)
		}
		w.reopen(rng, kind == "kill")
	case "crash-in":
		w.disk.crashIn(1+rng.IntN(30), rand.New(rand.NewPCG(rng.Uint64(), 0)))
	case "fault":
		w.count.one(Faults)
		w.faulted = true
		w.tracef("fault: %s", w.disk.fault(rng))
	case "full":
		full := rng.IntN(2) == 0
		w.count.one(Full)
		w.faulted = true
		w.tracef("disk full: %v", full)
		w.disk.setFull(full)
	default:
		w.admin(kind, rng)
	}
}

// jump sets the clock. While the broker runs, a jump must have no effect: no lease, delay or TTL
// ends early or late. Only a new opening uses the clock's time, if the clock is ahead.
func (w *world) jump(far bool, rng *rand.Rand) {
	if w.run(); w.ledger.bad != "" || w.disk.crashed() || w.b.Err() != nil {
		return
	}
	w.count.one(Jumps)
	to := w.clock.Now().Add(-time.Duration(rng.IntN(3600)) * time.Second)
	restart := rng.IntN(3) == 0
	if far {
		w.count.one(FarJumps)
		to = time.Unix(int64(rng.IntN(1000)), 0)
		if restart = rng.IntN(2) == 0; restart && rng.IntN(2) == 0 {
			to = time.Unix(1<<31-10+int64(rng.IntN(20)), 0) // 2038
		}
	} else if restart {
		to = w.clock.Now().Add(time.Duration(rng.IntN(7200)-3600) * time.Second)
	}
	w.tracef("the clock jumps to %v, restart=%v", to.UTC(), restart)
	before := w.b.Now()
	w.clock.Set(to)
	if restart {
		w.reopen(rng, true)
		return
	}
	w.b.Tick()
	if now := w.b.Now(); !now.Equal(before) {
		w.ledger.violation("time goes on", "the clock was set to %v, and the broker's time went from %v to %v", to, before, now)
	}
}
