package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// shardLedger is the knowledge of the clients of several shards. It judges all shards together: a
// copy of a message is in one queue of one shard, or on its way in an outbox.
type shardLedger struct {
	w        *shardWorld
	messages map[string]*shardMessage
	order    []*shardMessage
	copies   map[surgetank.MessageID]*shardCopy
	ordinal  int  // counts settlements and redriven messages
	misread  bool // reads have failed: messages can arrive later than their successors
	checks   int
	bad      string // the first violation
}

// shardMessage is one message as its publisher knows it.
type shardMessage struct {
	p        surgetank.Publishing
	queues   []string
	again    bool // a number or a dedup id makes repeated tries safe
	sure     bool // every queue has got its copy
	refused  bool // the only try was refused: there is no copy
	acked    int  // confirmed acks
	unsure   int  // acks with an unknown outcome
	excused  bool // it can have been dropped with a queue
	rewound  bool // it is from before the restore of a shard: nothing is known about it
	rejected int  // the ordinal of its newest reject; 0: not known
	redriven bool // it was redriven once
	to       string
	turn     int // the ordinal of its newest redrive, into the queue `to`
	deaths   int // the deaths at that redrive
}

// shardCopy is one copy in one queue.
type shardCopy struct {
	id      surgetank.MessageID
	m       *shardMessage
	queue   string
	receipt surgetank.Receipt
	acked   bool
	ackSent bool
}

func newShardLedger(w *shardWorld) *shardLedger {
	return &shardLedger{w: w, messages: map[string]*shardMessage{}, copies: map[surgetank.MessageID]*shardCopy{}}
}

func (l *shardLedger) violation(promise, format string, args ...any) {
	if l.bad == "" {
		l.bad = promise + ": " + fmt.Sprintf(format, args...)
		l.w.tracef("VIOLATION %s", l.bad)
	}
}

func (m *shardMessage) String() string { return string(m.p.Message.Body) }

// low and high return how many copies were certainly stored, and how many can have been.
func (m *shardMessage) low() int {
	if m.sure {
		return len(m.queues)
	}
	return 0
}

func (m *shardMessage) high() int {
	if m.refused {
		return 0
	}
	return len(m.queues)
}

func (l *shardLedger) sending(m *shardMessage) {
	l.messages[m.String()] = m
	l.order = append(l.order, m)
}

func (l *shardLedger) published(m *shardMessage, r surgetank.PublishResult) {
	l.checks++
	switch {
	case r.Err == nil && r.Duplicate && !m.again:
		l.violation("dedup", "%v has no number and no dedup id, and was called a duplicate", m)
	case r.Err == nil:
		m.sure = true
		l.w.tracef("%v is confirmed as %v", m, r.ID)
	case !m.again && len(m.queues) == 1 && surgetank.CodeOf(r.Err) == surgetank.CodeFull:
		m.refused = true
	default:
		l.w.tracef("%v: %v", m, r.Err)
	}
}

// delivered is called for every message that a client receives.
func (l *shardLedger) delivered(d *surgetank.Delivery) *shardCopy {
	l.checks++
	m := l.messages[string(d.Body)]
	if m == nil {
		l.violation("invented", "%v of %s has the body %q, which nobody sent", d.ID, d.Queue, d.Body)
		return nil
	}
	c := l.copies[d.ID]
	if c == nil {
		c = &shardCopy{id: d.ID, m: m, queue: d.Queue}
		l.copies[d.ID] = c
	}
	switch {
	case m.rewound:
	case c.m != m || c.queue != d.Queue:
		l.violation("seen before it was safe", "%v was %v in %s and is %v in %s", d.ID, c.m, c.queue, m, d.Queue)
	case c.acked:
		l.violation("a confirmed ack is final", "%v (%v) was delivered after its ack was confirmed", d.ID, m)
	case m.refused:
		l.violation("refused", "%v (%v) was delivered, and its publish was refused", d.ID, m)
	case m.acked >= m.high():
		l.violation("stored once", "%v (%v) was delivered in %s, and all %d copies are acked", d.ID, m, d.Queue, m.high())
	case slices.Contains(l.w.names(true), d.Queue) && len(d.Deaths) == 0 && !m.redriven:
		l.violation("history", "%v (%v) is in %s without a death", d.ID, m, d.Queue)
	}
	if c.ackSent { // the ack had no effect before this lease began
		c.ackSent = false
		m.unsure--
	}
	c.receipt = d.Receipt
	return c
}

// settling is called before a settlement is sent. It returns the settlement's ordinal.
func (l *shardLedger) settling(c *shardCopy, s *surgetank.Settlement) int {
	l.ordinal++
	switch s.Op {
	case surgetank.Ack:
		if !c.acked && !c.ackSent {
			c.ackSent = true
			c.m.unsure++
		}
	case surgetank.Reject:
		c.m.rejected = 0
	}
	return l.ordinal
}

// settled is called with the answer to a settlement.
func (l *shardLedger) settled(c *shardCopy, s *surgetank.Settlement, ordinal int, err error) {
	l.checks++
	if s.Op == surgetank.Reject && err == nil {
		c.m.rejected = ordinal
	}
	if s.Op != surgetank.Ack || s.Receipt != c.receipt {
		return
	}
	switch code := surgetank.CodeOf(err); {
	case err == nil:
		if c.acked && !c.m.rewound {
			l.violation("a confirmed ack is final", "the ack of %v (%v) was confirmed twice", c.id, c.m)
		}
		c.acked = true
		c.m.acked++
	case code == surgetank.CodeLeaseLost:
	default:
		return // the outcome is not known
	}
	if c.ackSent {
		c.ackSent = false
		c.m.unsure--
	}
}

// redriving is called before a redrive, with the messages of the queue in their order.
func (l *shardLedger) redriving(ds []surgetank.Delivery, to string) {
	for i := range ds {
		if m := l.messages[string(ds[i].Body)]; m != nil {
			l.ordinal++
			m.redriven, m.to, m.turn, m.deaths = true, to, l.ordinal, len(ds[i].Deaths)
		}
	}
}

// excuse records that a client's command can drop messages.
func (l *shardLedger) excuse() {
	for _, m := range l.order {
		m.excused = true
	}
}

// rewound records that a shard is restored from a copy.
func (l *shardLedger) rewound() {
	for _, m := range l.order {
		m.excused, m.rewound = true, true
	}
}

// recovered judges the messages of all shards after a crash, when no transfer is under way. found
// has the messages of each queue and each outbox that is not empty.
func (l *shardLedger) recovered(found []shardQueue) {
	copies := make(map[*shardMessage]int, len(l.order))
	for _, q := range found {
		for i := range q.messages {
			d := &q.messages[i]
			m := l.messages[string(d.Body)]
			if m == nil {
				l.violation("invented", "after a power failure %v of %q has the body %q, which nobody sent", d.ID, q.name, d.Body)
				return
			}
			copies[m]++
			if c := l.copies[d.ID]; c != nil && c.acked && !m.rewound {
				l.violation("a confirmed ack is final", "%v (%v) is there again after a power failure", d.ID, m)
			}
		}
		to, _, outbox := door.OutboxOf(q.name)
		if !outbox {
			l.inOrder(q.name, q.messages)
			continue
		}
		line := bySeq(q.messages) // after all messages that have arrived
		for _, o := range found {
			if o.name == to {
				line = append(bySeq(o.messages), line...)
			}
		}
		l.inLine(to, line)
	}
	for _, m := range l.order {
		l.checks++
		switch n := copies[m]; {
		case !m.excused && n+m.acked+m.unsure < m.low():
			l.violation("nothing confirmed is lost", "%v: %d copies were stored and %d acked (%d unsure); after a power failure there are %d", m, m.low(), m.acked, m.unsure, n)
		case !m.rewound && n+m.acked > m.high():
			l.violation("stored once", "%v: %d copies can be stored and %d are acked; after a power failure there are %d", m, m.high(), m.acked, n)
		}
	}
}

// shardQueue is a queue or an outbox after a crash.
type shardQueue struct {
	name     string
	messages []surgetank.Delivery
}

func bySeq(ds []surgetank.Delivery) []surgetank.Delivery {
	return slices.SortedFunc(slices.Values(ds), func(x, y surgetank.Delivery) int { return cmp.Compare(x.ID.Seq, y.ID.Seq) })
}

// inOrder checks the order of a queue's messages.
func (l *shardLedger) inOrder(name string, ds []surgetank.Delivery) { l.inLine(name, bySeq(ds)) }

// inLine checks the order of messages that are in a queue or on their way to it: dead letters by
// the time of their death, and redriven messages as they were in their queue before.
func (l *shardLedger) inLine(name string, ds []surgetank.Delivery) {
	if l.misread {
		return
	}
	type death struct {
		time time.Time
		turn int
		m    *shardMessage
	}
	last := map[string]death{}
	var moved *shardMessage
	for i := range ds {
		d := &ds[i]
		m := l.messages[string(d.Body)]
		if m == nil || m.rewound || len(m.queues) > 1 {
			continue
		}
		if m.redriven {
			if m.to != name || m.deaths != len(d.Deaths) || name == "" {
				continue
			}
			if moved != nil && moved.turn > m.turn {
				l.violation("order of transfers", "%v was before %v when they were redriven, and is after it in %s", m, moved, name)
			}
			moved = m
			continue
		}
		if len(d.Deaths) == 0 {
			continue
		}
		now := death{d.Deaths[0].Time, 0, m}
		if d.Deaths[0].Reason == surgetank.ReasonRejected {
			now.turn = m.rejected
		}
		was, ok := last[d.Deaths[0].Queue]
		if ok && (now.time.Before(was.time) || now.turn > 0 && now.turn < was.turn && now.time.Equal(was.time)) {
			l.violation("order of transfers", "%v died in %s before %v, at %v and %v, and is after it in %q", m, d.Deaths[0].Queue, was.m, now.time, was.time, name)
		}
		last[d.Deaths[0].Queue] = now
	}
}

// drained checks, after everything was delivered, that no message is missing or was stored twice.
func (l *shardLedger) drained() {
	l.recovered(nil)
}
