package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// ledger is the clients' knowledge: the messages and settlements that they sent, the answers, and
// the messages that were delivered to them. The ledger judges the broker by this knowledge alone.
// Each message has a unique body, which identifies it.
type ledger struct {
	w        *world
	messages map[string]*message
	order    []*message
	copies   map[surgetank.MessageID]*stored
	lines    map[string][]*stored       // strict groups, by queue and group, in the order of Seq
	ids      map[string][]*stored       // by queue and dedup id
	last     map[uint64]uint64          // by queue number: the newest confirmed Seq
	tokens   map[string]int64           // by queue and group: the newest fencing token that a client saw
	floors   map[uint64]uint64          // by queue number: all lower messages are settled
	metaUsed map[string]map[uint64]bool // versions that a confirmed conditional change has replaced
	metaLast map[string]uint64          // the newest version that a client knows
	meta     map[string][]string        // possible values, oldest first; the first is the newest certain value
	checks   int
	events   int    // sendings and deliveries of messages
	bad      string // the first violation
}

// message is one message as its publisher knows it.
type message struct {
	body     string
	queues   []string
	dedup    string
	delayed  bool
	sure     int  // confirmed copies
	seen     bool // a copy was delivered, or its id was known: at least one copy exists
	high     int  // highest possible number of stored copies
	acked    int  // confirmed acks
	unsure   int  // acks with an unknown outcome
	excused  bool // a rule in the clients' settings can have removed the message
	transact *transaction

	keys      map[string]string  // by queue: queue, group and coalescing key, if they are known
	maybe     map[string]string  // like keys, but also for queues that possibly did not have their rule yet
	headers   []surgetank.Header // headers with a coalescing key
	coalesced bool               // another message can be delivered instead
	sent      int                // the event of its first sending
	resent    int                // the event of its newest sending
	delivered int                // the event of its newest delivery
}

// low returns how many copies certainly were stored.
func (m *message) low() int {
	if m.seen {
		return max(m.sure, 1)
	}
	return m.sure
}

// stored is one copy in one queue.
type stored struct {
	id        surgetank.MessageID
	m         *message
	queue     string
	group     string
	exempt    bool      // its order in the group is not checked
	time      time.Time // when it was confirmed, according to the broker; zero: not seen yet
	delivered int
	attempt   int
	acked     bool
	ackSent   bool // an ack was sent and not rejected
	ackLife   int  // the opening in which the ack was sent
	ending    bool // a command that ends the lease was sent
	gone      bool // a client rejected the copy, and no later event undid the reject
	goneLife  int  // the opening in which the copy was rejected
	rejected  bool // the reject was confirmed
	lease     surgetank.Receipt
	holder    *client
	deadline  time.Time
	extended  time.Time
	asked     time.Time // time of the next attempt, as a sent nack asks
	notBefore time.Time // time of the next attempt, as a confirmed nack asked
	live      bool      // the client knows of no end of the lease
	dead      bool      // the copy is a dead letter
}

// transaction is a publish and an ack. Both the publish and the ack must take effect, or neither.
type transaction struct {
	source       *stored
	lease        surgetank.Receipt
	done, undone bool
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, messages: map[string]*message{}, copies: map[surgetank.MessageID]*stored{}, lines: map[string][]*stored{},
		ids: map[string][]*stored{}, last: map[uint64]uint64{}, floors: map[uint64]uint64{}, tokens: map[string]int64{}, meta: map[string][]string{}, metaUsed: map[string]map[uint64]bool{}, metaLast: map[string]uint64{}}
}

// violation records the first broken promise. The run then ends.
func (l *ledger) violation(promise, format string, args ...any) {
	if l.bad == "" {
		l.bad = promise + ": " + fmt.Sprintf(format, args...)
		l.w.tracef("VIOLATION %s", l.bad)
	}
}

// sending is called before a publish is sent.
func (l *ledger) sending(body string, queues []string, dedup string, delayed, mayEnd bool) *message {
	m := l.messages[body]
	if m == nil {
		m = &message{body: body, queues: queues, dedup: dedup, delayed: delayed, excused: mayEnd}
		for _, q := range queues {
			m.excused = m.excused || l.w.plan(q).Lossy || l.w.noack(q)
		}
		l.messages[body] = m
		l.order = append(l.order, m)
	}
	m.high += len(queues) // the times of stored messages show whether a repeat in the window was stored
	return m
}

// published is called with the answer to a publish.
func (l *ledger) published(m *message, r surgetank.PublishResult) {
	l.checks++
	switch {
	case r.Err != nil:
		if len(m.queues) == 1 && m.dedup == "" {
			m.high--
		}
		return
	case r.Duplicate:
		if m.dedup == "" {
			l.violation("dedup", "%s has no dedup id and was called a duplicate", m.body)
		}
		m.seen = true
		m.high -= len(m.queues)
		return
	}
	if m.sure++; m.dedup == "" {
		m.sure += len(m.queues) - 1 // some queues of the message can have known its dedup id already
	}
	if m.transact != nil {
		m.transact.done = true
	}
	if l.joins(m.queues) {
		return // the id can belong to an earlier message
	}
	if r.ID.Seq <= l.last[r.ID.Queue] {
		l.violation("order", "%s was confirmed as %v after %d of that queue was", m.body, r.ID, l.last[r.ID.Queue])
	}
	l.last[r.ID.Queue] = r.ID.Seq
	if _, own, ok := strings.Cut(m.body, "/"); ok && len(m.queues) == 1 && l.copies[r.ID] == nil { // its position in its group is known before its delivery
		group, _, _ := strings.Cut(own, "-")
		l.note(r.ID, m, m.queues[0], group)
	}
}

// note records a copy of a message, and its position in a strict group.
func (l *ledger) note(id surgetank.MessageID, m *message, queue, group string) *stored {
	c := &stored{id: id, m: m, queue: queue, group: group, exempt: m.delayed}
	l.copies[id] = c
	if p := l.w.plan(queue); p != nil && p.Strict && group != "" {
		key := queue + "\x00" + group
		line := append(l.lines[key], c)
		slices.SortFunc(line, func(a, b *stored) int { return int(int64(a.id.Seq - b.id.Seq)) })
		l.lines[key] = line
	}
	return c
}

// copyOf returns the copy of a delivery. It records the copy if it is new.
func (l *ledger) copyOf(d *surgetank.Delivery) *stored {
	m := l.messages[string(d.Body)]
	if m == nil {
		l.violation("invented", "%v of %s has the body %q, which nobody sent", d.ID, d.Queue, d.Body)
		return nil
	}
	c := l.copies[d.ID]
	if c == nil {
		c = l.note(d.ID, m, d.Queue, d.Group)
	}
	if c.time.IsZero() { // the first delivery of the copy
		c.time, c.exempt, m.seen = d.Time, m.delayed || len(d.Deaths) > 0, true
		if m.dedup != "" && len(d.Deaths) == 0 && !d.Redelivered {
			l.once(c)
		}
	}
	if c.m != m || c.group != d.Group || c.queue != d.Queue {
		l.violation("seen before it was safe", "%v was %s of group %q in %s and is %s of group %q in %s", d.ID, c.m.body, c.group, c.queue, d.Body, d.Group, d.Queue)
		return nil
	}
	return c
}

// once checks that a dedup id was not stored twice within its window.
func (l *ledger) once(c *stored) {
	key := fmt.Sprintf("%d/%s", c.id.Queue, c.m.dedup)
	for _, o := range l.ids[key] {
		if gap := c.time.Sub(o.time).Abs(); gap < l.w.o.Dedup {
			l.violation("dedup", "id %q is stored as %v and %v, %v apart", c.m.dedup, o.id, c.id, gap)
		}
	}
	l.ids[key] = append(l.ids[key], c)
}

// delivered is called for every message that a client receives.
func (l *ledger) delivered(cl *client, d *surgetank.Delivery) *stored {
	l.checks++
	c := l.copyOf(d)
	if c == nil {
		return nil
	}
	now := l.w.b.Now()
	switch {
	case c.acked:
		l.violation("a confirmed ack is final", "%v (%s) was delivered after its ack was confirmed", d.ID, d.Body)
	case c.live && c.lease.Epoch == d.Receipt.Epoch && (c.deadline.IsZero() || now.Before(c.deadline)):
		l.violation("one lease at a time", "%v (%s) was delivered under lease %v while %v lives until %v, now %v", d.ID, d.Body, d.Receipt, c.lease, c.deadline, now)
	case d.ID.Seq < l.floors[d.ID.Queue] && d.Receipt.Lease != 0:
		l.violation("floor", "%v (%s) was delivered below the floor %d", d.ID, d.Body, l.floors[d.ID.Queue])
	case c.delivered > 0 && !d.Redelivered:
		l.violation("redelivered", "%v (%s) was delivered again without saying so", d.ID, d.Body)
	case len(d.Deaths) == 0 && !c.m.coalesced && now.Before(d.Time.Add(d.Delay)) || now.Before(c.notBefore):
		l.violation("delays", "%v (%s) of %v with a delay of %v, not before %v, was delivered at %v", d.ID, d.Body, d.Time, d.Delay, c.notBefore, now)
	case d.Attempt < c.attempt && !l.w.o.Breakers && !l.w.refunds: // a breaker that opens returns attempts
		l.violation("attempts", "%v (%s) was delivered as attempt %d after attempt %d", d.ID, d.Body, d.Attempt, c.attempt)
	}
	if p := l.w.plan(d.Queue); p != nil && p.Strict && d.Group != "" && d.Receipt.Lease != 0 {
		key := d.Queue + "\x00" + d.Group
		if d.FencingToken <= l.tokens[key] {
			l.violation("fencing", "%v (%s) of group %q has the fencing token %d after token %d", d.ID, d.Body, d.Group, d.FencingToken, l.tokens[key])
		}
		l.tokens[key] = d.FencingToken
	}
	if c.ackSent { // the ack had no effect before this lease began, so the lease is correct
		c.ackSent = false
		c.m.unsure--
	}
	for _, m := range []*message{c.m} {
		if t := m.transact; t != nil {
			l.settleTransaction(t, true, "%s was delivered", d.Body)
		}
	}
	for _, t := range l.w.transactions {
		if t.source == c && t.lease != d.Receipt {
			l.settleTransaction(t, false, "%v was delivered again", d.ID)
		}
	}
	c.dead = len(d.Deaths) > 0
	l.inChain(c, d)
	c.gone = false
	c.delivered++
	c.attempt = d.Attempt
	l.inOrder(cl, c)
	c.live = d.Receipt.Lease != 0
	c.lease, c.holder, c.deadline, c.ending = d.Receipt, cl, d.Deadline, false
	if !c.live {
		c.acked = true
		c.m.acked++
	}
	return c
}

func (l *ledger) settleTransaction(t *transaction, done bool, format string, args ...any) {
	if done {
		t.done = true
	} else {
		t.undone = true
	}
	if t.done && t.undone {
		l.violation("transactions are whole", "one half of a transaction was done and the other was not: "+format, args...)
	}
}

// inOrder checks a strict group when one of its messages is delivered.
func (l *ledger) inOrder(cl *client, c *stored) {
	if c.exempt || c.m.excused {
		return
	}
	run := cl.opts.GroupRun > 1
	for _, o := range l.lines[c.queue+"\x00"+c.group] {
		if o == c || o.exempt || o.m.excused || o.acked || o.ackSent || o.gone || o.id.Queue != c.id.Queue {
			continue
		}
		inFlight := o.live && o.lease.Epoch == l.w.b.Epoch() && (o.deadline.IsZero() || l.w.b.Now().Before(o.deadline))
		if o.m.coalesced && !inFlight {
			continue // another message can be delivered instead
		}
		switch {
		case o.id.Seq < c.id.Seq && !(run && o.holder == cl): // the earlier message of a run can have been returned meanwhile
			l.violation("order inside a group", "%v (%s) of group %q was delivered while %v (%s) before it is not settled", c.id, c.m.body, c.group, o.id, o.m.body)
		case o.id.Seq > c.id.Seq && inFlight && !(run && o.holder == cl):
			l.violation("order inside a group", "%v (%s) of group %q was delivered while %v (%s) behind it is in flight", c.id, c.m.body, c.group, o.id, o.m.body)
		}
	}
}

// settling is called before a settlement is sent.
func (l *ledger) settling(c *stored, s *surgetank.Settlement) {
	if s.Receipt != c.lease {
		return // an old receipt, which must be refused
	}
	switch s.Op {
	case surgetank.Ack:
		if !c.acked && !c.ackSent {
			c.ackSent, c.ackLife = true, l.w.life
			c.m.unsure++
		}
	case surgetank.Reject:
		if !c.gone {
			c.gone, c.goneLife = true, l.w.life
		}
	case surgetank.Nack:
		if !c.ending { // otherwise the settlement will be refused
			c.asked = l.w.b.Now().Add(max(0, s.Delay))
		}
	case surgetank.Extend:
		c.extended = l.w.b.Now().Add(s.Lease) // at least until this time, if the extension is accepted
	}
	c.ending = c.ending || s.Op != surgetank.Extend
	c.live = false
}

// settled is called with the answer to a settlement.
func (l *ledger) settled(c *stored, s *surgetank.Settlement, err error) {
	l.checks++
	old := s.Receipt != c.lease
	if err == nil {
		if s.Receipt.Epoch != l.w.b.Epoch() {
			l.violation("receipts", "the receipt %v of epoch %d was taken in epoch %d", s.Receipt, s.Receipt.Epoch, l.w.b.Epoch())
		}
		switch {
		case s.Op == surgetank.Extend && !old && !c.ending && c.holder != nil && !c.holder.closed:
			c.live, c.deadline = true, c.extended
		case s.Op == surgetank.Nack && !old:
			c.notBefore = c.asked
		case s.Op == surgetank.Reject && !old:
			c.rejected = true
		case s.Op == surgetank.Ack && old:
			l.violation("a confirmed ack is final", "the ack of %v (%s) was confirmed after it was delivered again", c.id, c.m.body)
		case s.Op == surgetank.Ack && c.acked:
			l.violation("a confirmed ack is final", "the ack of %v (%s) was confirmed twice", c.id, c.m.body)
		case s.Op == surgetank.Ack:
			c.acked = true
			c.m.acked++
			if c.ackSent {
				c.ackSent = false
				c.m.unsure--
			}
		}
		return
	}
	if old {
		return
	}
	switch surgetank.CodeOf(err) {
	case surgetank.CodeUncertain, surgetank.CodeClosed:
		return // the outcome of the settlement is not known
	}
	switch {
	case s.Op == surgetank.Ack && c.ackSent && c.ackLife == l.w.life:
		c.ackSent = false
		c.m.unsure--
	case s.Op == surgetank.Reject && !c.rejected && c.goneLife == l.w.life:
		c.gone = false
	}
}

// crashed records the end of a broker.
func (l *ledger) crashed() {
	for _, c := range l.copies {
		c.live = false
	}
}

// detached records the end of a client's leases.
func (l *ledger) detached(cl *client) {
	for _, c := range l.copies {
		if c.holder == cl {
			c.live = false
		}
	}
}

// excuse records that a client's command can have removed messages of a queue.
func (l *ledger) excuse(queue string) {
	for _, m := range l.order {
		if l.w.o.Redrive || slices.Contains(m.queues, queue) || slices.ContainsFunc(m.queues, func(q string) bool {
			p := l.w.plan(q)
			return p.Dead() == queue || p.Last() == queue
		}) {
			m.excused = true
		}
	}
}

// counted checks the counts of all queues against the clients' actions.
func (l *ledger) counted(infos []surgetank.QueueInfo) {
	l.checks++
	total := 0
	for _, i := range infos {
		if i.Damaged > 0 && !l.w.blamed() {
			l.violation("readable", "%d messages of %s are damaged: %s", i.Damaged, i.Name, i.Waiting)
		}
		total += int(i.Ready + i.Blocked + i.Delayed + i.Leased + i.Damaged)
	}
	low, high := 0, 0
	for _, m := range l.order {
		if !m.excused && !m.coalesced {
			low += max(0, m.low()-m.acked-m.unsure)
		}
		high += m.high - m.acked
	}
	if total < low || total > high {
		l.violation("conservation", "the queues hold %d messages; by what was confirmed and acked there must be %d to %d", total, low, high)
	}
}

// drained checks, after everything was delivered, that no message is missing and none was delivered
// twice.
func (l *ledger) drained() {
	for _, m := range l.order {
		l.checks++
		switch {
		case m.acked > m.high:
			l.violation("stored once", "%s was sent so that at most %d copies can be, and %d were acked", m.body, m.high, m.acked)
		case m.coalesced && m.acked+m.unsure < m.low() && !m.excused && !l.w.blamed() && !l.covered(m):
			l.violation("the last write is delivered", "%s with the keys %q was confirmed; neither it nor a message that stands for it was delivered afterwards", m.body, m.keys)
		case m.acked+m.unsure < m.low() && !m.excused && !m.coalesced:
			l.violation("nothing confirmed is lost", "%s: %d copies were stored, %d acked (%d unsure), and there are no more", m.body, m.low(), m.acked, m.unsure)
		}
	}
}

// recovered judges the messages of a broker that was opened on the state after a crash, while the
// run continues. If older is true, the state can be from before the newest confirmed entry.
func (l *ledger) recovered(found map[string][]surgetank.Delivery, whole, older bool) {
	copies := make(map[*message]int, len(l.order))
	for name, ds := range found {
		for i := range ds {
			d := &ds[i]
			m := l.messages[string(d.Body)]
			if m == nil {
				l.violation("invented", "after a power failure %v of %s has the body %q, which nobody sent", d.ID, name, d.Body)
				return
			}
			copies[m]++
			switch c := l.copies[d.ID]; {
			case c == nil:
			case older: // a rule that acted on an older state can have used the message's number again
			case c.m != m || c.group != d.Group || c.queue != name:
				l.violation("seen before it was safe", "%v was %s of group %q in %s and is after a power failure %s of group %q in %s", d.ID, c.m.body, c.group, c.queue,
					d.Body, d.Group, name)
			case c.acked:
				l.violation("a confirmed ack is final", "%v (%s) is there again after a power failure", d.ID, d.Body)
			}
		}
	}
	for _, m := range l.order {
		l.checks++
		if whole && !older && !m.excused && !m.coalesced && copies[m]+m.acked+m.unsure < m.low() {
			l.violation("nothing confirmed is lost", "%s: %d copies were stored and %d acked (%d unsure); after a power failure there are %d", m.body, m.low(), m.acked,
				m.unsure, copies[m])
		}
	}
}

// metaSent, metaSet and metaRead track the possible values of a door's name.
func (l *ledger) metaSent(name, value string) {
	if l.meta[name] == nil {
		l.meta[name] = []string{""}
	}
	l.meta[name] = append(l.meta[name], value)
}

func (l *ledger) metaSet(name, value string) {
	if i := slices.Index(l.meta[name], value); i >= 0 {
		l.meta[name] = l.meta[name][i:]
	}
}

// metaReplaced is called when a conditional change is confirmed. Two changes cannot replace the same
// version of a value.
func (l *ledger) metaReplaced(name string, expected uint64) {
	l.checks++
	if l.metaUsed[name][expected] {
		l.violation("metadata", "two changes of %s replaced version %d", name, expected)
	}
	if l.metaUsed[name] == nil {
		l.metaUsed[name] = map[uint64]bool{}
	}
	l.metaUsed[name][expected] = true
}

// metaVersion is called with a version of a value that a client has got. Versions never go back.
func (l *ledger) metaVersion(name string, version uint64) {
	l.checks++
	if version < l.metaLast[name] {
		l.violation("metadata", "%s has version %d after %d", name, version, l.metaLast[name])
	}
	l.metaLast[name] = version
}

// metaRefused is called when the condition of a change was not met.
func (l *ledger) metaRefused(name, value string) {
	l.meta[name] = slices.DeleteFunc(l.meta[name], func(v string) bool { return v == value })
}

func (l *ledger) metaRead(name, value string, possible []string) {
	l.checks++
	if len(possible) > 0 && !slices.Contains(possible, value) {
		l.violation("metadata", "%s is %q and can only be one of %q", name, value, possible)
	}
}
