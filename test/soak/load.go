//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/histogram"
	"github.com/surgetank/surgetank/test/kit/ledger"
	"github.com/surgetank/surgetank/test/kit/load"
)

// The queues that live as long as the run. Their dead letters go to the queue of the same name with
// ".dead".
const (
	plain    = "plain"    // messages over AMQP without delays and groups
	grouped  = "grouped"  // messages in groups with one lease each at a time, with dedup ids
	mixed    = "mixed"    // delayed and retried messages, and dedup ids sent twice
	expiring = "expiring" // messages with a TTL, without consumers
)

var standing = map[string]string{
	plain:    `{"retry":{"max_attempts":60,"initial":"20ms","max":"200ms"},"lease":"5s"}`,
	grouped:  `{"group":{"max_in_flight":1},"dedup":{"window":"60s"},"retry":{"max_attempts":60,"initial":"20ms","max":"200ms"},"lease":"5s"}`,
	mixed:    `{"dedup":{"window":"60s"},"retry":{"max_attempts":60,"initial":"20ms","max":"200ms"},"lease":"5s"}`,
	expiring: `{"ttl":"3s"}`,
}

// retryFor is how long a publisher repeats unanswered messages. It is shorter than the queues'
// dedup window.
const retryFor = 45 * time.Second

// pacer divides a rate among the publishers of one kind. A publisher that was late can catch up at
// most a fifth of a second.
type pacer struct {
	share float64 // this kind's share of the load's rate
	mu    sync.Mutex
	rate  float64 // messages a second
	next  time.Time
}

func (p *pacer) set(rate float64) {
	p.mu.Lock()
	p.rate = rate * p.share
	p.mu.Unlock()
}

// take waits until n more messages may be sent. It returns false if stop was closed first.
func (p *pacer) take(stop <-chan struct{}, n int) bool {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now.Add(-200 * time.Millisecond)) {
		p.next = now.Add(-200 * time.Millisecond)
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / max(p.rate, 1) * float64(time.Second)))
	p.mu.Unlock()
	if wait <= 0 {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	return load.Sleep(stop, wait)
}

// clients are all clients of a run.
type clients struct {
	p   *process
	l   *ledger.Ledger
	rng func() *rand.Rand

	stop  chan struct{} // closed: publishers finish
	quit  chan struct{} // closed: consumers end
	drain atomic.Bool   // if true, consumers ack everything
	pubs  sync.WaitGroup
	cons  sync.WaitGroup

	pace    []*pacer
	confirm histogram.Shared // times from publish to confirm that no kill disturbed
	end2end histogram.Shared // times from publish to first delivery that no kill disturbed
	near    histogram.Shared // times from publish to confirm around kills and restarts

	connections, channels, consumers, queues, refusals atomic.Int64 // numbers of things opened, and of refused publishes, so far
	mu                                                 sync.Mutex
	errors                                             map[string]int // errors that clients got while the server was up
}

func newLoad(p *process, l *ledger.Ledger, seed uint64) *clients {
	var n atomic.Uint64
	return &clients{p: p, l: l, stop: make(chan struct{}), quit: make(chan struct{}), errors: map[string]int{},
		rng: func() *rand.Rand { return rand.New(rand.NewPCG(seed, n.Add(1))) }}
}

// start declares the queues and starts all clients, at a rate.
func (d *clients) start(ctx context.Context, rate float64) error {
	w := newWeb(d.p)
	defer w.Close()
	for q, settings := range standing {
		if err := w.Declare(ctx, q, settings); err != nil {
			return fmt.Errorf("declaring %s: %w", q, err)
		}
	}
	publishers := func(n int, share float64, f func(ctx context.Context, p *pacer)) {
		p := &pacer{share: share, rate: rate * share}
		d.pace = append(d.pace, p)
		for range n {
			d.pubs.Go(func() { f(ctx, p) })
		}
	}
	publishers(2, 0.40, d.publishPlain)
	publishers(2, 0.25, d.publishGroupedAMQP)
	publishers(2, 0.13, d.publishGroupedHTTP)
	publishers(2, 0.12, d.publishMixed)
	publishers(1, 0.02, d.publishExpiring)
	publishers(2, 0.08, d.churn)
	for range 2 {
		d.cons.Go(func() { d.consumeAMQP(ctx, plain) })
		d.cons.Go(func() { d.consumeAMQP(ctx, grouped) })
		d.cons.Go(func() { d.consumeHTTP(ctx, mixed, false) })
	}
	d.cons.Go(func() { d.consumeHTTP(ctx, grouped, false) })
	d.cons.Go(func() { d.consumeHTTP(ctx, plain, false) })
	for _, q := range []string{plain, grouped, mixed} {
		d.cons.Go(func() { d.consumeHTTP(ctx, q+".dead", true) })
	}
	return nil
}

// setRate changes the total rate of all publishers.
func (d *clients) setRate(rate float64) {
	for _, p := range d.pace {
		p.set(rate)
	}
}

// trouble records an error that a client got. A connection lost by a kill does not count.
func (d *clients) trouble(what string, err error) {
	if _, up := d.p.undisturbed(); !up || err == nil || err == client.ErrUnknown || err == client.ErrRefused {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := fmt.Sprintf("%s: %.160v", what, err); len(d.errors) < 30 || d.errors[k] > 0 {
		d.errors[k]++
	}
}

func (d *clients) troubles() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := map[string]int{}
	for k, n := range d.errors {
		m[k] = n
	}
	return m
}

// make prepares a message of a stream.
func (d *clients) make(s *ledger.Stream, rng *rand.Rand, m outgoing) outgoing {
	m.s = s
	m.h = ledger.Hold{Stream: s.ID, Seq: d.l.Next(s, m.Delay, m.TTL > 0), Published: d.l.Now()}
	m.Body = load.Body(m.h.Value(), 200, 1900)
	return m
}

// timeIt records how long a publish took. Publishes during which the server was not always up are
// recorded separately.
func (d *clients) timeIt(mark int64, quiet bool, took time.Duration) {
	if life, still := d.p.undisturbed(); quiet && still && life == mark {
		d.confirm.Add(took)
	} else {
		d.near.Add(took)
	}
}

// publishHTTP sends a batch until its outcome is known, and records the outcome. With dedup ids it
// can repeat the batch. Without dedup ids, or after retryFor, the outcome of unanswered messages
// stays unknown. It reports whether all messages were confirmed.
func (d *clients) publishHTTP(ctx context.Context, w *web, rng *rand.Rand, queue string, batch []outgoing) bool {
	began := time.Now()
	lost := false
	for {
		mark, quiet := d.p.undisturbed()
		call := time.Now()
		_, err := w.publish(ctx, queue, batch)
		if err == nil {
			took := time.Since(call)
			for i := range batch {
				d.l.Published(batch[i].s, batch[i].h.Seq, ledger.Confirmed)
				d.timeIt(mark, quiet, took)
			}
			return true
		}
		lost = lost || !errors.Is(err, client.ErrRefused)
		d.trouble("publish over HTTP", err)
		if errors.Is(err, client.ErrRefused) {
			d.refusals.Add(1)
		}
		if lost && batch[0].Dedup == "" || time.Since(began) > retryFor || ctx.Err() != nil {
			outcome := uint16(ledger.Refused)
			if lost {
				outcome = ledger.Maybe
			}
			for i := range batch {
				d.l.Published(batch[i].s, batch[i].h.Seq, outcome)
			}
			return false
		}
		if !load.Sleep(ctx.Done(), time.Duration(10+rng.IntN(60))*time.Millisecond) {
			continue // ctx has ended: record the batch as unanswered
		}
	}
}

// groupSet is the groups of one publisher. After some messages a new group replaces a group.
type groupSet struct {
	d      *clients
	rng    *rand.Rand
	queue  string
	groups []*ledger.Stream
	left   []int
	at     int
}

func newGroupSet(d *clients, rng *rand.Rand, queue string, n int) *groupSet {
	return &groupSet{d: d, rng: rng, queue: queue, groups: make([]*ledger.Stream, n), left: make([]int, n)}
}

// next returns the stream of the next group in turn.
func (g *groupSet) next() *ledger.Stream {
	g.at = (g.at + 1) % len(g.groups)
	if g.left[g.at] == 0 {
		if g.groups[g.at] != nil {
			g.d.l.Close(g.groups[g.at])
		}
		g.groups[g.at] = g.d.l.Stream(g.queue, true)
		g.left[g.at] = 20 + g.rng.IntN(60)
	}
	g.left[g.at]--
	return g.groups[g.at]
}

// renew ends all groups. It is called after an unknown outcome.
func (g *groupSet) renew() { clear(g.left) }

func (g *groupSet) close() {
	for _, s := range g.groups {
		if s != nil {
			g.d.l.Close(s)
		}
	}
}

// batch makes n messages of different groups.
func (g *groupSet) batch(n int) []outgoing {
	list := make([]outgoing, min(n, len(g.groups)))
	for i := range list {
		s := g.next()
		list[i] = g.d.make(s, g.rng, outgoing{Message: client.Message{Group: fmt.Sprintf("g%d", s.ID)}})
		list[i].Dedup = fmt.Sprintf("%d-%d", s.ID, list[i].h.Seq)
	}
	return list
}

func (d *clients) publishGroupedHTTP(ctx context.Context, p *pacer) {
	rng := d.rng()
	w := newWeb(d.p)
	defer w.Close()
	g := newGroupSet(d, rng, grouped, 64)
	defer g.close()
	for n := 1; p.take(d.stop, n); {
		n = 1 + rng.IntN(48)
		if !d.publishHTTP(ctx, w, rng, grouped, g.batch(n)) {
			g.renew()
		}
		if rng.IntN(200) == 0 {
			w.Close()
		}
	}
}

// publishMixed sends delayed messages, and sends some messages twice with the same dedup id.
func (d *clients) publishMixed(ctx context.Context, p *pacer) {
	rng := d.rng()
	w := newWeb(d.p)
	defer w.Close()
	s := d.l.Stream(mixed, false)
	defer func() { d.l.Close(s) }()
	for n, rounds := 1, 0; p.take(d.stop, n); rounds++ {
		if rounds%50 == 49 {
			d.l.Close(s)
			s = d.l.Stream(mixed, false)
		}
		n = 1 + rng.IntN(32)
		batch := make([]outgoing, n)
		for i := range batch {
			m := outgoing{}
			if rng.IntN(3) == 0 {
				m.Delay = time.Duration(50+rng.IntN(4000)) * time.Millisecond
			}
			m = d.make(s, rng, m)
			m.Dedup = fmt.Sprintf("%d-%d", s.ID, m.h.Seq)
			batch[i] = m
		}
		if d.publishHTTP(ctx, w, rng, mixed, batch) && rng.IntN(8) == 0 {
			switch k, err := w.publish(ctx, mixed, batch); {
			case err == nil && k != len(batch):
				d.l.Report("dedup: %d messages were sent twice with one dedup id each, and %d of the second were stored", len(batch), len(batch)-k)
			case err == nil:
				d.l.Duplicate(k)
			}
		}
	}
}

// publishExpiring publishes to a queue without consumers, so that the TTL must remove the messages.
func (d *clients) publishExpiring(ctx context.Context, p *pacer) {
	rng := d.rng()
	w := newWeb(d.p)
	defer w.Close()
	s := d.l.Stream(expiring, false)
	defer func() { d.l.Close(s) }()
	for n, rounds := 1, 0; p.take(d.stop, n); rounds++ {
		if rounds%50 == 49 {
			d.l.Close(s)
			s = d.l.Stream(expiring, false)
		}
		n = 1 + rng.IntN(16)
		batch := make([]outgoing, n)
		for i := range batch {
			batch[i] = d.make(s, rng, outgoing{Message: client.Message{TTL: time.Duration(200+rng.IntN(2000)) * time.Millisecond}})
		}
		d.publishHTTP(ctx, w, rng, expiring, batch)
	}
}

// consumeHTTP receives messages and settles them like real consumers.
func (d *clients) consumeHTTP(ctx context.Context, queue string, dead bool) {
	rng := d.rng()
	w := newWeb(d.p)
	defer w.Close()
	const lease = 5 * time.Second
	for {
		select {
		case <-d.quit:
			return
		default:
		}
		call := d.l.Now()
		got, a := w.Receive(ctx, queue, 1+rng.IntN(100), time.Second, lease)
		if err := a.Err(); err != nil {
			if !dead { // a dead-letter queue is created with its first message
				d.trouble("receive from "+queue, err)
			}
			if !load.Sleep(d.quit, time.Duration(20+rng.IntN(60))*time.Millisecond) {
				return
			}
			continue
		}
		var ack, back, later, reject []incoming
		for _, x := range got {
			h, ok := d.arrived(x.Body, queue)
			if !ok {
				continue
			}
			m := incoming{x.Receipt, h}
			if d.l.Delivered(h, call, dead) && queue == plain {
				d.reached(h)
			}
			switch k := rng.IntN(1000); {
			case k < 950 || dead || d.drain.Load():
				ack = append(ack, m)
			case k < 965:
				back = append(back, m)
			case k < 980:
				later = append(later, m)
			case k < 995:
				reject = append(reject, m)
			} // in all other cases the message is not settled: its lease ends
		}
		d.settle(ctx, w, "ack", queue, ack, "")
		d.settle(ctx, w, "nack", queue, back, `,"delay":"0s"`)
		d.settle(ctx, w, "nack", queue, later, `,"delay":"300ms"`)
		d.settle(ctx, w, "nack", queue, reject, `,"dead_letter":true,"reason":"no good"`)
		if rng.IntN(300) == 0 {
			w.Close()
		}
	}
}

// arrived reads a body from a queue.
func (d *clients) arrived(b []byte, queue string) (ledger.Hold, bool) {
	v, whole := load.ReadBody(b)
	h, ok := ledger.ParseValue(v)
	if ok = ok && whole; !ok {
		d.l.Report("damaged: a message of %s has other bytes than were published: %.80q", queue, b)
	}
	return h, ok
}

// reached records the time from a message's publish to its first delivery, for the plain queue
// only. In the other queues messages wait on purpose, for their delay or for an earlier message of
// their group.
func (d *clients) reached(h ledger.Hold) {
	if _, quiet := d.p.undisturbed(); quiet && h.Published > d.p.ready.Load()+int64(settled) {
		d.end2end.Add(time.Duration(d.l.Now() - h.Published))
	}
}

// settle acks or nacks over HTTP, and records the results.
func (d *clients) settle(ctx context.Context, w *web, verb, queue string, ms []incoming, members string) {
	if len(ms) == 0 {
		return
	}
	hs, receipts := make([]ledger.Hold, len(ms)), make([]string, len(ms))
	for i, m := range ms {
		hs[i], receipts[i] = m.h, m.receipt
	}
	reject := verb == "nack" && members != "" && members[2] == 'd' && len(members) > 20
	if verb == "ack" || reject {
		d.l.Settling(hs)
	}
	done, a := w.Settle(ctx, verb, queue, receipts, members)
	if err := a.Err(); err != nil {
		d.trouble(verb+" on "+queue, err)
		return
	}
	var good []ledger.Hold
	for i := range done {
		if done[i].Outcome == client.Done {
			good = append(good, hs[i])
		}
	}
	switch {
	case verb == "ack":
		d.l.Acked(good)
	case reject:
		d.l.DeadLettered(good)
	}
}
