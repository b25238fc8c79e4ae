package queue

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Incoming is one publishing and the values that were prepared outside the machine.
type Incoming struct {
	*surgetank.Publishing
	Groups []string // one group for each queue; nil: the message's own group in all queues
	Dedup  DedupKey // of the dedup id, if there is one
	// DedupBy is the rule that found the dedup id, if the publisher set no id. Queues with another
	// rule, or with none, ignore the id.
	DedupBy string
	Keys    []Key // coalescing keys, one for each queue; nil: there are none
}

// Check refuses a publishing that breaks a limit. It needs no machine and may run on any goroutine.
func Check(p *surgetank.Publishing, maxMessage int) error {
	m := &p.Message
	if err := checkIdentity("group", m.Group, surgetank.MaxNameLen); err != nil {
		return err
	}
	if err := checkIdentity("dedup_id", m.DedupID, surgetank.MaxDedupIDLen); err != nil {
		return err
	}
	switch {
	case len(p.Queues) == 0:
		return surgetank.FieldErrorf("queue", "the message names no queue; name at least one")
	case len(p.Queues) > surgetank.MaxTargets:
		return surgetank.FieldErrorf("queue", "the message names %d queues; at most %d are allowed", len(p.Queues), surgetank.MaxTargets)
	case len(m.Body) > maxMessage:
		return tooLarge("body", "the message has %d bytes, more than the limit of %d; send it in parts or raise the limit", len(m.Body), maxMessage)
	case len(m.Key) > surgetank.MaxNameLen:
		return surgetank.FieldErrorf("key", "the key has %d bytes; at most %d are allowed", len(m.Key), surgetank.MaxNameLen)
	case len(m.ContentType) > surgetank.MaxNameLen:
		return surgetank.FieldErrorf("content_type", "the content type has %d bytes; at most %d are allowed", len(m.ContentType), surgetank.MaxNameLen)
	case m.Delay < 0 || m.Delay > surgetank.MaxDuration:
		return surgetank.FieldErrorf("delay", "the delay must be between 0 and 10 years, not %v", m.Delay)
	case m.TTL < 0 || m.TTL > surgetank.MaxDuration:
		return surgetank.FieldErrorf("ttl", "the TTL must be between 0 and 10 years, not %v", m.TTL)
	case len(m.Headers) > surgetank.MaxHeaders:
		return surgetank.FieldErrorf("headers", "the message has %d headers; at most %d are allowed", len(m.Headers), surgetank.MaxHeaders)
	}
	if err := surgetank.ValidatePublisher(p.Publisher, p.Sequence); err != nil {
		return err
	}
	size := len(*door.Opaque(m))
	for i := range m.Headers {
		h := &m.Headers[i]
		if h.Name == "" || len(h.Name) > surgetank.MaxNameLen {
			return surgetank.FieldErrorf("headers", "the header name %.40q has %d bytes; 1 to %d are allowed", h.Name, len(h.Name), surgetank.MaxNameLen)
		}
		size += len(h.Name) + len(h.Value)
	}
	if size > surgetank.MaxHeaderBytes {
		return tooLarge("headers", "the headers have %d bytes together; at most %d are allowed", size, surgetank.MaxHeaderBytes)
	}
	return nil
}

// checkIdentity refuses a group or dedup id from a publisher that cannot be stored unchanged. Every
// door refuses the same values, so no message is stored without its group or id.
func checkIdentity(field, v string, most int) error {
	switch {
	case len(v) > most:
		return tooLarge(field, "%s has %d bytes; at most %d are allowed: send a hash of it instead", field, len(v), most)
	case !utf8.ValidString(v):
		return surgetank.FieldErrorf(field, "%s %.60q is not valid UTF-8", field, v)
	case strings.ContainsFunc(v, unicode.IsControl):
		return surgetank.FieldErrorf(field, "%s %.60q holds a control character", field, v)
	}
	return nil
}

func tooLarge(field, format string, args ...any) error {
	e := surgetank.Errorf(surgetank.CodeTooLarge, format, args...)
	e.Field = field
	return e
}

// Publish stores messages, each on its own: a refused message does not stop the other messages.
type Publish struct {
	Msgs    []Incoming
	Results []surgetank.PublishResult // as long as Msgs

	next int
}

func (c *Publish) run(m *Machine) bool {
	var run numbers
	defer run.flush(m)
	for ; c.next < len(c.Msgs); c.next++ {
		if c.next > 0 && (m.turnFull() || c.next%splitAt == 0 && m.publishersDone()) {
			return false
		}
		m.published++
		in, res := &c.Msgs[c.next], &c.Results[c.next]
		switch { // a message can already be refused
		case in.Publisher != "" && (res.Err == nil || surgetank.ValidatePublisher(in.Publisher, in.Sequence) == nil):
			*res = m.numbered(in, &run, res.Err)
		case res.Err == nil:
			*res = m.publish(in, false)
		}
	}
	return true
}

// diskFull returns an error if the disk has no room for messages.
func (m *Machine) diskFull(q *Queue) error {
	if !m.full {
		return nil
	}
	q.stats.refused++
	return q.refuse(limitDisk, surgetank.CodeFull, 5*time.Second, "the disk of the broker is nearly full: messages are not taken until space is freed; acks still are")
}

// admit returns an error if a queue has no room for this number of messages, or for their bytes
// together.
func (m *Machine) admit(q *Queue, messages, size int64) error {
	if err := m.diskFull(q); err != nil {
		return err
	}
	if err := q.acceptRate(max(1, messages)); err != nil {
		q.stats.refused++
		return err
	}
	reject := q.config.Overflow == surgetank.OverflowReject
	if !q.over(messages, size) || !reject && q.sheds() {
		return nil
	}
	if q.dispatch(); !q.over(messages, size) { // a hand-out to a waiting consumer can make room
		return nil
	}
	q.mark()
	q.stats.refused++
	m.notice(Refused, q, "", "")
	if !reject {
		return q.refuse(limitDeadLetters, surgetank.CodeFull, time.Second, "queue %q and its dead-letter queue %q are both at their limits; publish again after some messages were consumed",
			shown(q.name), shown(q.deadLetter()))
	}
	by := limitBytes
	if most := q.config.MaxMessages; most > 0 && q.waiting+q.delayedN+messages > most {
		by = limitMessages
	}
	return q.refuse(by, surgetank.CodeFull, time.Second, "queue %q is at its limit with %d messages (%d bytes) waiting; publish again after some were consumed, or raise %s",
		shown(q.name), q.waiting+q.delayedN, q.bytes-q.leasedBytes, strings.TrimPrefix(limitNames[by], "queue."))
}

func noQueue(name string) error {
	return surgetank.Errorf(surgetank.CodeNotFound, "there is no queue %q; make it first (surgetank queue set NAME)", shown(name))
}

// dedups tells whether a queue remembers a message by its dedup id.
func (q *Queue) dedups(in *Incoming) bool {
	return q.config.DedupWindow > 0 && in.Message.DedupID != "" && (in.DedupBy == "" || in.DedupBy == q.config.DedupBy)
}

// duplicate tells whether a queue knows a message's dedup id, and returns the message that was
// published with it.
func (m *Machine) duplicate(q *Queue, in *Incoming) (seq uint64, known bool) {
	if !q.dedups(in) {
		return 0, false
	}
	return q.dedup.find(in.Dedup, m.now)
}

// publish decides about one message. Each queue that accepts it becomes a target of one record. If
// admitted is true, the caller has already checked the limits of every queue.
func (m *Machine) publish(in *Incoming, admitted bool) (res surgetank.PublishResult) {
	r := &m.pub // not m.rec: admit can hand out messages, which emits records
	r.Kind, r.Targets, r.NotBefore, r.Priority = kindEnqueued, r.Targets[:0], 0, in.Message.Priority
	r.DedupKey, r.BodySize = in.Dedup, uint32(len(in.Message.Body))
	msg := &in.Message
	var dup surgetank.MessageID
	var joined []Target // Seq is the message that the new one joins
	for i, name := range in.Queues {
		q := m.byName[name]
		if q == nil {
			res.Err = noQueue(name)
			continue
		}
		if q.frozen {
			res.Err = q.movingError()
			continue
		}
		if len(in.Queues) > 1 && (named(r.Targets, q.id) || named(joined, q.id)) {
			continue
		}
		t := Target{Queue: q.id, Group: msg.Group}
		if in.Groups != nil {
			t.Group = in.Groups[i]
		}
		if seq, known := m.duplicate(q, in); known {
			q.stats.duplicates++
			if dup.Seq == 0 {
				dup = q.idOf(seq)
			}
			continue
		}
		if q.dedups(in) {
			t.DedupUntil = m.now + int64(q.config.DedupWindow)
		}
		if in.Keys != nil && q.coalesces() && in.Keys[i].Hash != (CoalesceKey{}) {
			t.Key, t.GroupKey = in.Keys[i].Hash, in.Keys[i].Group
			joins, err := m.admitKeyed(q, &t, int64(len(msg.Body)), admitted)
			if err != nil {
				res.Err = err
				continue
			}
			if t.Seq = joins; joins != 0 {
				joined = append(joined, t)
				continue
			}
			t.Due = q.dueOf(&t, msg.Delay)
		} else if !admitted {
			if err := m.admit(q, 1, int64(len(msg.Body))); err != nil {
				res.Err = err
				continue
			}
		}
		t.Seq = q.nextSeq
		ttl := q.config.TTL
		if msg.TTL > 0 && (ttl == 0 || msg.TTL < ttl) {
			ttl = msg.TTL
		}
		if ttl > 0 {
			t.Expires = m.now + int64(ttl)
		}
		r.Targets = append(r.Targets, t)
	}
	if res.Err != nil && in.Publisher != "" {
		return surgetank.PublishResult{Err: res.Err}
	}
	for i := range r.Targets {
		q := m.byID[r.Targets[i].Queue]
		q.stats.published++
		rateSpend(&q.acceptAt, q.config.Accept.Rate, m.now)
		if r.Targets[i].Supersedes != 0 {
			q.stats.coalesced++
		}
	}
	for i := range joined {
		t := &joined[i]
		q := m.byID[t.Queue]
		q.stats.published++
		m.join(q, t.Seq, in, t.DedupUntil)
		if res.ID.Seq == 0 {
			res.ID = q.idOf(t.Seq)
		}
	}
	if len(r.Targets) == 0 && joined != nil {
		return res
	}
	if len(r.Targets) == 0 {
		res.ID, res.Duplicate = dup, dup.Seq != 0 && res.Err == nil
		return res
	}
	if msg.Delay > 0 {
		r.NotBefore = m.now + int64(msg.Delay)
	}
	r.Time = m.now
	var position int
	m.out.Entry, position = appendMessage(m.out.Entry, r, msg, nil)
	r.Ref = makeRef(m.entry, position)
	m.out.Records++
	m.apply(r)
	res.ID = m.byID[r.Targets[0].Queue].idOf(r.Targets[0].Seq)
	for i := range r.Targets {
		m.byID[r.Targets[i].Queue].makeRoom()
	}
	return res
}

// named tells whether a queue is among the targets already. A message reaches each queue once.
func named(ts []Target, queue uint64) bool {
	for i := range ts {
		if ts[i].Queue == queue {
			return true
		}
	}
	return false
}
