package sim

import (
	"maps"
	"slices"

	"github.com/surgetank/surgetank"
)

// keyHeader is the header in which queues find coalescing keys.
const keyHeader = "k"

// drawCoalescing draws the settings of a queue that coalesces.
func drawCoalescing(c *surgetank.CoalesceConfig, n func(int) int) {
	c.By = []string{"header:" + keyHeader, "header:" + keyHeader, "group"}[n(3)]
	c.Keep = []surgetank.Keep{surgetank.KeepLast, surgetank.KeepFirst}[n(2)]
	c.Window = []surgetank.CoalesceConfig{{}, {}, {Window: 2e9}}[n(3)].Window
	c.MaxWait = []surgetank.CoalesceConfig{{}, {MaxWait: surgetank.NoMaxWait}, {MaxWait: 5e9}}[n(3)].MaxWait
}

// keyed records, before a publish is sent, whether the message can coalesce. For messages whose
// group a queue's rule finds, the ledger only permits that another message is delivered instead.
func (l *ledger) keyed(m *message, msg *surgetank.Message) {
	w, keys, maybe := l.w, map[string]string{}, map[string]string{}
	for _, name := range m.queues {
		p := w.plan(name)
		if p == nil || p.Config.Coalesce.By == "" {
			continue
		}
		value := msg.Group
		if p.Config.Coalesce.By != "group" {
			value = ""
			for _, h := range msg.Headers {
				if h.Name == keyHeader {
					value = h.Value
				}
			}
		}
		if value == "" && !w.o.Rules {
			continue
		}
		m.coalesced = true
		known := w.settled[name] && !w.o.Delete && !p.Config.Transient // the broker knows the queue's rule
		maybe[name] = name + "\x00" + msg.Group + "\x00" + value
		if known && !w.o.Rules {
			keys[name] = maybe[name]
		}
	}
	l.events++
	m.resent = l.events
	switch {
	case m.sent == 0:
		m.sent, m.keys, m.maybe = l.events, keys, maybe
		for _, h := range msg.Headers {
			if h.Name == keyHeader {
				m.headers = append(m.headers, h)
			}
		}
	case !maps.Equal(keys, m.keys): // a queue of the message did not have its rule yet
		m.keys = nil
	}
}

// joins tells whether a message of the queue can be confirmed under the id of another message.
func (l *ledger) joins(queues []string) bool {
	return slices.ContainsFunc(queues, func(name string) bool {
		p := l.w.plan(name)
		return p != nil && p.Config.Coalesce.By != "" && p.Config.Coalesce.Keep == surgetank.KeepFirst
	})
}

// inChain checks a delivery of a message with a coalescing key: no later message of the key was
// delivered before, and no other message of the key is leased.
func (l *ledger) inChain(c *stored, d *surgetank.Delivery) {
	l.events++
	c.m.delivered = l.events
	key := c.m.keys[c.queue]
	if key == "" || len(d.Deaths) > 0 || l.w.blamed() || l.w.o.Redrive || l.w.o.NoAck {
		return // without acks, two clients can look at their messages in any order
	}
	for _, o := range l.copies {
		if o == c || o.m.keys[o.queue] != key || o.id.Queue != c.id.Queue || o.dead {
			continue
		}
		inFlight := o.live && o.lease.Epoch == l.w.b.Epoch() && (o.deadline.IsZero() || l.w.b.Now().Before(o.deadline))
		switch {
		case o.delivered > 0 && o.id.Seq > c.id.Seq:
			l.violation("a superseded message is not delivered", "%v (%s) was delivered after %v (%s), which has the same key", c.id, c.m.body, o.id, o.m.body)
		case inFlight:
			l.violation("one lease of a key", "%v (%s) was delivered while %v (%s) with the same key is leased", c.id, c.m.body, o.id, o.m.body)
		}
	}
	l.w.count.one(KeysDelivered)
}

// covered tells whether an undelivered message was coalesced into another message, which was
// delivered after the undelivered one was sent. With keep: last, the other message must be a later
// one.
func (l *ledger) covered(m *message) bool {
	key := m.keys[m.queues[0]]
	if key == "" || len(m.queues) > 1 {
		return true // the ledger knows only that another message can be delivered instead
	}
	last := l.w.plan(m.queues[0]).Config.Coalesce.Keep != surgetank.KeepFirst
	return slices.ContainsFunc(l.order, func(o *message) bool {
		return o.maybe[m.queues[0]] == key && (o.excused || o.delivered > m.sent && o.acked+o.unsure > 0 && (!last || o.resent >= m.sent))
	})
}
