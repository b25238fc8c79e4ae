package queue

import (
	"cmp"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// Further verdicts, on one message; the others are in ready.go. Dispatch does not need these
// verdicts, because it looks only at messages in a line.
const (
	nothingWaits verdict = iota + 100
	isLeased
	isDamaged // the message itself is damaged, or a message of its group that counts as in flight
	isDelayed
	isBackingOff
	budgetShort // the message's back-off is over, and its retry.budget is used up
	isBehind    // earlier messages of its group must be delivered first
)

// telling is the form in which users see a verdict.
type telling struct {
	word string // stable: programs compare it
	say  func(*why) string
}

// urgent are the verdicts that stop every message of the queue. An explanation names the first
// reason in this order: urgent verdicts, the message's own reasons, its group's reasons, the queue's
// other reasons, its consumers'. A missing consumer is not urgent: programs that poll over HTTP are
// consumers only while they ask.
var urgent = map[verdict]bool{paused: true, moving: true, breakerOpen: true, probing: true}

// tellings has every verdict that explains why a message waits.
var tellings map[verdict]telling

func init() {
	tellings = map[verdict]telling{
		paused:        {"paused", (*why).sayPaused},
		moving:        {"moving", (*why).sayMoving},
		noConsumer:    {"no_consumer", (*why).sayNoConsumer},
		isDamaged:     {"damaged", (*why).sayDamaged},
		isLeased:      {"leased", (*why).sayLeased},
		isDelayed:     {"delayed", (*why).sayDelayed},
		isBackingOff:  {"back_off", (*why).sayBackOff},
		budgetShort:   {"retry_budget", (*why).sayBudget},
		groupInFlight: {"group_in_flight", (*why).sayGroupInFlight},
		keyBusy:       {"key_busy", (*why).sayKeyBusy},
		keyCollects:   {"coalescing", (*why).sayCollects},
		groupRate:     {"group_rate", (*why).sayGroupRate},
		isBehind:      {"behind", (*why).sayBehind},
		levelInFlight: {"level_in_flight", (*why).sayLevelInFlight},
		levelRate:     {"level_rate", (*why).sayLevelRate},
		levelAdaptive: {"level_adaptive", (*why).sayControl},
		breakerOpen:   {"breaker_open", (*why).sayControl},
		probing:       {"probing", (*why).sayControl},
		noCredit:      {"no_credit", (*why).sayNoCredit},
		mayGo:         {"turn", (*why).sayTurn},
		nothingWaits:  {"empty", (*why).sayNothing},
	}
}

// Explain says why a queue's next message waits, or a group's first one, or one message. Send it
// again while Next is not 0.
type Explain struct {
	Queue string
	Opts  surgetank.ExplainOptions
	Next  uint64 // not 0: send the command again, because it has not read all groups yet
	Found surgetank.Explanation
	Err   error

	queue uint64 // the queue of the first turn
	tops  tops
}

func (c *Explain) run(m *Machine) bool {
	q := m.byName[c.Queue]
	if q == nil || c.Next != 0 && q.id != c.queue {
		c.Err, c.Next = noQueue(c.Queue), 0
		return true
	}
	var w *why
	switch id := c.Opts.ID; {
	case id != (surgetank.MessageID{}) && c.Opts.Group != "":
		c.Err = surgetank.FieldErrorf("id", "a group and a message are given; ask for one of them")
	case id != (surgetank.MessageID{}):
		if s := q.slots.get(id.Seq); s != nil && s.live() && id.Queue == q.id && (id.Incarnation == 0 || id == q.idOf(id.Seq)) {
			w = q.whyMessage(id.Seq)
		} else {
			c.Err = surgetank.Errorf(surgetank.CodeNotFound, "queue %q has no message %s; it was settled, or it never was in this queue", shown(q.name), id)
		}
	case c.Opts.Group != "":
		w, c.Err = q.whyGroup(c.Opts.Group)
	default:
		c.queue, c.Next = q.id, 0
		if !c.tops.read(q) {
			c.Next = uint64(c.tops.next)
			return true
		}
		w = q.whyQueue()
		w.e.Groups = c.tops.groups(q)
		var largest *surgetank.GroupFigures
		if len(w.e.Groups) > 0 {
			largest = &w.e.Groups[0]
		}
		w.e.Drain = q.drain(largest)
	}
	if c.Err == nil {
		w.full = true
		c.Found = w.explain()
	}
	return true
}

// why is a verdict on a message, or on the queue as a whole.
type why struct {
	q    *Queue
	v    verdict
	seq  uint64 // 0: no message in particular
	h    uint32 // the message's flow; without a message, the flow whose group was asked for
	full bool   // the explanation includes slow parts, and reasons that quote messages
	e    surgetank.Explanation
}

// whyQueue explains why the queue's next message waits: the front message of the next group that
// can deliver. If no group can deliver, it explains the message that has waited longest in a line.
// If no line has a message, it explains the message whose delay or back-off ends first.
func (q *Queue) whyQueue() *why {
	w := &why{q: q}
	switch v := q.urgent(); {
	case q.waiting+q.delayedN == 0:
		w.v = nothingWaits
	case v != mayGo:
		w.v = v
		return w
	case q.anyReady():
		w.v = q.queueReason()
	default:
		if seq, _ := q.oldestWaiting(); seq != 0 {
			return q.whyMessage(seq)
		}
		x, ok := q.firstRetry()
		if d, delayed := q.firstDelayed(); delayed && (!ok || d.at < x.at) {
			x, ok = d, true
		}
		if ok {
			return q.whyMessage(x.key)
		}
		w.v = keyBusy // all messages follow messages of their chains that are leased or damaged
	}
	if q.damagedN > 0 && (w.v == mayGo || w.v == nothingWaits) {
		w.v = isDamaged
	}
	return w
}

// urgent returns a verdict on the queue that stops every message, or mayGo.
func (q *Queue) urgent() verdict {
	if v := q.queueVerdict(); urgent[v] {
		return v
	}
	return mayGo
}

// queueReason returns the queue's reason why a message waits although its group can deliver.
func (q *Queue) queueReason() verdict {
	return cmp.Or(q.queueVerdict(), q.consumerVerdict())
}

// whyMessage explains why a message waits. The message must be live.
func (q *Queue) whyMessage(seq uint64) *why {
	s := q.slots.get(seq)
	return &why{q: q, v: q.messageVerdict(seq, s), seq: seq, h: s.flow}
}

func (q *Queue) messageVerdict(seq uint64, s *slot) verdict {
	switch q.stateOf(seq, s) {
	case surgetank.StateDamaged:
		return isDamaged
	case surgetank.StateLeased:
		return isLeased
	}
	return cmp.Or(q.urgent(), q.ownVerdict(seq, s), q.queueReason())
}

// ownVerdict returns a message's own reason to wait or its group's reason, or mayGo. The message
// must be neither leased nor damaged.
func (q *Queue) ownVerdict(seq uint64, s *slot) verdict {
	switch st := s.state(); {
	case st == slotBehind:
		return keyBusy
	case st == slotDelayed && !s.has(slotRedelivered|slotLate) && q.slots.key(seq) != nil:
		return keyCollects
	case st == slotDelayed && !s.has(slotRedelivered):
		return isDelayed
	}
	if s.state() == slotDelayed || q.backsOff(seq) {
		if q.budgetShare() > 0 && q.tryAt(seq) <= q.m.now+1 { // giveUp adds 1 to the time of a retry that the budget delays
			return budgetShort
		}
		return isBackingOff
	}
	if q.slots.keys.used > 0 {
		if v := q.keyVerdict(seq); v != mayGo {
			return v
		}
	}
	if q.groupName(s.flow) == "" {
		return mayGo
	}
	v, front := q.groupVerdict(s.flow), q.frontOf(s.flow)
	switch {
	case v == groupInFlight && q.heldOf(s.flow) != 0:
		return isDamaged
	case front != seq && (v != mayGo || q.stateOf(seq, s) == surgetank.StateBlocked):
		return isBehind
	}
	return v
}

// whyGroup explains why the first message of a group waits.
func (q *Queue) whyGroup(group string) (*why, error) {
	if err := surgetank.ValidateName("group", group); err != nil {
		return nil, surgetank.FieldErrorf("group", "%s", err)
	}
	h, ok := q.byGroup[group]
	if !ok || q.flows[h].waiting+q.flows[h].inflight+q.flows[h].delayed == 0 {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "queue %q has no message of group %q; look at the name of the group", shown(q.name), group)
	}
	if front := q.frontOf(h); front != 0 {
		return q.whyMessage(front), nil
	}
	f := &q.flows[h]
	if f.delayed > 0 {
		first := timed{}
		for _, heap := range []timeHeap{q.delayed, q.retries} {
			for _, x := range heap {
				if s := q.slots.get(x.key); s != nil && s.flow == h && s.state() == slotDelayed && (first.key == 0 || x.at < first.at) {
					first = x
				}
			}
		}
		q.m.spend(len(q.delayed)+len(q.retries), costPeek)
		if first.key != 0 {
			return q.whyMessage(first.key), nil
		}
	}
	if f.inflight == 0 || q.heldOf(h) != 0 {
		return &why{q: q, v: isDamaged, h: h, seq: q.heldOf(h)}, nil
	}
	return &why{q: q, v: isLeased, h: h}, nil
}

// heldOf returns the first held message of a flow; 0 if there is none.
func (q *Queue) heldOf(h uint32) (first uint64) {
	// unordered: it looks for the smallest
	for seq := range q.held {
		if q.slots.get(seq).flow == h && (first == 0 || seq < first) {
			first = seq
		}
	}
	return first
}

// tryAt returns when a message that backs off is tried next.
func (q *Queue) tryAt(seq uint64) int64 {
	if at, ok := q.backing[seq]; ok {
		return at
	}
	if x, ok := q.firstRetry(); ok && x.key == seq {
		return x.at
	}
	for _, x := range q.retries {
		if x.key == seq {
			return x.at
		}
	}
	return 0
}

// explain makes the answer for users.
func (w *why) explain() surgetank.Explanation {
	w.e.Verdict = tellings[w.v].word
	if w.h != 0 {
		w.e.Group = w.q.groupName(w.h)
	}
	if w.seq != 0 {
		s := w.q.slots.get(w.seq)
		w.e.ID = w.q.idOf(w.seq)
		w.e.Attempt = int(s.attempts)
		if w.full {
			w.e.Failure = w.q.failureOf(w.seq)
		}
	}
	w.e.Text = tellings[w.v].say(w)
	return w.e
}

// text returns the sentence for everyone who sees the queue; "" if messages are being delivered or
// no message waits.
func (w *why) text() string {
	if w.v == nothingWaits || w.v == mayGo && (w.seq == 0 || w.q.waitsTurn(w.h) == "") {
		return ""
	}
	return w.explain().Text
}

// waits returns the sentence for a blocked or ready message of a peek: the message's own reason or
// its group's reason. A message that can be delivered has a sentence if other messages come first.
// The reasons of the whole queue are in QueueInfo.
func (q *Queue) waits(seq uint64) string {
	return q.whyOwn(seq).text()
}

// whyOwn is whyMessage without the reasons of the queue.
func (q *Queue) whyOwn(seq uint64) *why {
	s := q.slots.get(seq)
	return &why{q: q, v: q.ownVerdict(seq, s), seq: seq, h: s.flow}
}

// holders adds the leases that block the message, oldest first: the leases of a flow or of the
// whole queue.
func (w *why) holders(every bool) {
	if !w.full {
		return
	}
	q := w.q
	add := func(l *lease) {
		if !every && q.slots.get(l.seq).flow != w.h {
			return
		}
		x := q.holder(l)
		after := func(a, b surgetank.LeaseHolder) int {
			return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID.Seq, b.ID.Seq))
		}
		at, _ := slices.BinarySearchFunc(w.e.Leases, x, after)
		if at < maxHolders {
			w.e.Leases = slices.Insert(w.e.Leases, at, x)
			w.e.Leases = w.e.Leases[:min(len(w.e.Leases), maxHolders)]
		}
	}
	if c := q.consumerOf(q.flows[w.h].holder); !every && c != nil {
		for l := range c.leases.all {
			add(l)
		}
		q.m.spend(c.leases.n, costPeek)
		return
	}
	// unordered: the list is sorted
	for _, l := range q.leases {
		add(l)
	}
	q.m.spend(len(q.leases), costPeek)
}

// holder describes a lease.
func (q *Queue) holder(l *lease) surgetank.LeaseHolder {
	return surgetank.LeaseHolder{ID: q.idOf(l.seq), Consumer: l.consumer.id, Name: l.consumer.opts.Name, Since: timeAt(l.since), Until: timeAt(l.deadline)}
}

// maxHolders is how many leases an explanation names.
const maxHolders = 8

// consumerOf returns a consumer that has leases, or nil. For the id 0 it returns nil.
func (q *Queue) consumerOf(id uint64) *consumer {
	if c := q.m.consumers[id]; c != nil {
		return c
	}
	return q.m.left[id]
}

// ahead counts the messages before message seq in its flow's line, up to maxAhead.
func (q *Queue) ahead(h uint32, seq uint64) (n int64) {
	f := &q.flows[h]
	for at := f.head; at != 0 && at < seq && n < maxAhead; n++ {
		s := q.slots.get(at)
		if !s.live() {
			n--
		}
		switch s.next {
		case 0:
			at = 0
		case farNext:
			at = q.far[at]
		default:
			at += uint64(s.next)
		}
	}
	if r := q.returned[h]; r != nil {
		for _, other := range *r {
			if other < seq && q.slots.get(other).live() {
				n++
			}
		}
		q.m.spend(len(*r), costPeek)
	}
	q.m.spend(int(n), costPeek)
	return n
}

// maxAhead is how many messages of a line are counted for an explanation.
const maxAhead = 100_000

// timeAt returns a time in nanoseconds since 1970 for users. 0 means no time.
func timeAt(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}
