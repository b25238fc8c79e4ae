package model

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/breaker"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/settings"
)

// maxDeaths is how many events of a dead-letter history are kept.
const maxDeaths = 16

// Model is all queues of one broker. Only one goroutine uses a Model. Tests read its fields to
// compare them; only its methods change the fields.
type Model struct {
	Now    int64
	Queues map[string]*Queue
	Outs   []Out    // hand-outs since the caller last emptied it
	Ended  []uint64 // consumers that the model ended since the caller last emptied it
	Full   bool     // the disk has no room for messages

	RetryReserve int // retries that a queue with a retry budget may make at any time

	// Publishers contains each publisher with its confirmed numbers.
	Publishers map[string]*Publisher
	// Metas contains the values of doors and sinks.
	Metas Metas

	order      []string // queues to serve at the end of the turn, the oldest first
	made       int      // number of queues ever created
	once       []*Consumer
	pools      map[uint64]int // the limit of each pool, by the pool's id
	groupNames []string       // groups that breakers know, in the order of their first failure
	TurnNo     uint64         // number of the machine's turn, for Released

	turns  int // number of attaches, and of hand-outs to members of pools
	leases uint64
	rested bool // the broker stopped cleanly and was not opened again yet
}

// accepted is one publish that a queue with accept.rate stored, and the rate at that time.
type accepted struct {
	at   int64
	rate surgetank.Rate
}

// Queue is one queue.
type Queue struct {
	Name   string
	Config surgetank.QueueConfig

	m         *Model
	made      int // value of Model.made at its creation
	next      uint64
	msgs      []*Message // by seq
	ids       map[string]knownID
	groups    map[string]*flow
	consumers []*Consumer
	line      []*Consumer // consumers with credit, next first; one without credit leaves when its turn comes
	tat       int64
	accepted  []accepted // all publishes since the opening, with accept.rate
	order
	budget  account
	Control *Control
	member  uint64
	fresh   uint64 // lower messages existed before the broker opened

	pausedBy string // who paused the queue, and when; no meaning without a pause
	pausedAt int64
}

type knownID struct {
	seq   uint64
	until int64
}

type flow struct {
	tat    int64
	holder uint64 // the consumer that has all leases; 0: several consumers have leases
	turns
}

// Message is one message of a queue.
type Message struct {
	seq          uint64
	group        string
	priority     uint8
	size         int64
	state        surgetank.State // StateReady for all messages in line
	notBefore    int64
	backsOff     bool   // until notBefore, and until the budget allows the retry
	since        int64  // when it was confirmed or, if later, when its publisher's delay ends
	failure      string // why it was returned last; "" if not known
	expires      int64
	attempts     int
	again        bool
	from, reason string
	deaths       int
	deadline     int64
	consumer     *Consumer
	lapsed       bool     // the message expired and still exists
	fullUntil    int64    // when to move it to its dead-letter queue again, which was full
	trail        []string // queues that gave it up by themselves since the last reject, failed last attempt or redrive
	suspect      bool     // the message cannot be read and is in line
	retry        int64    // when to read a damaged message again; 0: never
	suspectUntil int64    // the value of retry for a suspect message, when its state becomes damaged
	lease        uint64   // number of the hand-out, counted by the model
	handed       int64    // when the message was leased
	released     int64    // when the hand-out left the broker; 0: not known
	turn         uint64   // number of the turn that handed the message out
	parking      bool     // the message is parked when its back-off ends
	backlog      bool     // the message has no group and is in the line for messages that are not fresh
	chain        chained
}

// Consumer is a subscription: credit on a queue.
type Consumer struct {
	id              uint64
	q               *Queue
	opts            door.SubscribeOptions
	credit, held    int
	got             int
	turn            int // order in its pool: the member with the lowest turn is served first
	once, now, stop bool
	gone            bool
}

// Out is a hand-out with the fields that tests compare with the machine's.
type Out struct {
	Queue       string
	Consumer    uint64
	Seq         uint64
	Group       string
	Attempt     int
	Redelivered bool
	Leased      bool
	Deadline    int64
	Deaths      int
}

// New returns a model without queues.
func New() *Model {
	return &Model{RetryReserve: 10, Queues: map[string]*Queue{}, Publishers: map[string]*Publisher{}, Metas: Metas{Values: map[MetaKey]MetaValue{}}, pools: map[uint64]int{}}
}

// Names returns the sorted names of the queues.
func (m *Model) Names() []string { return slices.Sorted(maps.Keys(m.Queues)) }

// Turn handles all timers that are due by now, calls f, and then hands out messages.
func (m *Model) Turn(now int64, f func()) {
	m.Now = max(m.Now, now)
	names := m.Names() // the oldest queue first: two queues can give up messages to the same queue at one time
	slices.SortFunc(names, func(a, b string) int { return m.Queues[a].made - m.Queues[b].made })
	for _, name := range names {
		m.Queues[name].due()
	}
	if f != nil {
		f()
	}
	for _, name := range m.Names() { // also queues without a command: a message can be ready because time has passed
		m.mark(m.Queues[name])
	}
	for looks, outs := 0, len(m.Outs); len(m.order) > 0; looks++ {
		if len(m.Outs) != outs {
			looks, outs = 0, len(m.Outs)
		} else if looks > maxLooks {
			panic(fmt.Sprintf("the model does not come to rest: it looked %d times at queues without a hand-out, and would look at %v again", looks, m.order))
		}
		m.order = slices.DeleteFunc(m.order, func(name string) bool { return m.Queues[name] == nil })
		if len(m.order) == 0 {
			break
		}
		name := slices.MinFunc(m.order, func(a, b string) int { return m.Queues[a].made - m.Queues[b].made })
		m.order = slices.DeleteFunc(m.order, func(o string) bool { return o == name })
		m.Queues[name].dispatch()
		m.Queues[name].enforce()
	}
	for _, c := range m.once {
		if c.now || c.got > 0 {
			m.end(c)
		}
	}
	m.once = slices.DeleteFunc(m.once, func(c *Consumer) bool { return c.gone })
}

// maxLooks is how many looks at queues without a hand-out a turn may need.
const maxLooks = 10_000

func (m *Model) mark(q *Queue) {
	if !slices.Contains(m.order, q.Name) {
		m.order = append(m.order, q.Name)
		m.markGivers(q)
	}
}

// markGivers marks the queues that can be waiting for room in q, their dead-letter queue.
func (m *Model) markGivers(q *Queue) {
	for _, name := range m.Names() {
		if g := m.Queues[name]; g != q && g.deadLetter() == q.Name {
			m.mark(g)
		}
	}
}

func (m *Model) end(c *Consumer) {
	if !c.gone {
		m.unlist(c)
		m.Ended = append(m.Ended, c.id)
	}
}

func (m *Model) unlist(c *Consumer) {
	c.gone = true
	c.q.consumers = slices.DeleteFunc(c.q.consumers, func(o *Consumer) bool { return o == c })
	c.q.line = slices.DeleteFunc(c.q.line, func(o *Consumer) bool { return o == c })
	c.q.cameOrLeft(c)
	for _, o := range c.q.consumers {
		c.q.offer(o)
	}
	m.forgetPool(c.opts.Pool)
}

// due handles the events whose time has come, each kind in the order of the times: first the ends
// of leases and the next reads of damaged messages, then ends of delays, then TTLs.
func (q *Queue) due() {
	now := q.m.Now
	if until := q.Config.PausedUntil; q.Config.Paused && !until.IsZero() && until.UnixNano() <= now {
		q.m.Pause(q, false, 0, "")
	}
	if c := q.Control; c != nil && c.members()[0] == q {
		c.tick()
	}
	q.age()
	for _, x := range q.at(func(x *Message) int64 {
		switch x.state {
		case surgetank.StateLeased:
			return x.deadline
		case surgetank.StateDamaged:
			return x.retry
		}
		return 0
	}) {
		if x.state == surgetank.StateDamaged {
			q.retry(x)
		} else {
			q.giveUp(x, -1, true, "the lease ended without an ack", End{outcome: breaker.Timeout})
		}
	}
	for _, x := range q.at(func(x *Message) int64 {
		if x.state == surgetank.StateDelayed && !x.backsOff {
			return x.notBefore
		}
		return 0
	}) {
		q.place(x, 0)
	}
	q.endBackOffs()
	for _, x := range q.at(func(x *Message) int64 {
		if x.expires == 0 {
			return 0
		}
		return max(x.expires, x.fullUntil)
	}) {
		if x.lapsed = true; x.inLine() && !q.expire(x) {
			x.fullUntil = now + int64(time.Second)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(q.groups)) {
		q.tidy(key)
	}
}

// at returns the messages whose time has come, in the order of the times. The time 0 means never.
func (q *Queue) at(when func(*Message) int64) (due []*Message) {
	for _, x := range q.msgs {
		if at := when(x); at != 0 && at <= q.m.Now {
			due = append(due, x)
		}
	}
	slices.SortStableFunc(due, func(a, b *Message) int { return cmp.Compare(when(a), when(b)) })
	return due
}

// plainLine is the line of messages without group and priority. It always exists.
const plainLine = "\x000"

// key returns the name of the line that a message belongs to.
func (x *Message) key() string {
	if x.group != "" {
		return x.group
	}
	if x.backlog {
		return fmt.Sprintf("\x00%db", x.priority)
	}
	return fmt.Sprintf("\x00%d", x.priority)
}

func (q *Queue) group(key string) *flow {
	g := q.groups[key]
	if g == nil {
		g = &flow{}
		q.groups[key] = g
	}
	return g
}

func (q *Queue) Find(seq uint64) *Message {
	for _, x := range q.msgs {
		if x.seq == seq {
			return x
		}
	}
	return nil
}

func (q *Queue) count(state surgetank.State, key string) (n int) {
	for _, x := range q.msgs {
		if x.state == state && (key == "" || x.key() == key) {
			n++
		}
	}
	return n
}

// inLine tells whether a message is ready, blocked or delayed, thus neither leased nor damaged.
func (x *Message) inLine() bool {
	return x.state == surgetank.StateReady || x.state == surgetank.StateDelayed
}

// inFlight returns how many messages count for a group's max_in_flight.
func (q *Queue) inFlight(key string) int {
	return q.count(surgetank.StateLeased, key) + q.count(surgetank.StateDamaged, key)
}

func (q *Queue) over(messages int, bytes int64) bool {
	waiting := 0
	for _, x := range q.msgs {
		if x.inLine() {
			waiting++
			bytes += x.size
		}
	}
	return q.Config.MaxMessages > 0 && int64(waiting+messages) > q.Config.MaxMessages || q.Config.MaxBytes > 0 && bytes > q.Config.MaxBytes
}

// place puts a message in line, or among the delayed messages until its time.
func (q *Queue) place(x *Message, notBefore int64) {
	q.reline(x)
	x.state, x.notBefore, x.backsOff = surgetank.StateReady, notBefore, notBefore > q.m.Now && x.again
	if q.stuck(x) {
		x.notBefore, x.backsOff = 0, false
	} else if strict := q.Config.Group.MaxInFlight == 1 && x.group != ""; notBefore > q.m.Now && !(strict && x.again) && !x.collects(q.m.Now) {
		x.state = surgetank.StateDelayed
	}
	q.m.mark(q)
}

func (q *Queue) add(x *Message, notBefore int64) {
	x.seq = q.next
	q.next++
	x.since = max(q.m.Now, notBefore)
	q.group(x.key())
	q.msgs = append(q.msgs, x)
	q.place(x, notBefore)
}

func (q *Queue) remove(x *Message) {
	next := q.behind(x)
	defer func() { q.unstick(next) }()
	q.msgs = slices.DeleteFunc(q.msgs, func(o *Message) bool { return o == x })
	q.tidy(x.key())
	q.m.mark(q)
}

// front returns the first message of a line.
func (q *Queue) front(key string) *Message {
	for _, x := range q.msgs {
		if x.state == surgetank.StateReady && x.key() == key && !q.stuck(x) {
			return x
		}
	}
	return nil
}

func (q *Queue) mayGo() bool {
	l := q.Config.Level
	return !q.Config.Paused && !(l.MaxInFlight > 0 && q.count(surgetank.StateLeased, "") >= l.MaxInFlight) &&
		!(l.Rate > 0 && due(q.tat, l.Rate, l.Burst) > q.m.Now) && !q.full()
}

// waitsForRate tells whether only the queue's rate stops hand-outs.
func (q *Queue) waitsForRate() bool {
	l := q.Config.Level
	return !q.Config.Paused && !q.shut() && l.Rate > 0 && due(q.tat, l.Rate, l.Burst) > q.m.Now && !(l.MaxInFlight > 0 && q.count(surgetank.StateLeased, "") >= l.MaxInFlight)
}

// waitsForLevel tells whether only the adaptive limit of the target stops hand-outs.
func (q *Queue) waitsForLevel() bool {
	l := q.Config.Level
	return !q.Config.Paused && !q.shut() && !(l.MaxInFlight > 0 && q.count(surgetank.StateLeased, "") >= l.MaxInFlight) && !(l.Rate > 0 && due(q.tat, l.Rate, l.Burst) > q.m.Now) && q.full()
}

func (q *Queue) groupMayGo(key string) bool {
	x, g := q.front(key), q.Config.Group
	switch {
	case x == nil:
		return false
	case x.group == "":
		return true
	case g.MaxInFlight > 0 && q.inFlight(key) >= q.groupLimit(key), q.ahead(x) != nil:
		return false
	}
	return !x.backsOff && x.notBefore <= q.m.Now && !(g.Rate > 0 && due(q.group(key).tat, g.Rate, 1) > q.m.Now)
}

// groupLimit returns how many messages of a group may be leased at one time. If all leases since
// the group was last idle belong to one consumer, and that consumer is the queue's only one, the
// limit is a whole run.
func (q *Queue) groupLimit(key string) int {
	limit := q.Config.Group.MaxInFlight
	if len(q.consumers) == 1 {
		if c := q.consumers[0]; q.inFlight(key) == 0 || q.group(key).holder == c.id {
			limit = max(limit, c.opts.GroupRun)
		}
	}
	return limit
}

// willing tells whether the consumer wants a message.
func (c *Consumer) willing() bool { return c.credit > 0 && !c.stop }

func (c *Consumer) active() bool {
	if c.opts.Single {
		for _, o := range c.q.consumers {
			if o.opts.Single {
				return o == c
			}
		}
	}
	return true
}

func (q *Queue) offer(c *Consumer) {
	if c.gone || slices.Contains(q.line, c) || !c.willing() || !c.active() {
		return
	}
	i := len(q.line)
	for i > 0 && q.line[i-1].opts.Priority < c.opts.Priority {
		i--
	}
	q.line = slices.Insert(q.line, i, c)
	q.m.mark(q)
}

func (q *Queue) nextConsumer() *Consumer {
	for i := 0; i < len(q.line); {
		switch c := q.line[i]; {
		case c.kept(): // its pool is at its limit; the consumer keeps its position in line
			i++
		case c.willing() && c.active():
			return c
		default:
			q.line = slices.Delete(q.line, i, i+1)
		}
	}
	return nil
}

func (q *Queue) dispatch() {
	if c := q.Control; c != nil {
		defer c.wakeGated()
	}
	q.settle()
	for {
		if !q.any() {
			q.dropEmpty()
			return
		}
		if q.waitsForLevel() {
			q.gate()
		}
		if !q.mayGo() && !q.waitsForRate() {
			return // a consumer leaves the line only when there is a message to hand out
		}
		if q.mayGo() {
			if o := q.gatedFirst(); o != q {
				o.serve(o.nextConsumer())
				q.m.mark(o)
				q.settle()
				continue
			}
		}
		c := q.nextConsumer()
		if c == nil || !q.mayGo() {
			return
		}
		if q.m.pools[c.opts.Pool] > 0 {
			c = q.m.turnOf(c)
		}
		c.q.serve(c)
		c.q.endBackOffs() // if the message was a first attempt, it pays for a retry
		q.settle()
		if c.q != q {
			q.m.mark(c.q)
		}
	}
}

// serve hands the queue's next message to c, the first consumer in line.
func (q *Queue) serve(c *Consumer) {
	q.settle()
	x := q.probe(q.front(q.nextGroup()))
	if x.suspect && (x.suspectUntil == 0 || x.suspectUntil > q.m.Now) {
		q.hold(x, x.suspectUntil)
		return
	}
	x.suspect = false
	q.handOut(c, x)
	q.line = slices.DeleteFunc(q.line, func(o *Consumer) bool { return o == c })
	if c.willing() {
		i := 0
		for i < len(q.line) && q.line[i].opts.Priority >= c.opts.Priority {
			i++
		}
		q.line = slices.Insert(q.line, i, c)
	}
	if q.m.pools[c.opts.Pool] > 0 {
		q.m.turns++
		c.turn = q.m.turns
	}
}

func (q *Queue) handOut(c *Consumer, x *Message) {
	now := q.m.Now
	g := q.group(x.key())
	q.m.markGivers(q)
	q.turnTaken(x.key())
	if q.inFlight(x.key()) == 0 {
		g.holder = c.id
	} else if g.holder != c.id {
		g.holder = 0
	}
	spend(&q.tat, q.Config.Level.Rate, now)
	spend(&g.tat, q.Config.Group.Rate, now)
	if x.attempts == 0 && !x.again {
		q.payIn()
	}
	c.credit--
	c.got++
	out := Out{Queue: q.Name, Consumer: c.id, Seq: x.seq, Group: x.group, Attempt: x.attempts + 1,
		Redelivered: x.again || x.seq < q.fresh, Leased: !c.opts.NoAck, Deaths: x.deaths}
	if c.opts.NoAck {
		q.handed(x, true)
		if !c.opts.ManualCredit {
			c.credit++
		}
		q.remove(x)
	} else {
		q.m.leases++
		x.state, x.consumer, x.notBefore, x.lease = surgetank.StateLeased, c, 0, q.m.leases
		x.deadline = 0
		if lease := cmp.Or(c.opts.Lease, q.Config.Lease); lease > 0 {
			x.deadline = now + int64(lease)
		}
		out.Deadline = x.deadline
		x.handed, x.released, x.turn = now, 0, q.m.TurnNo
		q.handed(x, false)
		c.held++
	}
	q.m.Outs = append(q.m.Outs, out)
}

// unlease ends a lease and adds its credit to the consumer again. It returns whether this failure
// costs no attempt, and earlier failures whose attempts are uncounted now.
func (q *Queue) unlease(x *Message, end End) (uncounted bool, refunds []breaker.Failure) {
	c := x.consumer
	x.state, x.consumer, x.deadline = surgetank.StateReady, nil, 0
	uncounted, refunds = q.answered(x, c.opts.OwnLevel, end)
	c.held--
	if c.opts.Pool != 0 { // the other members of the consumer's pool are served first
		for _, o := range q.m.members(c.opts.Pool) {
			q.m.mark(o.q)
		}
		q.m.forgetPool(c.opts.Pool)
	}
	if !c.opts.ManualCredit && !c.gone {
		c.credit++
		c.q.offer(c)
	}
	q.m.mark(q)
	return uncounted, refunds
}

func (q *Queue) giveUp(x *Message, delay time.Duration, counted bool, why string, end End) {
	uncounted, refunds := q.unlease(x, end)
	if c := q.Control; c != nil {
		defer func() { c.refund(refunds) }()
	}
	if q.superseded(x) {
		return
	}
	if uncounted {
		counted, delay = false, max(0, delay)
	}
	if counted {
		x.attempts++
		if r := q.schedule(why); x.attempts >= r.MaxAttempts && r.MaxAttempts > 0 {
			if c := q.Control; c != nil && c.Breaker != nil && !x.lapsed {
				if wait := c.Breaker.ParkDelay(q.m.Now); wait > 0 {
					x.again, x.failure, x.parking = true, why, true
					q.place(x, q.m.Now+wait)
					return
				}
			}
			if !q.sendToDeadLetter(x, surgetank.ReasonAttempts) {
				q.putBack(x)
			}
			return
		}
	}
	if x.lapsed {
		if !q.expire(x) {
			q.putBack(x)
		}
		return
	}
	x.again = true
	if why != "" || counted {
		x.failure = why
	}
	if delay < 0 {
		delay = q.backoff(x, why)
	}
	switch {
	case delay > 0:
		q.place(x, q.m.Now+int64(delay))
	case counted && !q.payRetry():
		q.place(x, q.m.Now+1)
	default:
		q.place(x, 0)
	}
}

func (q *Queue) backoff(x *Message, why string) time.Duration {
	r := q.schedule(why)
	if r.Initial <= 0 {
		return 0
	}
	return time.Duration(min(float64(r.Initial)*math.Pow(r.Factor, float64(max(1, x.attempts)-1)), float64(r.Max)))
}

// putBack returns a message to its line because its dead-letter queue is full.
func (q *Queue) putBack(x *Message) {
	x.again, x.failure = true, "it was given up, and its dead-letter queue had no room"
	if x.lapsed {
		x.fullUntil = q.m.Now + int64(time.Second)
	}
	q.place(x, q.m.Now+int64(max(q.backoff(x, "it was given up, and its dead-letter queue had no room"), time.Second)))
}

// expire gives up an expired message. It returns false if the dead-letter queue is full.
func (q *Queue) expire(x *Message) bool {
	if d := q.Config.DeadLetter; d == "" || d == surgetank.DeadLetterDrop {
		q.remove(x)
		return true
	}
	return q.sendToDeadLetter(x, surgetank.ReasonExpired)
}

// fits tells whether the queue has room for a message of this size. It first serves a waiting
// consumer, because a hand-out can make room.
func (q *Queue) fits(size int64) bool {
	if q.over(1, size) {
		q.dispatch()
	}
	return !q.over(1, size)
}

func (q *Queue) takes(size int64) bool {
	return q.Config.Overflow != surgetank.OverflowReject || q.fits(size)
}

func (q *Queue) deadLetter() string {
	if q.Config.DeadLetter != "" {
		return q.Config.DeadLetter
	}
	if n := len(q.Name) - len(".dead"); n >= 0 && q.Name[n:] == ".dead" {
		return q.Name
	}
	return q.Name + ".dead"
}

func (q *Queue) sendToDeadLetter(x *Message, why string) bool {
	to := q.deadLetter()
	if to == surgetank.DeadLetterDrop {
		q.remove(x)
		return true
	}
	itself := why == surgetank.ReasonExpired || why == surgetank.ReasonOverflow
	if itself && to != q.Name && slices.Contains(x.trail, to) {
		q.remove(x)
		return true
	}
	if d := q.m.Queues[to]; d != nil && d != q && !d.takes(x.size) {
		return false
	}
	if q.m.Queues[to] == nil {
		q.m.make(to, surgetank.QueueConfig{DeadLetter: to, Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1, Jitter: -1}})
	}
	n := q.move(x, q.m.Queues[to], true)
	n.from, n.reason, n.deaths = q.Name, why, min(x.deaths+1, maxDeaths)
	if ttl := q.m.Queues[to].Config.TTL; ttl > 0 && to != q.Name {
		n.expires = q.m.Now + int64(ttl)
	}
	if itself {
		n.trail = append(slices.Clone(x.trail), q.Name)
	}
	return true
}

// move moves a message to the end of a queue. A dead letter is in no chain.
func (q *Queue) move(x *Message, to *Queue, dead bool) *Message {
	q.remove(x)
	n := &Message{group: x.group, priority: x.priority, size: x.size, from: x.from, reason: x.reason, deaths: x.deaths}
	if id := x.chain.id + x.chain.kept; dead {
		n.chain.kept = id
	} else {
		n.chain.id, n.chain.since = id, q.m.Now
	}
	to.add(n, 0)
	return n
}

// make adds an empty queue.
func (m *Model) make(name string, cfg surgetank.QueueConfig) *Queue {
	m.made++
	q := &Queue{m: m, Name: name, Config: settings.WithDefaults(cfg), made: m.made, next: 1, ids: map[string]knownID{}, groups: map[string]*flow{plainLine: {}}, fresh: 1, order: order{run: map[lineKey]int{}}}
	if cfg.Paused {
		q.pausedAt = m.Now
	}
	m.Queues[name] = q
	return q
}

func (q *Queue) oldest() *Message {
	if i := slices.IndexFunc(q.msgs, (*Message).inLine); i >= 0 {
		return q.msgs[i]
	}
	return nil
}

// sheds tells whether the queue can remove old messages to make room.
func (q *Queue) sheds() bool {
	if q.Config.Overflow != surgetank.OverflowDeadLetter || q.deadLetter() == q.Name {
		return true
	}
	d, x := q.m.Queues[q.deadLetter()], q.oldest()
	return d == nil || x == nil || slices.Contains(x.trail, d.Name) || d.takes(x.size)
}

func (q *Queue) enforce() {
	o := q.Config.Overflow
	for o != surgetank.OverflowReject && q.over(0, 0) {
		x := q.oldest()
		if x == nil {
			return
		}
		if o != surgetank.OverflowDeadLetter || q.deadLetter() == q.Name {
			q.remove(x)
		} else if !q.sendToDeadLetter(x, surgetank.ReasonOverflow) {
			return
		}
	}
}
