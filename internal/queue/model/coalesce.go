package model

import (
	"github.com/surgetank/surgetank"
)

// Coalescing. Messages of a queue with the same key are in a chain, in the order of their numbers.
// Only the first of a chain may be leased.

// Key is a message's coalescing key in one queue. The zero value is no key.
type Key struct {
	ID    string
	Group bool // the key is the message's group
}

// chained is the coalescing state of a message.
type chained struct {
	id    string // id of its key; "": no key, or a dead letter
	kept  string // a dead letter's id of its key, for a redrive
	due   int64  // earliest time of its first delivery; 0: at once. No meaning after a lease
	since int64  // when the first message that it stands for was confirmed
	place uint64 // its rank among the groups' front messages; 0: its number
	late  bool   // its publisher asked for a delay
}

func (q *Queue) ahead(x *Message) (ahead *Message) {
	for _, o := range q.msgs {
		if o == x {
			return ahead
		}
		if x.chain.id != "" && o.chain.id == x.chain.id {
			ahead = o
		}
	}
	return nil
}

func (q *Queue) behind(x *Message) *Message {
	for _, o := range q.msgs {
		if o.seq > x.seq && x.chain.id != "" && o.chain.id == x.chain.id {
			return o
		}
	}
	return nil
}

// last returns the last message of a chain.
func (q *Queue) last(id string) (last *Message) {
	for _, o := range q.msgs {
		if o.chain.id == id {
			last = o
		}
	}
	return last
}

// meets returns the waiting message that a new message joins or supersedes.
func (q *Queue) meets(id string) (joins, supersedes *Message) {
	c := q.Config.Coalesce
	x := q.last(id)
	switch {
	case x == nil || !x.inLine() || c.MaxWait > 0 && q.m.Now-x.chain.since >= int64(c.MaxWait):
	case c.Keep == surgetank.KeepLast:
		return nil, x
	case !x.again && !x.suspect:
		return x, nil
	}
	return nil, nil
}

// refusesKeyed returns the code with which a queue refuses a message with a key, or "".
func (q *Queue) refusesKeyed(id string, size int64) surgetank.Code {
	for {
		joins, supersedes := q.meets(id)
		no := surgetank.Code("")
		switch {
		case joins != nil && q.m.Full:
			no = surgetank.CodeFull
		case joins != nil:
		case supersedes != nil:
			no = q.refuses(0, size-supersedes.size)
		default:
			no = q.refuses(1, size)
		}
		if no != "" {
			return no
		}
		if j, s := q.meets(id); j == joins && s == supersedes {
			return ""
		}
	}
}

// addKeyed adds a message with a key. It removes the message that the new one supersedes.
func (q *Queue) addKeyed(x *Message, key Key, delay int64) {
	now := q.m.Now
	_, old := q.meets(key.ID)
	x.chain = chained{id: key.ID, due: now + max(delay, int64(q.Config.Coalesce.Window)), since: now}
	if old != nil && !old.again {
		x.chain.due = min(x.chain.due, old.chain.due)
		x.chain.since = old.chain.since
		if key.Group {
			if x.chain.place = old.chain.place; x.chain.place == 0 {
				x.chain.place = old.seq
			}
		}
	}
	if x.chain.due <= now {
		x.chain.due = 0
	}
	x.chain.late = delay > 0 && x.chain.due > now
	x.seq = q.next
	q.next++
	if x.since = now; x.chain.late {
		x.since = x.chain.due
	}
	q.group(x.key())
	q.msgs = append(q.msgs, x)
	if old != nil {
		q.remove(old)
	}
	q.place(x, x.chain.due)
}

// superseded removes a message whose lease has ended without an ack, if its queue keeps the last
// message of a chain and another message of the chain follows.
func (q *Queue) superseded(x *Message) bool {
	if c := q.Config.Coalesce; c.By == "" || c.Keep != surgetank.KeepLast || q.behind(x) == nil {
		return false
	}
	q.remove(x)
	return true
}

// redriveMeets removes a redriven message if another message in its new queue stands for it.
func (q *Queue) redriveMeets(x *Message, to *Queue) bool {
	id := x.chain.id + x.chain.kept
	if id == "" || to.Config.Coalesce.By == "" {
		return false
	}
	by := to.last(id)
	if by == nil || by == x || !by.inLine() {
		return false
	}
	if joins, _ := to.meets(id); to.Config.Coalesce.Keep == surgetank.KeepFirst && joins == nil {
		return false
	}
	q.remove(x)
	return true
}

// collects tells whether a message with a group waits in its line for the end of its window.
func (x *Message) collects(now int64) bool {
	return x.group != "" && x.chain.id != "" && !x.again && !x.chain.late && x.chain.due > now
}

// stuck tells whether a message without a group waits for an earlier message of its chain. A stuck
// message is in no line.
func (q *Queue) stuck(x *Message) bool { return x.group == "" && q.ahead(x) != nil }

// unstick ends a message's wait for its chain if no earlier message of the chain is left.
func (q *Queue) unstick(x *Message) {
	if x != nil && q.ahead(x) == nil {
		if x.group == "" {
			q.place(x, x.chain.due)
		}
		q.m.mark(q)
	}
}

// rank returns the rank of a message among the groups' front messages. The lowest is delivered
// first.
func (x *Message) rank() uint64 {
	if x.chain.place != 0 {
		return x.chain.place
	}
	return x.seq
}
