// Package doortest has a small broker for the tests of sinks. A test controls its faults.
package doortest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Broker is an in-memory broker with one queue, for tests that must control its faults. It keeps
// the contract of door.Broker for the methods that sinks use. All other methods panic.
//
// Its durable state survives Restart; leases do not.
type Broker struct {
	door.Broker // nil: calling a method that is not here panics

	mu      sync.Mutex
	name    string
	queue   uint64
	epoch   uint64
	lease   uint64
	msgs    []*message // in order of Seq, from 1
	floor   uint64
	entry   uint64 // number of durable entries
	opens   []door.Opening
	spans   []door.Span
	meta    *MetaStore
	subs    map[*subscription]bool
	closed  bool
	dead    []Dead
	answers sync.WaitGroup
	ticks   int           // number of calls that settled something
	tick    chan struct{} // closed and replaced at each tick

	loseAck func() bool
	// GroupLimit is the group's max_in_flight; 0: no limit.
	GroupLimit int
}

// Dead is a message that was rejected.
type Dead struct {
	ID     surgetank.MessageID
	Reason string
}

type message struct {
	d       surgetank.Delivery
	lease   uint64
	holder  *subscription
	settled bool
	runs    int // number of deliveries
}

// ReportTarget does nothing, because this broker has no flow control.
func (b *Broker) ReportTarget(context.Context, string, door.TargetReport) error { return nil }

// NewBroker makes a broker with one empty queue.
func NewBroker(queue string) *Broker {
	b := &Broker{name: queue, queue: 1, floor: 1, meta: new(MetaStore), subs: map[*subscription]bool{}, tick: make(chan struct{})}
	b.opened(1)
	return b
}

// opened records an opening. Call with mu held.
func (b *Broker) opened(incarnation uint64) {
	b.epoch++
	b.entry++
	b.opens = append(b.opens, door.Opening{Incarnation: incarnation, First: b.entry})
	next := uint64(len(b.msgs)) + 1
	if n := len(b.spans); n > 0 && b.spans[n-1].First == next {
		b.spans = b.spans[: n-1 : n-1]
	}
	b.spans = append(b.spans[:len(b.spans):len(b.spans)], door.Span{Incarnation: incarnation, First: next})
}

// Copy returns a copy of the durable state, opened with a new incarnation, like a backup of the
// data directory. Messages published to the two brokers from then on have the same numbers and are
// different messages.
func (b *Broker) Copy(incarnation uint64) *Broker {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &Broker{name: b.name, queue: b.queue, epoch: b.epoch, lease: b.lease, floor: b.floor, entry: b.entry, dead: slices.Clone(b.dead),
		opens: slices.Clone(b.opens), spans: slices.Clone(b.spans), GroupLimit: b.GroupLimit,
		meta: b.meta.Clone(), subs: map[*subscription]bool{}, tick: make(chan struct{})}
	for _, m := range b.msgs {
		c.msgs = append(c.msgs, &message{d: m.d, settled: m.settled, runs: m.runs})
	}
	c.opened(incarnation)
	return c
}

// History returns the queue's history. See door.Broker.
func (b *Broker) History(_ context.Context, name string, count ...door.NumberRange) (door.History, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return door.History{}, errClosed()
	case name != b.name:
		return door.History{}, surgetank.Errorf(surgetank.CodeNotFound, "queue %s does not exist", name)
	}
	h := door.History{Queue: b.queue, Floor: b.floor, Next: uint64(len(b.msgs)) + 1, Entry: b.entry,
		Openings: slices.Clone(b.opens), Spans: slices.Clone(b.spans)}
	for _, r := range count {
		for n := r.First; n <= r.Last && n <= uint64(len(b.msgs)); n++ {
			if n > 0 && !b.msgs[n-1].settled {
				h.Counted++
			}
		}
	}
	return h, nil
}

// SetMetaLater stores a value. See door.Broker.
func (b *Broker) SetMetaLater(_, name string, value []byte) error {
	return b.SetMeta(context.Background(), door.MarksNamespace, name, value)
}

// SetLoseAck sets a function that is called for each ack and reject, with the broker's lock held.
// It returns whether the lease has just ended. nil: no lease ends.
func (b *Broker) SetLoseAck(f func() bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loseAck = f
}

// Await waits until this many more calls have settled something, or nothing is left to settle.
func (b *Broker) Await(ctx context.Context, calls int) error {
	b.mu.Lock()
	until := b.ticks + calls
	for {
		if b.ticks >= until || int(b.floor) > len(b.msgs) {
			b.mu.Unlock()
			return nil
		}
		tick := b.tick
		b.mu.Unlock()
		select {
		case <-tick:
		case <-ctx.Done():
			return ctx.Err()
		}
		b.mu.Lock()
	}
}

// Drained waits until every message is settled.
func (b *Broker) Drained(ctx context.Context) error { return b.Await(ctx, 1<<40) }

// Add publishes one message.
func (b *Broker) Add(m surgetank.Message) surgetank.MessageID {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := surgetank.MessageID{Queue: b.queue, Seq: uint64(len(b.msgs)) + 1}
	b.entry++
	b.msgs = append(b.msgs, &message{d: surgetank.Delivery{Message: m, ID: id, Queue: b.name, Time: time.Unix(1_700_000_000, 0).Add(time.Duration(id.Seq) * time.Millisecond)}})
	b.handOut()
	return id
}

// Restart ends every lease and subscription, as a crash does. After Kill it makes the broker's
// methods work again.
func (b *Broker) Restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(surgetank.CodeClosed)
	b.closed = false
	b.opened(b.opens[len(b.opens)-1].Incarnation + 1)
	for _, m := range b.msgs {
		m.lease, m.holder = 0, nil
	}
}

// Kill makes every call fail with CodeClosed, and drops all pending answers.
func (b *Broker) Kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.end(surgetank.CodeClosed)
}

// Remake deletes the queue with its messages and creates it again.
func (b *Broker) Remake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(surgetank.CodeNotFound)
	b.queue++
	b.entry++
	b.msgs, b.floor = nil, 1
	b.spans = []door.Span{{Incarnation: b.opens[len(b.opens)-1].Incarnation, First: 1}}
}

// LoseLeases ends all leases, as their deadline does, and delivers the messages again.
func (b *Broker) LoseLeases() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.msgs {
		m.lease, m.holder = 0, nil
	}
	b.handOut()
}

// Rewind makes the broker like one restored from an old copy: every message is unsettled.
func (b *Broker) Rewind() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.msgs {
		m.settled = false
	}
	b.floor = 1
}

// Open returns the number of unsettled messages.
func (b *Broker) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, m := range b.msgs {
		if !m.settled {
			n++
		}
	}
	return n
}

// Dead returns the rejected messages in order.
func (b *Broker) Dead() []Dead {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dead)
}

// Deliveries returns the total number of deliveries.
func (b *Broker) Deliveries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, m := range b.msgs {
		n += m.runs
	}
	return n
}

func (b *Broker) end(code surgetank.Code) {
	for s := range b.subs {
		s.finish(code)
	}
	clear(b.subs)
}

// handOut leases messages to subscriptions with credit. The oldest message comes first. A group's
// messages stay in order and are delivered to one subscription. Call with mu held.
func (b *Broker) handOut() {
	for s := range b.subs {
		if s.cancelled {
			continue
		}
		leased := map[string]int{}
		blocked := map[string]bool{}
		for _, m := range b.msgs {
			if m.holder != nil && !m.settled {
				leased[m.d.Group]++
				blocked[m.d.Group] = blocked[m.d.Group] || m.holder != s
			}
		}
		for _, m := range b.msgs {
			g := m.d.Group
			if m.settled || m.holder != nil || s.credit == 0 {
				continue
			}
			limit := max(b.GroupLimit, s.opts.GroupRun)
			if g != "" && (blocked[g] || b.GroupLimit > 0 && leased[g] >= limit) {
				blocked[g] = true
				continue
			}
			leased[g]++
			s.credit--
			b.lease++
			m.lease, m.holder = b.lease, s
			m.runs++
			m.d.Attempt, m.d.Redelivered = m.runs, m.runs > 1
			m.d.Receipt = surgetank.Receipt{ID: m.d.ID, Epoch: b.epoch, Lease: b.lease}
			s.ready = append(s.ready, m.d)
		}
		s.ring()
	}
}

func (b *Broker) settle(list []surgetank.Settlement) []surgetank.SettleResult {
	b.entry++
	results := make([]surgetank.SettleResult, len(list))
	for i, st := range list {
		var m *message
		if n := st.Receipt.ID.Seq; st.Receipt.ID.Queue == b.queue && n > 0 && n <= uint64(len(b.msgs)) {
			m = b.msgs[n-1]
		}
		if m != nil && st.Op != surgetank.Extend && b.loseAck != nil && b.loseAck() {
			m.lease, m.holder = 0, nil
		}
		if m == nil || m.settled || m.lease == 0 || m.lease != st.Receipt.Lease || st.Receipt.Epoch != b.epoch {
			results[i] = surgetank.Errorf(surgetank.CodeLeaseLost, "the lease has ended")
			continue
		}
		switch st.Op {
		case surgetank.Reject:
			b.dead = append(b.dead, Dead{m.d.ID, st.Reason})
			m.settled = true
		case surgetank.Ack:
			m.settled = true
		case surgetank.Extend:
			continue
		}
		m.lease, m.holder = 0, nil
	}
	for int(b.floor) <= len(b.msgs) && b.msgs[b.floor-1].settled {
		b.floor++
	}
	b.handOut()
	b.ticks++
	close(b.tick)
	b.tick = make(chan struct{})
	return results
}

func errClosed() error { return surgetank.Errorf(surgetank.CodeClosed, "the broker is closed") }

// Settle settles at once.
func (b *Broker) Settle(_ context.Context, list []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed()
	}
	return b.settle(list), nil
}

// SettleAsync settles at once and answers from a goroutine of its own; after Kill it answers with
// an error.
func (b *Broker) SettleAsync(ctx context.Context, list []surgetank.Settlement, done func([]surgetank.SettleResult, error)) error {
	results, err := b.Settle(ctx, list)
	if err != nil {
		return err
	}
	b.answers.Go(func() {
		b.mu.Lock()
		closed := b.closed
		b.mu.Unlock()
		if closed {
			done(nil, errClosed())
			return
		}
		done(results, nil)
	})
	return nil
}

// Queue returns the number and floor of the only queue.
func (b *Broker) Queue(_ context.Context, name string) (surgetank.QueueInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return surgetank.QueueInfo{}, errClosed()
	}
	if name != b.name {
		return surgetank.QueueInfo{}, surgetank.Errorf(surgetank.CodeNotFound, "queue %s does not exist", name)
	}
	waiting := int64(0)
	for _, m := range b.msgs {
		if !m.settled {
			waiting++
		}
	}
	info := surgetank.QueueInfo{Name: name, ID: b.queue, Ready: waiting}
	*door.QueueFloor(&info) = b.floor
	return info, nil
}

// The methods of door.Metadata keep values in memory.

func (b *Broker) SetMeta(ctx context.Context, namespace, name string, value []byte) error {
	_, err := b.SetMetaIf(ctx, namespace, name, value, door.AnyVersion)
	return err
}

func (b *Broker) SetMetaIf(ctx context.Context, namespace, name string, value []byte, expected uint64) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errClosed()
	}
	b.entry++
	return b.meta.SetMetaIf(ctx, namespace, name, value, expected)
}

func (b *Broker) Meta(ctx context.Context, namespace string) (door.MetaState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return door.MetaState{}, errClosed()
	}
	return b.meta.Meta(ctx, namespace)
}

func (b *Broker) WatchMeta(ctx context.Context, namespace string, feed *door.MetaFeed) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed()
	}
	return b.meta.WatchMeta(ctx, namespace, feed)
}

// Attach attaches a consumer.
func (b *Broker) Attach(_ context.Context, queue string, opts door.SubscribeOptions) (door.Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed()
	}
	if queue != b.name {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "queue %s does not exist", queue)
	}
	s := &subscription{b: b, opts: opts, credit: opts.Credit, bell: make(chan struct{}, 1), over: make(chan struct{})}
	b.subs[s] = true
	b.handOut()
	return s, nil
}

// Close ends the broker.
func (b *Broker) Close() error {
	b.Kill()
	b.answers.Wait()
	return nil
}

type subscription struct {
	b         *Broker
	opts      door.SubscribeOptions
	credit    int
	ready     []surgetank.Delivery
	bell      chan struct{}
	over      chan struct{}
	code      surgetank.Code
	cancelled bool
}

func (s *subscription) ring() {
	if len(s.ready) > 0 {
		select {
		case s.bell <- struct{}{}:
		default:
		}
	}
}

func (s *subscription) finish(code surgetank.Code) {
	if s.code == "" {
		s.code = code
		s.ready = nil
		close(s.over)
	}
}

func (s *subscription) Receive(ctx context.Context, buf []surgetank.Delivery, most, maxBytes int) ([]surgetank.Delivery, error) {
	for {
		got, err := s.TryReceive(buf, most, maxBytes)
		if err != nil || len(got) > len(buf) {
			return got, err
		}
		select {
		case <-s.bell:
		case <-s.over:
		case <-ctx.Done():
			return buf, surgetank.Errorf(surgetank.CodeUncertain, "%w", ctx.Err())
		}
	}
}

func (s *subscription) TryReceive(buf []surgetank.Delivery, most, maxBytes int) ([]surgetank.Delivery, error) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.code != "" {
		return buf, surgetank.Errorf(s.code, "the subscription ended")
	}
	for n := 0; n < most && len(s.ready) > 0 && (n == 0 || maxBytes > 0); n++ {
		maxBytes -= len(s.ready[0].Body)
		buf = append(buf, s.ready[0])
		s.ready = s.ready[1:]
	}
	s.ring()
	return buf, nil
}

func (s *subscription) Ready() <-chan struct{} { return s.bell }
func (s *subscription) SetPoolLimit(int)       {}

func (s *subscription) AddCredit(n int) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.credit += n
	s.b.handOut()
}

func (s *subscription) Floor() (seq, entry uint64) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.b.floor, s.b.entry
}

func (s *subscription) Cancel() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.cancelled = true
	for _, d := range s.ready {
		if m := s.b.msgs[d.ID.Seq-1]; m.d.ID == d.ID && m.holder == s && m.lease == d.Receipt.Lease {
			m.lease, m.holder = 0, nil
		}
	}
	s.finish(surgetank.CodeClosed)
	return nil
}

func (s *subscription) Close() error {
	_ = s.Cancel()
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	delete(s.b.subs, s)
	for _, m := range s.b.msgs {
		if m.holder == s {
			m.lease, m.holder = 0, nil
		}
	}
	s.b.handOut()
	return nil
}
