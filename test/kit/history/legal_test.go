package history

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// world simulates a faultless queue with a virtual clock and writes the history that its clients
// would see. Calls overlap, answers are lost, the server dies and restarts, and leases expire.
// Every such history is legal.
type world struct {
	rng     *rand.Rand
	now     time.Duration
	ops     []Op
	batch   int64
	nextID  [2]uint64 // last ids in the queue and in its dead-letter queue
	waiting [2][]*stored
	down    time.Duration
	receipt int
}

type stored struct {
	value, id, group, dedup string
	attempt                 int
	seen                    bool
}

const (
	mainQueue = "orders"
	deadQueue = "orders.dead"
	leaseTime = 500 * time.Millisecond
)

var settings = map[string]Settings{
	mainQueue: {GroupInFlight: 1, DeadLetter: deadQueue, Dedup: true},
	deadQueue: {},
}

// legal returns the history of n published values.
func legal(seed uint64, n int) *History {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), now: time.Second}
	seq := map[string]int{}
	for published := 0; published < n || len(w.waiting[0])+len(w.waiting[1]) > 0; {
		switch k := w.rng.IntN(20); {
		case k < 9 && published < n:
			p := fmt.Sprintf("p%d", w.rng.IntN(3))
			size := 1 + w.rng.IntN(3)
			values := make([]string, size)
			for i := range values {
				seq[p]++
				values[i] = Value(p, seq[p])
			}
			w.publish(values, fmt.Sprintf("g%d", w.rng.IntN(4)))
			published += size
		case k == 9:
			w.crash()
		default:
			w.consume(w.rng.IntN(4) / 3)
		}
	}
	for _, q := range []string{mainQueue, deadQueue} {
		w.add(Op{Kind: Count, Outcome: OK, Queue: q}, 0)
	}
	return &History{Ops: w.ops, Queues: settings, Drained: true}
}

// add records a call that took effect between now and now plus took.
func (w *world) add(op Op, took time.Duration) {
	op.Call = w.now - time.Duration(w.rng.Int64N(int64(3*time.Millisecond)))
	w.now += took
	op.Return = w.now + time.Duration(w.rng.Int64N(int64(3*time.Millisecond)))
	w.ops = append(w.ops, op)
}

func (w *world) tick() { w.now += time.Duration(1 + w.rng.Int64N(int64(4*time.Millisecond))) }

func (w *world) crash() {
	w.now += 10 * time.Millisecond // every earlier call has returned
	w.ops = append(w.ops, Op{Kind: Down, Outcome: OK, Call: w.now, Return: w.now + time.Millisecond},
		Op{Kind: Up, Outcome: OK, Call: w.now + 2*time.Millisecond, Return: w.now + 9*time.Millisecond})
	w.now += 20 * time.Millisecond
}

// publish stores a batch, sometimes after tries that were refused or whose answers were lost.
func (w *world) publish(values []string, group string) {
	var here []*stored
	keep := func() {
		for _, v := range values {
			w.nextID[0]++
			m := &stored{value: v, id: fmt.Sprintf("1-%d", w.nextID[0]), group: group, dedup: "d" + v}
			here = append(here, m)
			w.waiting[0] = append(w.waiting[0], m)
		}
	}
	outcome := func(o Outcome, dup bool) {
		w.batch++
		w.tick()
		call := w.now - time.Millisecond
		back := w.now + time.Millisecond
		for i, v := range values {
			op := Op{Kind: Publish, Outcome: o, Call: call, Return: back, Batch: w.batch, Index: i, Queue: mainQueue, Value: v, Group: group, Dedup: "d" + v}
			if o == OK {
				op.ID, op.Duplicate = here[i].id, dup
			}
			w.ops = append(w.ops, op)
		}
	}
	for w.rng.IntN(5) == 0 {
		outcome(Fail, false)
	}
	if w.rng.IntN(4) > 0 { // this call succeeds
		keep()
		outcome(OK, false)
		return
	}
	if w.rng.IntN(2) == 0 { // stored, but the answer was lost
		w.tick()
		keep()
		outcome(Info, false)
		if w.rng.IntN(4) > 0 {
			outcome(OK, true)
		}
		return
	}
	outcome(Info, false) // the request was lost
	if w.rng.IntN(4) > 0 {
		keep()
		outcome(OK, false)
	}
}

// consume leases and settles the first message whose group has no other lease. In this world one
// message is leased at a time.
func (w *world) consume(which int) {
	if len(w.waiting[which]) == 0 {
		return
	}
	queue := []string{mainQueue, deadQueue}[which]
	m := w.waiting[which][0]
	w.tick()
	if w.rng.IntN(12) == 0 { // leased in a lost answer, then expired
		w.add(Op{Kind: Receive, Outcome: Info, Queue: queue}, time.Millisecond)
		w.now += leaseTime
		m.attempt++
		m.seen = true
		return
	}
	w.receipt++
	r := fmt.Sprintf("r%d", w.receipt)
	op := Op{Queue: queue, Value: m.value, ID: m.id, Receipt: r, Group: m.group}
	d := op
	d.Kind, d.Outcome, d.Attempt, d.Again, d.Deadline = Deliver, OK, m.attempt+1, m.seen, w.now+leaseTime
	w.add(d, time.Millisecond)
	m.seen = true
	w.now += 5 * time.Millisecond
	settle := func(k Kind, o Outcome, code string) {
		op.Kind, op.Outcome, op.Code = k, o, code
		w.add(op, time.Millisecond)
		w.now += 5 * time.Millisecond
	}
	drop := func() { w.waiting[which] = w.waiting[which][1:] }
	switch k := w.rng.IntN(20); {
	case k < 11:
		settle(Ack, OK, "")
		drop()
	case k == 11: // acked, the answer was lost
		settle(Ack, Info, "")
		drop()
	case k == 12: // the ack never arrived
		settle(Ack, Info, "")
		m.attempt++
		w.now += leaseTime
	case k == 13:
		m.attempt++
		settle(Nack, OK, "")
	case k == 14 && which == 0:
		settle(Reject, OK, "")
		drop()
		w.nextID[1]++
		w.waiting[1] = append(w.waiting[1], &stored{value: m.value, id: fmt.Sprintf("2-%d", w.nextID[1]), group: m.group})
	case k == 15: // acked after the deadline
		w.now += leaseTime
		m.attempt++
		settle(Ack, Fail, CodeLeaseLost)
	case k == 16: // the server dies during the lease
		w.crash()
		settle(Ack, Fail, CodeLeaseLost)
	case k == 17: // extended, then acked after the first deadline
		w.now += leaseTime / 2
		op.Deadline = w.now + leaseTime
		settle(Extend, OK, "")
		op.Deadline = 0
		w.now += leaseTime * 3 / 4
		settle(Ack, OK, "")
		drop()
	default: // the message is not settled
		m.attempt++
		w.now += leaseTime
	}
}
