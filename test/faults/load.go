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

	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/load"
)

// The queues of every run: one keeps order in groups, and one delivers as fast as it can.
const (
	grouped = "grouped"
	plain   = "plain"
)

var queueSettings = map[string]string{
	grouped: `{"group":{"max_in_flight":1},"dedup":{"window":"30m"},"retry":{"max_attempts":12,"initial":"20ms","max":"100ms"},"lease":"1s"}`,
	plain:   `{"dedup":{"window":"30m"},"retry":{"max_attempts":12,"initial":"20ms","max":"100ms"},"lease":"1s"}`,
}

// checked has the settings of the queues for the checkers.
var checked = map[string]history.Settings{
	grouped: {GroupInFlight: 1, DeadLetter: grouped + ".dead", Dedup: true},
	plain:   {DeadLetter: plain + ".dead", Dedup: true},
}

// loadOptions configure a workload. The zero value, through withDefaults, is the usual one.
type loadOptions struct {
	publishers, consumers int
	batch                 int           // most messages of one publish
	size                  int           // most bytes of filling
	groups                int           // number of groups in the grouped queue
	pause                 time.Duration // longest pause of a publisher between batches
	limit                 int           // number of values a publisher sends; 0: until stopped
	lease                 time.Duration
	timeout               time.Duration
	honest                bool                    // consumers ack everything at once
	hold                  bool                    // consumers wait until release is closed
	poison                func(value string) bool // messages that no consumer can handle
	foreignClock          bool                    // the server has another clock
	amqp                  int                     // number of AMQP publishers and of AMQP consumers, besides those of HTTP
	heartbeat             time.Duration           // interval of AMQP heartbeats
}

func (o loadOptions) withDefaults() loadOptions {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.publishers, 4)
	def(&o.consumers, 4)
	def(&o.batch, 8)
	def(&o.size, 400)
	def(&o.groups, 12)
	if o.pause == 0 {
		o.pause = 4 * time.Millisecond
	}
	if o.lease == 0 {
		o.lease = time.Second
	}
	if o.timeout == 0 {
		o.timeout = 3 * time.Second
	}
	if o.heartbeat == 0 {
		o.heartbeat = 5 * time.Second
	}
	return o
}

// clients are all clients of a run.
type clients struct {
	loadOptions
	journal *history.Journal
	base    func() string // returns the address for publishing and consuming; called before every call
	door    func() string // returns the address of AMQP, host:port; set it before start if there are AMQP clients
	seed    uint64
	say     func(format string, args ...any)

	stop     chan struct{} // closed: publishers finish the current batch and end
	drain    atomic.Bool   // if true, consumers ack everything
	quit     chan struct{} // closed: consumers end
	release  chan struct{} // closed: consumers with hold begin
	once     sync.Once
	pubs     sync.WaitGroup
	cons     sync.WaitGroup
	deadline atomic.Int64 // publishers stop retrying at this time, since the journal's start

	confirmed atomic.Int64
	acked     atomic.Int64
	full      atomic.Int64 // publishes refused with full
	open      atomic.Int64 // values whose outcome never became known
	hopeless  atomic.Bool  // the drain is known not to end
}

func newLoad(o loadOptions, j *history.Journal, base func() string, seed uint64, say func(string, ...any)) *clients {
	l := &clients{loadOptions: o.withDefaults(), journal: j, base: base, seed: seed, say: say,
		stop: make(chan struct{}), quit: make(chan struct{}), release: make(chan struct{})}
	l.deadline.Store(int64(history.Never))
	if !l.hold {
		close(l.release)
	}
	return l
}

// start starts the clients.
func (l *clients) start(ctx context.Context) {
	for i := range l.publishers {
		l.pubs.Go(func() { l.publisher(ctx, i) })
	}
	for i := range l.consumers {
		queue := plain
		if i%2 == 0 {
			queue = grouped
		}
		l.cons.Go(func() { l.consumer(ctx, i, queue) })
	}
	for i := range l.amqp {
		l.pubs.Go(func() { l.amqpPublisher(ctx, i) })
		l.cons.Go(func() { l.amqpConsumer(ctx, i) })
	}
}

func (l *clients) rng(role, i int) *rand.Rand {
	return rand.New(rand.NewPCG(l.seed, uint64(role)<<32|uint64(i)))
}

func (l *clients) client(number int) *caller {
	c := newCaller(number, l.base, l.journal, l.timeout)
	c.foreign = l.foreignClock
	return c
}

// publisher sends values in batches, each until its outcome is known. If an outcome is unknown, a
// batch with dedup ids is sent again, and a batch without them stays unknown. Three of four
// publishers use dedup ids. Half of the publishers send to each queue.
func (l *clients) publisher(ctx context.Context, i int) {
	rng := l.rng(1, i)
	c := l.client(i + 1)
	defer c.Close()
	queue := grouped
	if i%2 == 1 {
		queue = plain
	}
	name := fmt.Sprintf("p%d", i)
	dedup := i%4 != 3
	var settled []outgoing // a few confirmed values, to be sent again on purpose
	for seq := 1; l.limit == 0 || seq <= l.limit; {
		select {
		case <-l.stop:
			return
		default:
		}
		batch := make([]outgoing, 1+rng.IntN(l.batch))
		for k := range batch {
			v := history.Value(name, seq)
			seq++
			batch[k] = outgoing{value: v}
			if dedup {
				batch[k].dedup = "id-" + v
			}
			if queue == grouped {
				batch[k].group = fmt.Sprintf("g%d", rng.IntN(l.groups))
			}
		}
		if dedup && len(settled) > 0 && rng.IntN(40) == 0 { // a stored value must be confirmed and not stored again
			c.publish(ctx, queue, settled[:1], l.size)
		}
		if l.deliver(ctx, c, rng, queue, batch, dedup) && dedup {
			settled = append([]outgoing{batch[0]}, settled[:min(len(settled), 20)]...)
		}
		if !load.Sleep(l.stop, time.Duration(rng.Int64N(int64(l.pause)))) {
			return
		}
	}
}

// deliver sends a batch until every value is confirmed or its outcome stays unknown. Retries keep
// the order inside a group, because nothing else is sent meanwhile.
func (l *clients) deliver(ctx context.Context, c *caller, rng *rand.Rand, queue string, batch []outgoing, dedup bool) bool {
	left := batch
	for try := 0; ; try++ {
		ops := c.publish(ctx, queue, left, l.size)
		var again []outgoing
		lost := false
		for k, op := range ops {
			switch op.Outcome {
			case history.OK:
				l.confirmed.Add(1)
			case history.Fail:
				again = append(again, left[k])
				if op.Code == "full" {
					l.full.Add(1)
				}
			case history.Info:
				if dedup {
					again = append(again, left[k])
				} else {
					lost = true
					l.open.Add(1)
				}
			}
		}
		if len(again) == 0 {
			return !lost
		}
		left = again
		if int64(l.journal.Now()) > l.deadline.Load() || ctx.Err() != nil {
			for range again {
				l.open.Add(1)
			}
			return false
		}
		// A stopped publisher also finishes its batch before the drain, so that the outcome is
		// known.
		if !load.Sleep(ctx.Done(), time.Duration(1+rng.IntN(min(10*(try+1), 100)))*time.Millisecond) {
			return false
		}
	}
}

// consumer receives messages and settles them like real consumers: mostly acks, sometimes nacks
// with or without delay, rejects, extends, or nothing.
func (l *clients) consumer(ctx context.Context, i int, queue string) {
	rng := l.rng(2, i)
	c := l.client(100 + i)
	defer c.Close()
	select {
	case <-l.release:
	case <-l.quit:
		return
	}
	for {
		select {
		case <-l.quit:
			return
		default:
		}
		most := 1 + rng.IntN(16)
		ds, answered := c.receive(ctx, queue, most, 100*time.Millisecond, l.lease)
		if !answered {
			if !load.Sleep(l.quit, time.Duration(5+rng.IntN(30))*time.Millisecond) {
				return
			}
			continue
		}
		if l.poison != nil {
			bad, good := split(ds, l.poison)
			if rng.IntN(2) == 0 { // in half of the cases the consumer dies: its lease must expire
				c.settle(ctx, history.Nack, queue, bad, `,"reason":"poison"`, 0)
			}
			ds = good
		}
		if l.honest || l.drain.Load() {
			l.count(c.settle(ctx, history.Ack, queue, ds, "", 0))
			continue
		}
		l.handle(ctx, c, rng, queue, ds)
	}
}

// split divides deliveries by a condition on their value.
func split(ds []history.Op, which func(string) bool) (yes, no []history.Op) {
	for _, d := range ds {
		if which(d.Value) {
			yes = append(yes, d)
		} else {
			no = append(no, d)
		}
	}
	return yes, no
}

func (l *clients) count(ops []history.Op) {
	for _, op := range ops {
		if op.Kind == history.Ack && op.Outcome == history.OK {
			l.acked.Add(1)
		}
	}
}

// handle settles each delivery in a random way. Deliveries that are settled in the same way share
// one call.
func (l *clients) handle(ctx context.Context, c *caller, rng *rand.Rand, queue string, ds []history.Op) {
	var ack, back, later, retry, reject, extend []history.Op
	for _, d := range ds {
		switch k := rng.IntN(100); {
		case k < 86:
			ack = append(ack, d)
		case k < 89:
			back = append(back, d)
		case k < 92:
			later = append(later, d)
		case k < 94:
			retry = append(retry, d)
		case k < 96:
			reject = append(reject, d)
		case k < 99:
			extend = append(extend, d)
		} // in all other cases the message is not settled: its lease must expire
	}
	l.count(c.settle(ctx, history.Ack, queue, ack, "", 0))
	if len(ack) > 0 && rng.IntN(20) == 0 { // a second settlement must fail, because the lease has ended
		c.settle(ctx, history.Nack, queue, ack[:1], `,"delay":"0s"`, 0)
	}
	c.settle(ctx, history.Nack, queue, back, `,"delay":"0s"`, 0)
	c.settle(ctx, history.Nack, queue, later, `,"delay":"40ms","reason":"later"`, 0)
	c.settle(ctx, history.Nack, queue, retry, "", 0)
	c.settle(ctx, history.Reject, queue, reject, `,"dead_letter":true,"reason":"no good"`, 0)
	if len(extend) > 0 {
		c.settle(ctx, history.Extend, queue, extend, fmt.Sprintf(`,"lease":%q`, l.lease), l.lease)
		l.count(c.settle(ctx, history.Ack, queue, extend, "", 0))
	}
}

// finish ends the run. Publishers stop, the queues and dead-letter queues are drained, and their
// remaining counts are recorded. It reports whether they are empty.
func (l *clients) finish(ctx context.Context, within time.Duration) (bool, error) {
	l.once.Do(func() { close(l.stop) })
	l.deadline.Store(int64(l.journal.Now() + within/2))
	select {
	case <-l.release:
	default:
		close(l.release)
	}
	l.pubs.Wait()
	l.drain.Store(true)
	defer func() {
		close(l.quit)
		l.cons.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c := l.client(99)
	defer c.Close()
	quiet := 0
	var last error
	for {
		total, err := l.sweepDead(ctx, c)
		last = err
		if err == nil && total == 0 {
			if quiet++; quiet == 2 {
				return true, l.recordCounts(ctx, c)
			}
		} else {
			quiet = 0
		}
		if l.hopeless.Load() || !load.Sleep(ctx.Done(), 25*time.Millisecond) {
			if last == nil {
				last = fmt.Errorf("%d messages are still in the queues", total)
			}
			return false, last
		}
	}
}

// sweepDead acks the messages in the dead-letter queues and returns how many are left in all
// queues.
func (l *clients) sweepDead(ctx context.Context, c *caller) (total int64, err error) {
	for _, name := range []string{grouped, plain} {
		for _, q := range []string{name, name + ".dead"} {
			s, err := c.Queue(ctx, q)
			if err != nil {
				return 0, err
			}
			if s == nil {
				continue
			}
			n := s.Messages()
			total += n + s.Damaged // damaged messages cannot be received, but they still exist
			if q != name && n > 0 {
				ds, _ := c.receive(ctx, q, 100, 0, l.lease)
				c.settle(ctx, history.Ack, q, ds, "", 0)
			}
		}
	}
	return total, nil
}

func (l *clients) recordCounts(ctx context.Context, c *caller) error {
	var problems []error
	for _, q := range []string{grouped, grouped + ".dead", plain, plain + ".dead"} {
		s, err := c.Queue(ctx, q)
		if err != nil {
			problems = append(problems, err)
		} else if s != nil {
			now := l.journal.Now()
			l.journal.Add(history.Op{Kind: history.Count, Outcome: history.OK, Call: now, Return: now, Queue: q, N: s.Messages()})
		}
	}
	return errors.Join(problems...)
}

// abandon ends the clients without a drain.
func (l *clients) abandon() {
	l.once.Do(func() { close(l.stop) })
	l.deadline.Store(0)
	l.pubs.Wait()
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.cons.Wait()
}
