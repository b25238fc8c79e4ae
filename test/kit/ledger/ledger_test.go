package ledger

import (
	"strings"
	"testing"
	"time"
)

// book returns a ledger, and a function that advances the ledger's time.
func book() (*Ledger, func(time.Duration)) {
	l := New()
	return l, func(d time.Duration) { l.began = l.began.Add(-d) }
}

// TestLedgerFinds: each of these histories breaks one promise, and the ledger must report it. A
// check that cannot fail shows nothing.
func TestLedgerFinds(t *testing.T) {
	type kit struct {
		l    *Ledger
		pass func(time.Duration)
		s    *Stream
	}
	send := func(k kit) Hold { // publishes a message and confirms it
		seq := k.l.Next(k.s, 0, false)
		k.l.Published(k.s, seq, Confirmed)
		k.pass(time.Millisecond)
		return Hold{k.s.ID, seq, 0}
	}
	take := func(k kit, h Hold) {
		k.l.Delivered(h, k.l.Now(), false)
		k.pass(time.Millisecond)
	}
	ack := func(k kit, h Hold) {
		k.l.Settling([]Hold{h})
		k.pass(time.Millisecond)
		k.l.Acked([]Hold{h})
		k.pass(time.Millisecond)
	}
	for _, c := range []struct {
		name, want string
		do         func(k kit)
	}{
		{"all is well", "", func(k kit) {
			for range 20 {
				h := send(k)
				take(k, h)
				ack(k, h)
			}
		}},
		{"a rejected message is taken from the dead-letter queue before the rejection is known to have come through", "", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.Settling([]Hold{h})
			k.pass(time.Millisecond)
			k.l.Delivered(h, k.l.Now(), true)
			k.pass(time.Millisecond)
			next := send(k)
			take(k, next)
			ack(k, next)
			k.l.DeadLettered([]Hold{h})
			ack(k, h)
		}},
		{"a confirmed message never comes", "lost", func(k kit) {
			h := send(k)
			send(k)
			take(k, h)
			ack(k, h)
		}},
		{"a delivered message is gone with its lease", "lost", func(k kit) { take(k, send(k)) }},
		{"a dead letter does not arrive", "lost", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.Settling([]Hold{h})
			k.l.DeadLettered([]Hold{h})
		}},
		{"a confirmed message never comes, and the run goes on", "lost or stuck", func(k kit) {
			send(k)
			k.pass(overdue + time.Second)
			k.l.Sweep()
		}},
		{"an acked message comes again", "redelivered", func(k kit) {
			h := send(k)
			take(k, h)
			ack(k, h)
			take(k, h)
		}},
		{"an acked message comes again when it is forgotten", "redelivered", func(k kit) {
			h := send(k)
			take(k, h)
			ack(k, h)
			k.pass(keepFinal + time.Second)
			k.l.Sweep()
			take(k, h)
		}},
		{"a dead letter comes from its queue again", "redelivered", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.Settling([]Hold{h})
			k.l.DeadLettered([]Hold{h})
			k.pass(time.Millisecond)
			take(k, h)
			ack(k, h)
		}},
		{"a group's message overtakes", "order", func(k kit) {
			a, b := send(k), send(k)
			take(k, b)
			ack(k, b)
			take(k, a)
			ack(k, a)
		}},
		{"a group has two messages out", "order", func(k kit) {
			a, b := send(k), send(k)
			take(k, a)
			take(k, b)
			ack(k, a)
			ack(k, b)
		}},
		{"a message that waits for its retry is overtaken", "order", func(k kit) {
			a, b := send(k), send(k)
			take(k, a) // a is nacked afterwards
			take(k, b)
			ack(k, b)
			take(k, a)
			ack(k, a)
		}},
		{"a refused message comes", "refused", func(k kit) {
			seq := k.l.Next(k.s, 0, false)
			k.l.Published(k.s, seq, Refused)
			h := Hold{k.s.ID, seq, 0}
			take(k, h)
			ack(k, h)
		}},
		{"a message comes from nowhere", "nobody published", func(k kit) { take(k, Hold{k.s.ID, 7, 0}) }},
		{"a stream comes from nowhere", "nobody published", func(k kit) { take(k, Hold{99, 1, 0}) }},
		{"a delayed message comes at once", "before its delay", func(k kit) {
			seq := k.l.Next(k.s, time.Minute, false)
			k.l.Published(k.s, seq, Confirmed)
			h := Hold{k.s.ID, seq, 0}
			take(k, h)
			ack(k, h)
		}},
		{"an answer is lost, and the message comes or not", "", func(k kit) {
			seq := k.l.Next(k.s, 0, false)
			k.l.Published(k.s, seq, Maybe)
			k.l.Published(k.s, k.l.Next(k.s, 0, false), Maybe)
			h := Hold{k.s.ID, seq, 0}
			take(k, h)
			ack(k, h)
		}},
		{"the answer to an ack is lost, and the message comes again", "", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.Settling([]Hold{h})
			k.pass(time.Millisecond)
			take(k, h)
			ack(k, h)
		}},
		{"the answer to an ack is lost, the message comes again and is gone", "lost", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.Settling([]Hold{h})
			k.pass(time.Millisecond)
			take(k, h)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, pass := book()
			c.do(kit{l, pass, l.Stream("q", true)})
			l.Finish()
			words := strings.Join(l.Findings(), "\n")
			switch {
			case c.want == "" && words != "":
				t.Errorf("the ledger reports a legal history: %s", words)
			case c.want != "" && !strings.Contains(words, c.want):
				t.Errorf("not found: want %q in %q", c.want, words)
			}
		})
	}
}

// TestLedgerForgets: finished messages use no memory, however long the run is, even if answers are
// lost.
func TestLedgerForgets(t *testing.T) {
	l, pass := book()
	most := 0
	for round := range 300 {
		s := l.Stream("q", true)
		for i := range 50 {
			seq := l.Next(s, 0, i%10 == 9)
			h := Hold{s.ID, seq, 0}
			switch {
			case i%10 == 9: // expires
				l.Published(s, seq, Confirmed)
				continue
			case i%10 == 8 && round%20 == 0:
				l.Published(s, seq, Maybe)
			default:
				l.Published(s, seq, Confirmed)
			}
			l.Delivered(h, l.Now(), false)
			l.Settling([]Hold{h})
			if i%10 != 7 || round%20 != 0 {
				l.Acked([]Hold{h})
			}
		}
		l.Close(s)
		pass(time.Second)
		l.Sweep()
		_, n := l.Pending()
		most = max(most, n)
	}
	pass(keepOpen + time.Second)
	l.Sweep()
	open, items := l.Pending()
	if open != 0 || items != 0 || len(l.streams) != 0 || most > 50*60 || len(l.Findings()) > 0 {
		t.Errorf("%d open, %d items, %d streams left, %d items at most: %v", open, items, len(l.streams), most, l.Findings())
	}
}
