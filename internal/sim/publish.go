package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/queue"
)

// newMessage returns a new message and its queues.
func (w *world) newMessage(rng *rand.Rand) (surgetank.Message, []string) {
	w.serial++
	p := pick(rng, w.o.Queues)
	body := fmt.Sprintf("%d", w.serial)
	m := w.message(body, "", rng.IntN(4))
	if w.o.Dedup > 0 && rng.IntN(2) == 0 {
		m.DedupID = "id-" + body
	}
	if m.Group != "" {
		m.Body = []byte(body + "/" + m.Group)
	}
	if w.o.Rules && rng.IntN(2) == 0 { // the queue's rule finds a group, if the message has no group of its own
		g := fmt.Sprintf("r%d", rng.IntN(3))
		m.Key, m.Headers = g, []surgetank.Header{{Name: "g", Value: g}}
		if m.Group == "" && rng.IntN(2) == 0 {
			m.Body = fmt.Appendf(nil, `{"n":%d,"g":%q}`, w.serial, g)
		}
	}
	if m.Body[0] != '{' && rng.IntN(4) == 0 {
		m.Body = append(m.Body, strings.Repeat("-", rng.IntN(600))...)
	}
	if w.o.Coalesce && rng.IntN(4) > 0 {
		m.Headers = append(m.Headers, surgetank.Header{Name: keyHeader, Value: pick(rng, []string{"1", "2", "g1"})})
	}
	m.Priority = uint8(rng.IntN(4))
	if rng.IntN(10) == 0 {
		m.Delay = time.Duration(1+rng.IntN(8000)) * time.Millisecond
	}
	if w.o.Schedules && rng.IntN(8) == 0 {
		m.Delay = time.Duration(1+rng.IntN(300)) * time.Minute
	}
	if w.o.TTLs && rng.IntN(3) == 0 {
		m.TTL = time.Duration(1+rng.IntN(12_000)) * time.Millisecond
	}
	queues := []string{p.Name}
	if w.o.MultiTarget && !p.Strict && rng.IntN(3) == 0 {
		for _, o := range w.o.Queues {
			if !o.Strict && o.Name != p.Name {
				queues = append(queues, o.Name)
			}
		}
	}
	undeclared := func(name string) bool { return !w.declared[name] }
	if w.o.FoundIDs && m.DedupID != "" && !slices.ContainsFunc(queues, undeclared) { // for the queues to find
		m.Headers, m.DedupID = append(m.Headers, surgetank.Header{Name: idHeader, Value: m.DedupID}), ""
	}
	return m, queues
}

func (w *world) message(body, dedup string, group int) surgetank.Message {
	m := surgetank.Message{Body: []byte(body), DedupID: dedup}
	if group > 0 {
		m.Group = fmt.Sprintf("g%d", group)
	}
	if _, g, ok := strings.Cut(body, "/"); ok { // the message is sent again
		m.Group, _, _ = strings.Cut(g, "-")
	}
	return m
}

func (w *world) publish(m surgetank.Message, queues []string) {
	id := m.DedupID
	for _, h := range m.Headers {
		if h.Name == idHeader {
			id = h.Value
			w.count.one(FoundIDs)
		}
	}
	known := w.ledger.sending(string(m.Body), queues, id, m.Delay > 0, m.TTL > 0)
	w.ledger.keyed(known, &m)
	w.count.one(Published)
	if len(queues) > 1 {
		w.count.one(Multiple)
	}
	w.tracef("publish %.20s to %v group %q id %q", m.Body, queues, m.Group, id)
	life := w.life
	err := w.b.PublishAsync(background, []surgetank.Publishing{{Queues: queues, Message: m}}, func(rs []surgetank.PublishResult, err error) {
		if !w.ok(life) {
			return
		}
		if err != nil {
			w.count.one(Uncertain)
			return
		}
		w.tracef("published %.20s: %v dup=%v %v", m.Body, rs[0].ID, rs[0].Duplicate, rs[0].Err)
		w.ledger.published(known, rs[0])
	})
	if err != nil && w.b.Err() == nil {
		w.ledger.violation("answers", "a publish was refused by the mailbox: %v", err)
	}
}

// transact publishes one message and acks another in a transaction.
func (w *world) transact(rng *rand.Rand) {
	if len(w.deliveries) == 0 {
		return
	}
	i := len(w.deliveries) - 1 - rng.IntN(min(len(w.deliveries), 8))
	d := w.deliveries[i]
	if d.copy.ackSent || d.copy.acked || d.copy.lease != d.receipt {
		return
	}
	w.deliveries = slices.Delete(w.deliveries, i, i+1)
	m, queues := w.newMessage(rng)
	m.DedupID, m.Headers = "", slices.DeleteFunc(m.Headers, func(h surgetank.Header) bool { return h.Name == idHeader })
	known := w.ledger.sending(string(m.Body), queues, "", m.Delay > 0, m.TTL > 0)
	t := &transaction{source: d.copy, lease: d.receipt}
	known.transact = t
	w.transactions = append(w.transactions, t)
	s := surgetank.Settlement{Receipt: d.receipt, Op: surgetank.Ack}
	w.ledger.settling(d.copy, &s)
	w.count.one(Published)
	w.tracef("transact: publish %s to %v, ack %v (%s)", m.Body, queues, d.receipt, d.copy.m.body)
	p := surgetank.Publishing{Queues: queues, Message: m}
	c := &queue.Transact{Publish: queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)},
		Settle: queue.Settle{Items: []surgetank.Settlement{s}}}
	w.send(c, func(err error) {
		w.tracef("transacted %s: %v %v", m.Body, err, c.Err)
		switch {
		case err != nil:
			w.count.one(Uncertain)
		case c.Err != nil:
			known.high -= len(queues)
			known.transact = nil
			w.transactions = slices.DeleteFunc(w.transactions, func(o *transaction) bool { return o == t })
			w.ledger.settled(d.copy, &s, c.Err)
		default:
			w.count.one(Acked)
			w.ledger.settled(d.copy, &s, nil)
			w.ledger.published(known, c.Publish.Results[0])
			if e := c.Publish.Results[0].Err; e != nil {
				w.ledger.violation("transactions are whole", "a transaction was confirmed and its publish refused: %v", e)
			}
		}
	})
}
