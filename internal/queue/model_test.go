package queue

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// model is the queue rules once more, written from what the settings promise and not from the machine: slices and scans
// instead of heaps and lists, no records, no log. It and the machine must always agree.
type model struct {
	now    int64
	queues map[string]*mQueue
	order  []string // queues to be served at the end of the turn
	outs   []mOut
	ended  []uint64
	once   []*mConsumer
}

type mQueue struct {
	m         *model
	name      string
	cfg       surgetank.QueueConfig
	next      uint64
	msgs      []*mMsg // by seq
	ids       map[string]mID
	groups    map[string]*mGroup
	consumers []*mConsumer
	line      []*mConsumer // who has credit, next first; one that lost it leaves when its turn comes
	tat       int64
	turn      int
	fresh     uint64 // messages below were there before the broker opened
}

type mID struct {
	seq   uint64
	until int64
}

type mGroup struct {
	tat    int64
	served int
	holder uint64 // who has all that is leased; 0: several
}

type mMsg struct {
	seq          uint64
	group        string
	priority     uint8
	size         int64
	state        surgetank.State // StateReady for all that is in line
	notBefore    int64
	expires      int64
	attempts     int
	again        bool
	from, reason string
	deaths       int
	deadline     int64
	consumer     *mConsumer
}

type mConsumer struct {
	id              uint64
	q               *mQueue
	opts            surgetank.SubscribeOptions
	credit, held    int
	got             int
	once, now, stop bool
	gone            bool
}

// mOut is a hand-out, in the form in which both sides are compared.
type mOut struct {
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

func newModel() *model { return &model{queues: map[string]*mQueue{}} }

func (m *model) names() []string { return slices.Sorted(maps.Keys(m.queues)) }

// turn does what became due by now, then f, then hands out.
func (m *model) turn(now int64, f func()) {
	m.now = max(m.now, now)
	for _, name := range m.names() {
		m.queues[name].due()
	}
	if f != nil {
		f()
	}
	for len(m.order) > 0 {
		q := m.queues[m.order[0]]
		m.order = m.order[1:]
		if q != nil {
			q.dispatch()
			q.enforce()
		}
	}
	for _, c := range m.once {
		if c.now || c.got > 0 {
			m.end(c)
		}
	}
	m.once = slices.DeleteFunc(m.once, func(c *mConsumer) bool { return c.gone })
}

func (m *model) mark(q *mQueue) {
	if !slices.Contains(m.order, q.name) {
		m.order = append(m.order, q.name)
	}
}

func (m *model) end(c *mConsumer) {
	if !c.gone {
		m.unlist(c)
		m.ended = append(m.ended, c.id)
	}
}

func (m *model) unlist(c *mConsumer) {
	c.gone = true
	c.q.consumers = slices.DeleteFunc(c.q.consumers, func(o *mConsumer) bool { return o == c })
	c.q.line = slices.DeleteFunc(c.q.line, func(o *mConsumer) bool { return o == c })
	for _, o := range c.q.consumers {
		c.q.offer(o)
	}
}

// due ends leases, then delays, then TTLs, each in the order of their times.
func (q *mQueue) due() {
	now := q.m.now
	for _, x := range q.at(func(x *mMsg) int64 {
		if x.state == surgetank.StateLeased {
			return x.deadline
		}
		return 0
	}) {
		q.giveUp(x, -1, true)
	}
	for _, x := range q.at(func(x *mMsg) int64 {
		if x.state == surgetank.StateDelayed {
			return x.notBefore
		}
		return 0
	}) {
		q.place(x, 0)
	}
	for _, x := range q.at(func(x *mMsg) int64 { return x.expires }) {
		if x.state != surgetank.StateLeased {
			q.expire(x)
		}
	}
	q.m.mark(q)
	for key, g := range q.groups {
		if key != plainLine && g.tat <= now && !slices.ContainsFunc(q.msgs, func(x *mMsg) bool { return x.key() == key }) {
			delete(q.groups, key)
		}
	}
}

// at gives the messages whose time has come, in its order; 0 is never.
func (q *mQueue) at(when func(*mMsg) int64) (due []*mMsg) {
	for _, x := range q.msgs {
		if at := when(x); at != 0 && at <= q.m.now {
			due = append(due, x)
		}
	}
	slices.SortStableFunc(due, func(a, b *mMsg) int { return cmp.Compare(when(a), when(b)) })
	return due
}

// plainLine is the line of messages without group and priority. It is always there.
const plainLine = "\x000"

// key names the line a message stands in.
func (x *mMsg) key() string {
	if x.group != "" {
		return x.group
	}
	return fmt.Sprintf("\x00%d", x.priority)
}

func (q *mQueue) group(key string) *mGroup {
	g := q.groups[key]
	if g == nil {
		g = &mGroup{served: q.turn}
		q.groups[key] = g
	}
	return g
}

func (q *mQueue) find(seq uint64) *mMsg {
	for _, x := range q.msgs {
		if x.seq == seq {
			return x
		}
	}
	return nil
}

func (q *mQueue) count(state surgetank.State, key string) (n int) {
	for _, x := range q.msgs {
		if x.state == state && (key == "" || x.key() == key) {
			n++
		}
	}
	return n
}

// bytes gives the bodies of what is not leased.
func (q *mQueue) bytes() (n int64) {
	for _, x := range q.msgs {
		if x.state != surgetank.StateLeased {
			n += x.size
		}
	}
	return n
}

func (q *mQueue) over(messages int, bytes int64) bool {
	waiting := len(q.msgs) - q.count(surgetank.StateLeased, "")
	return q.cfg.MaxMessages > 0 && int64(waiting+messages) > q.cfg.MaxMessages || q.cfg.MaxBytes > 0 && q.bytes()+bytes > q.cfg.MaxBytes
}

// place puts a message in line, or aside until its time.
func (q *mQueue) place(x *mMsg, notBefore int64) {
	x.state, x.notBefore = surgetank.StateReady, notBefore
	if strict := q.cfg.Group.MaxInFlight == 1 && x.group != ""; notBefore > q.m.now && !(strict && x.again) {
		x.state = surgetank.StateDelayed
	}
	q.m.mark(q)
}

func (q *mQueue) add(x *mMsg, notBefore int64) {
	x.seq = q.next
	q.next++
	q.group(x.key())
	q.msgs = append(q.msgs, x)
	q.place(x, notBefore)
}

func (q *mQueue) remove(x *mMsg) {
	q.msgs = slices.DeleteFunc(q.msgs, func(o *mMsg) bool { return o == x })
	if g := q.groups[x.key()]; g != nil && g.tat <= q.m.now && q.count(surgetank.StateReady, x.key())+q.count(surgetank.StateDelayed, x.key())+q.count(surgetank.StateLeased, x.key()) == 0 && x.key() != plainLine {
		delete(q.groups, x.key())
	}
	q.m.mark(q)
}

// front is the first of a line.
func (q *mQueue) front(key string) *mMsg {
	for _, x := range q.msgs {
		if x.state == surgetank.StateReady && x.key() == key {
			return x
		}
	}
	return nil
}

func due(tat int64, r surgetank.Rate, burst int) int64 {
	return tat - int64(1e9/float64(r))*int64(max(1, burst)-1)
}

func spend(tat *int64, r surgetank.Rate, now int64) {
	if r > 0 {
		*tat = max(*tat, now) + int64(1e9/float64(r))
	}
}

func (q *mQueue) mayGo() bool {
	l := q.cfg.Level
	return !q.cfg.Paused && !(l.MaxInFlight > 0 && q.count(surgetank.StateLeased, "") >= l.MaxInFlight) &&
		!(l.Rate > 0 && due(q.tat, l.Rate, l.Burst) > q.m.now)
}

func (q *mQueue) groupMayGo(key string) bool {
	x, g := q.front(key), q.cfg.Group
	switch {
	case x == nil:
		return false
	case x.group == "":
		return true
	case g.MaxInFlight > 0 && q.count(surgetank.StateLeased, key) >= q.groupLimit(key):
		return false
	}
	return x.notBefore <= q.m.now && !(g.Rate > 0 && due(q.group(key).tat, g.Rate, 1) > q.m.now)
}

// groupLimit: a queue's only consumer may hold a run of a group, as long as nobody else has held any since it was last idle.
func (q *mQueue) groupLimit(key string) int {
	limit := q.cfg.Group.MaxInFlight
	if len(q.consumers) == 1 {
		if c := q.consumers[0]; q.count(surgetank.StateLeased, key) == 0 || q.group(key).holder == c.id {
			limit = max(limit, c.opts.GroupRun)
		}
	}
	return limit
}

// best is the line that goes next: by priority, then by turn where that is fair, then by age.
func (q *mQueue) best() string {
	best, found := "", false
	for key := range q.groups {
		if !q.groupMayGo(key) {
			continue
		}
		if found {
			a, b := q.front(key), q.front(best)
			better := a.seq < b.seq
			if sa, sb := q.groups[key].served, q.groups[best].served; q.cfg.Group.Fair && sa != sb {
				better = sa < sb
			}
			if a.priority != b.priority {
				better = a.priority > b.priority
			}
			if !better {
				continue
			}
		}
		best, found = key, true
	}
	return best
}

func (c *mConsumer) hungry() bool {
	held := 0
	if c.opts.Pool != 0 {
		for _, q := range c.q.m.queues {
			for _, x := range q.msgs {
				if x.state == surgetank.StateLeased && x.consumer.opts.Pool == c.opts.Pool {
					held++
				}
			}
		}
		if limit := poolLimits[c.opts.Pool]; held >= limit {
			return false
		}
	}
	return c.credit > 0 && !c.stop
}

// poolLimits are fixed in random scripts.
var poolLimits = map[uint64]int{1: 2, 2: 1, 3: 3, 4: 2}

func (c *mConsumer) active() bool {
	if c.opts.Single {
		for _, o := range c.q.consumers {
			if o.opts.Single {
				return o == c
			}
		}
	}
	return true
}

func (q *mQueue) offer(c *mConsumer) {
	if c.gone || slices.Contains(q.line, c) || !c.hungry() || !c.active() {
		return
	}
	i := len(q.line)
	for i > 0 && q.line[i-1].opts.Priority < c.opts.Priority {
		i--
	}
	q.line = slices.Insert(q.line, i, c)
	q.m.mark(q)
}

func (q *mQueue) nextConsumer() *mConsumer {
	for len(q.line) > 0 && !(q.line[0].hungry() && q.line[0].active()) {
		q.line = q.line[1:]
	}
	if len(q.line) == 0 {
		return nil
	}
	return q.line[0]
}

func (q *mQueue) dispatch() {
	for q.mayGo() {
		key := q.best()
		c := q.nextConsumer()
		if key == "" || c == nil {
			return
		}
		q.handOut(c, q.front(key))
		q.line = slices.DeleteFunc(q.line, func(o *mConsumer) bool { return o == c })
		if c.hungry() {
			i := 0
			for i < len(q.line) && q.line[i].opts.Priority >= c.opts.Priority {
				i++
			}
			q.line = slices.Insert(q.line, i, c)
		}
	}
}

func (q *mQueue) handOut(c *mConsumer, x *mMsg) {
	now := q.m.now
	g := q.group(x.key())
	q.turn += 2
	g.served = q.turn + 1
	if q.count(surgetank.StateLeased, x.key()) == 0 {
		g.holder = c.id
	} else if g.holder != c.id {
		g.holder = 0
	}
	spend(&q.tat, q.cfg.Level.Rate, now)
	spend(&g.tat, q.cfg.Group.Rate, now)
	c.credit--
	c.got++
	out := mOut{Queue: q.name, Consumer: c.id, Seq: x.seq, Group: x.group, Attempt: x.attempts + 1,
		Redelivered: x.again || x.seq < q.fresh, Leased: !c.opts.NoAck, Deaths: x.deaths}
	if c.opts.NoAck {
		if !c.opts.ManualCredit {
			c.credit++
		}
		q.remove(x)
	} else {
		x.state, x.consumer, x.notBefore = surgetank.StateLeased, c, 0
		x.deadline = 0
		if lease := cmp.Or(c.opts.Lease, q.cfg.Lease); lease > 0 {
			x.deadline = now + int64(lease)
		}
		out.Deadline = x.deadline
		c.held++
	}
	q.m.outs = append(q.m.outs, out)
}

// unlease ends a lease and gives the credit back.
func (q *mQueue) unlease(x *mMsg) {
	c := x.consumer
	x.state, x.consumer, x.deadline = surgetank.StateReady, nil, 0
	c.held--
	if c.opts.Pool != 0 { // who shares its pool comes first: it has had its turn
		for _, o := range c.q.consumers {
			if o.opts.Pool == c.opts.Pool {
				c.q.offer(o)
			}
		}
	}
	if !c.opts.ManualCredit && !c.gone {
		c.credit++
		c.q.offer(c)
	}
	q.m.mark(q)
}

func (q *mQueue) giveUp(x *mMsg, delay time.Duration, counted bool) {
	q.unlease(x)
	if counted {
		if x.attempts+1 >= q.cfg.Retry.MaxAttempts && q.cfg.Retry.MaxAttempts > 0 {
			q.bury(x, surgetank.ReasonAttempts)
			return
		}
		x.attempts++
	}
	if x.expires != 0 && x.expires <= q.m.now {
		q.expire(x)
		return
	}
	x.again = true
	if r := q.cfg.Retry; delay < 0 {
		delay = 0
		if r.Initial > 0 {
			delay = time.Duration(min(float64(r.Initial)*math.Pow(r.Factor, float64(max(1, x.attempts)-1)), float64(r.Max)))
		}
	}
	if delay > 0 {
		q.place(x, q.m.now+int64(delay))
	} else {
		q.place(x, 0)
	}
}

func (q *mQueue) expire(x *mMsg) {
	if d := q.cfg.DeadLetter; d == "" || d == surgetank.DeadLetterDrop {
		q.remove(x)
		return
	}
	q.bury(x, surgetank.ReasonExpired)
}

func (q *mQueue) deadLetter() string {
	if q.cfg.DeadLetter != "" {
		return q.cfg.DeadLetter
	}
	if n := len(q.name) - len(".dead"); n >= 0 && q.name[n:] == ".dead" {
		return q.name
	}
	return q.name + ".dead"
}

func (q *mQueue) bury(x *mMsg, why string) {
	to := q.deadLetter()
	if to == surgetank.DeadLetterDrop {
		q.remove(x)
		return
	}
	if q.m.queues[to] == nil {
		q.m.make(to, surgetank.QueueConfig{DeadLetter: to, Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1, Jitter: -1}})
	}
	n := q.move(x, q.m.queues[to])
	n.from, n.reason, n.deaths = q.name, why, min(x.deaths+1, MaxDeaths)
	if ttl := q.m.queues[to].cfg.TTL; ttl > 0 && to != q.name {
		n.expires = q.m.now + int64(ttl)
	}
}

func (q *mQueue) move(x *mMsg, to *mQueue) *mMsg {
	q.remove(x)
	n := &mMsg{group: x.group, priority: x.priority, size: x.size, from: x.from, reason: x.reason, deaths: x.deaths}
	to.add(n, 0)
	return n
}

func (m *model) make(name string, cfg surgetank.QueueConfig) *mQueue {
	q := &mQueue{m: m, name: name, cfg: cfg.WithDefaults(), next: 1, ids: map[string]mID{}, groups: map[string]*mGroup{plainLine: {}}, fresh: 1}
	m.queues[name] = q
	return q
}

func (q *mQueue) enforce() {
	o := q.cfg.Overflow
	for o != surgetank.OverflowReject && q.over(0, 0) {
		i := slices.IndexFunc(q.msgs, func(x *mMsg) bool { return x.state != surgetank.StateLeased })
		if i < 0 {
			return
		}
		if x := q.msgs[i]; o == surgetank.OverflowDeadLetter && q.deadLetter() != q.name {
			q.bury(x, surgetank.ReasonOverflow)
		} else {
			q.remove(x)
		}
	}
}
