package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
)

// numberer is a publisher that numbers its messages. It sends some messages again, whether they
// were stored or not. Each message must be stored once.
type numberer struct {
	id    string
	known bool // the broker answered for number 1, so it knows the publisher
	used  time.Time
	sent  []*numbered // number n is at index n-1
}

// numbered is one message of a numberer.
type numbered struct {
	p      *numberer
	number uint64
	pub    surgetank.Publishing
	known  *message
	tries  int
	stored surgetank.MessageID // the message's id in the first confirm
	sure   bool                // the message was confirmed
}

// usedWithin is how long a numberer may be idle: a day less than the broker remembers it.
const usedWithin = 6 * 24 * time.Hour

// publishNumbered sends new messages of a numberer, or repeats old ones, in one call.
func (w *world) publishNumbered(again bool, rng *rand.Rand) {
	for len(w.numberers) < 2 {
		w.numberers = append(w.numberers, w.newNumberer())
	}
	i := rng.IntN(2)
	p := w.numberers[i]
	if !p.used.IsZero() && w.b.Now().Sub(p.used) > usedWithin { // the broker can forget the publisher
		p = w.newNumberer()
		w.numberers[i] = p
	}
	var batch []*numbered
	switch n := 1 + rng.IntN(4); {
	case again && len(p.sent) > 0:
		for ; n > 0; n-- {
			batch = append(batch, p.sent[len(p.sent)-1-rng.IntN(min(len(p.sent), 8))])
		}
	case len(p.sent) > 0 && !p.known: // the first number that the broker sees must be 1
		batch = append(batch, p.sent[0])
	default:
		for ; n > 0; n-- {
			m, queues := w.newMessage(rng)
			m.DedupID, m.Headers = "", slices.DeleteFunc(m.Headers, func(h surgetank.Header) bool { return h.Name == idHeader })
			x := &numbered{p: p, number: uint64(len(p.sent) + 1), known: w.ledger.sending(string(m.Body), queues, "", m.Delay > 0, m.TTL > 0)}
			x.pub = surgetank.Publishing{Queues: queues, Message: m, Publisher: p.id, Sequence: x.number}
			p.sent, batch = append(p.sent, x), append(batch, x)
		}
	}
	w.sendNumbered(batch)
}

func (w *world) newNumberer() *numberer {
	w.serial++
	return &numberer{id: fmt.Sprintf("numbering-publisher-%d", w.serial)}
}

func (w *world) sendNumbered(batch []*numbered) {
	ps := make([]surgetank.Publishing, len(batch))
	if p := batch[0].p; p.used.IsZero() { // the message can be stored although the answer was lost
		p.used = w.b.Now()
	}
	for i, x := range batch {
		if ps[i] = x.pub; x.tries > 0 {
			w.count.one(NumbersRepeated)
		}
		w.ledger.keyed(x.known, &x.pub.Message)
		x.tries++
		w.count.one(Published)
		w.tracef("publish number %d of %s to %v: %.20s", x.number, x.p.id, x.pub.Queues, x.pub.Message.Body)
	}
	life := w.life
	err := w.b.PublishAsync(background, ps, func(rs []surgetank.PublishResult, err error) {
		if !w.ok(life) {
			return
		}
		if err != nil {
			w.count.one(Uncertain)
			return
		}
		for i, x := range batch {
			w.tracef("published number %d of %s: %v dup=%v %v", x.number, x.p.id, rs[i].ID, rs[i].Duplicate, rs[i].Err)
			w.ledger.numbered(x, rs[i])
		}
	})
	if err != nil && w.b.Err() == nil {
		w.ledger.violation("answers", "a publish was refused by the mailbox: %v", err)
	}
}

// mayBe tells whether a duplicate's message id can be right. The broker can have forgotten the id
// or its incarnation.
func mayBe(id, first surgetank.MessageID) bool {
	if id.Incarnation == 0 {
		first.Incarnation = 0
	}
	return id == first || id == surgetank.MessageID{} || first.Seq == 0
}

// numbered is called with the answer for a message with a number.
func (l *ledger) numbered(x *numbered, r surgetank.PublishResult) {
	l.checks++
	p := x.p
	if e, _ := r.Err.(*surgetank.Error); e != nil {
		if e.Code == surgetank.CodeUncertain && p.known {
			l.violation("numbers are remembered", "number %d of %s: %v", x.number, p.id, e)
		}
		if x.sure {
			l.violation("numbers are remembered", "number %d of %s was confirmed as %v, and then refused: %v", x.number, p.id, x.stored, e)
		}
		p.known = p.known || x.number == 1
		p.used = l.w.b.Now()
		return
	}
	p.known, p.used = true, l.w.b.Now()
	switch {
	case r.Duplicate && x.tries == 1:
		l.violation("stored once", "number %d of %s was sent once and called a duplicate", x.number, p.id)
	case !r.Duplicate && x.sure:
		l.violation("stored once", "number %d of %s was confirmed as %v, and stored again as %v", x.number, p.id, x.stored, r.ID)
	case r.Duplicate && x.sure && !mayBe(r.ID, x.stored):
		l.violation("stored once", "number %d of %s was confirmed as %v, and again as %v", x.number, p.id, x.stored, r.ID)
	case r.Duplicate:
		l.w.count.one(NumbersKnown)
		if x.known.sure = len(x.known.queues); !x.sure {
			x.stored = r.ID
		}
	default:
		l.published(x.known, r)
		x.stored = r.ID
	}
	x.sure = true
}
