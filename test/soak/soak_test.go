//go:build linux

package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSmoke is a small run with kills. `make soak` is the full one. Its times are too short to
// judge memory, and other activity on the machine must not fail the test, so only the promises are
// checked.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("a run of real processes; not under -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := run(ctx, options{length: 16 * time.Second, warmUp: 3 * time.Second, rate: 600, kills: 4 * time.Second, calm: 0.25,
		settle: 10 * time.Second, tick: 4 * time.Second, progress: t.Logf})
	if s != nil {
		t.Log(s.report("smoke"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := s.l.totals().broken(); n > 0 || s.end.At == 0 || len(s.restarts) < 2 {
		t.Errorf("seed %d: %d findings, %d kills, end %+v: %s", s.seed, n, len(s.restarts), s.end, strings.Join(s.broken(), "\n"))
	}
}

// book is a ledger whose time the test controls.
func book() (*ledger, func(time.Duration)) {
	l := newLedger()
	return l, func(d time.Duration) { l.began = l.began.Add(-d) }
}

// TestLedgerFinds: each of these histories breaks one promise, and the ledger must report it. A
// check that cannot fail shows nothing.
func TestLedgerFinds(t *testing.T) {
	type kit struct {
		l    *ledger
		pass func(time.Duration)
		s    *stream
	}
	send := func(k kit) hold { // a confirmed message
		seq := k.l.next(k.s, 0, false)
		k.l.published(k.s, seq, confirmed)
		k.pass(time.Millisecond)
		return hold{k.s.id, seq, 0}
	}
	take := func(k kit, h hold) {
		k.l.delivered(h, k.l.now(), false)
		k.pass(time.Millisecond)
	}
	ack := func(k kit, h hold) {
		k.l.settling([]hold{h})
		k.pass(time.Millisecond)
		k.l.acked([]hold{h})
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
			k.l.settling([]hold{h})
			k.pass(time.Millisecond)
			k.l.delivered(h, k.l.now(), true)
			k.pass(time.Millisecond)
			next := send(k)
			take(k, next)
			ack(k, next)
			k.l.deadLettered([]hold{h})
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
			k.l.settling([]hold{h})
			k.l.deadLettered([]hold{h})
		}},
		{"a confirmed message never comes, and the run goes on", "lost or stuck", func(k kit) {
			send(k)
			k.pass(overdue + time.Second)
			k.l.sweep()
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
			k.l.sweep()
			take(k, h)
		}},
		{"a dead letter comes from its queue again", "redelivered", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.settling([]hold{h})
			k.l.deadLettered([]hold{h})
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
			take(k, a) // and nacked
			take(k, b)
			ack(k, b)
			take(k, a)
			ack(k, a)
		}},
		{"a refused message comes", "refused", func(k kit) {
			seq := k.l.next(k.s, 0, false)
			k.l.published(k.s, seq, refused)
			h := hold{k.s.id, seq, 0}
			take(k, h)
			ack(k, h)
		}},
		{"a message comes from nowhere", "nobody published", func(k kit) { take(k, hold{k.s.id, 7, 0}) }},
		{"a stream comes from nowhere", "nobody published", func(k kit) { take(k, hold{99, 1, 0}) }},
		{"a delayed message comes at once", "before its delay", func(k kit) {
			seq := k.l.next(k.s, time.Minute, false)
			k.l.published(k.s, seq, confirmed)
			h := hold{k.s.id, seq, 0}
			take(k, h)
			ack(k, h)
		}},
		{"an answer is lost, and the message comes or not", "", func(k kit) {
			seq := k.l.next(k.s, 0, false)
			k.l.published(k.s, seq, maybe)
			k.l.published(k.s, k.l.next(k.s, 0, false), maybe)
			h := hold{k.s.id, seq, 0}
			take(k, h)
			ack(k, h)
		}},
		{"the answer to an ack is lost, and the message comes again", "", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.settling([]hold{h})
			k.pass(time.Millisecond)
			take(k, h)
			ack(k, h)
		}},
		{"the answer to an ack is lost, the message comes again and is gone", "lost", func(k kit) {
			h := send(k)
			take(k, h)
			k.l.settling([]hold{h})
			k.pass(time.Millisecond)
			take(k, h)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, pass := book()
			c.do(kit{l, pass, l.stream("q", true)})
			l.finish()
			words := strings.Join(l.words(), "\n")
			switch {
			case c.want == "" && words != "":
				t.Errorf("a legal history is refused: %s", words)
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
		s := l.stream("q", true)
		for i := range 50 {
			seq := l.next(s, 0, i%10 == 9)
			h := hold{s.id, seq, 0}
			switch {
			case i%10 == 9: // expires
				l.published(s, seq, confirmed)
				continue
			case i%10 == 8 && round%20 == 0:
				l.published(s, seq, maybe)
			default:
				l.published(s, seq, confirmed)
			}
			l.delivered(h, l.now(), false)
			l.settling([]hold{h})
			if i%10 != 7 || round%20 != 0 {
				l.acked([]hold{h})
			}
		}
		l.close(s)
		pass(time.Second)
		l.sweep()
		_, n := l.pending()
		most = max(most, n)
	}
	pass(keepOpen + time.Second)
	l.sweep()
	open, items := l.pending()
	if open != 0 || items != 0 || len(l.streams) != 0 || most > 50*60 || len(l.words()) > 0 {
		t.Errorf("%d open, %d items, %d streams left, %d items at most: %v", open, items, len(l.streams), most, l.words())
	}
}

func TestHistogram(t *testing.T) {
	h := &histogram{}
	for i := range 10_000 {
		h.add(time.Duration(i+1) * 100 * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0: 100 * time.Microsecond, 0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || float64(got) > float64(want)*1.04 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	for us := uint64(1); us < 1<<50; us = us*5/4 + 1 {
		if b := bucketOf(us); bucketTop(b) < us || b > 0 && bucketTop(b-1) >= us {
			t.Fatalf("%d µs is in bucket %d, which goes from %d to %d", us, b, bucketTop(b-1)+1, bucketTop(b))
		}
	}
}

// TestVerdict: resources that do not come back, and promises that were not tested, must fail a run.
func TestVerdict(t *testing.T) {
	base := usage{RSS: 100 * mib, Heap: 50 * mib, Goroutines: 20, FDs: 20, Disk: 200 * mib, At: time.Second}
	good := func() *soak {
		s := &soak{l: newLedger(), baseline: base, end: base, restarts: []time.Duration{1}}
		s.kills = time.Second
		s.l.count.Confirmed = 5
		return s
	}
	if s := good(); !s.ok() {
		t.Error("a good run is refused:", s.broken())
	}
	for name, spoil := range map[string]func(*soak){
		"memory": func(s *soak) { s.end.RSS *= 2 }, "heap": func(s *soak) { s.end.Heap *= 3 }, "goroutines": func(s *soak) { s.end.Goroutines += 6 },
		"descriptors": func(s *soak) { s.end.FDs += 6 }, "disk": func(s *soak) { s.end.Disk += 200 * mib }, "queues": func(s *soak) { s.end.Queues = 1 },
		"findings": func(s *soak) { s.l.report("x") }, "nothing confirmed": func(s *soak) { s.l.count.Confirmed = 0 }, "never killed": func(s *soak) { s.restarts = nil },
		"cut short": func(s *soak) { s.end = usage{} },
	} {
		if s := good(); true {
			if spoil(s); s.ok() {
				t.Errorf("%s: a bad run passes", name)
			}
		}
	}
}

func TestDrift(t *testing.T) {
	var list []usage
	for i := range 20 {
		list = append(list, usage{At: time.Duration(i) * time.Minute, RSS: int64(100+i) * mib})
	}
	if got := drift(list, func(u usage) int64 { return u.RSS }) / mib; got < 59.9 || got > 60.1 {
		t.Errorf("a MiB a minute is %v MiB an hour", got)
	}
}

func TestBody(t *testing.T) {
	h := hold{12, 345, 678}
	b := body(h, 500)
	if got, ok := readBody(b); !ok || got != h {
		t.Errorf("%+v %v from %s", got, ok, b)
	}
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 1
		if got, ok := readBody(bad); ok && got == h && i > 0 && i < len(b)-1 {
			t.Errorf("byte %d changed, unnoticed", i)
		}
	}
}
