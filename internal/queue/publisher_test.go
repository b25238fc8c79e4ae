package queue

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/surgetank/surgetank"
)

func (r *rig) numbered(id string, first uint64, n int) *Publish {
	ps := make([]surgetank.Publishing, n)
	for i := range ps {
		ps[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 100)}, Publisher: id, Sequence: first + uint64(i)}
	}
	c := publishAll(ps...)
	r.step(c)
	return c
}

// stored counts the stored messages and the duplicates of a call. All other messages were refused.
func stored(c *Publish) (stored, duplicates int) {
	for _, r := range c.Results {
		switch {
		case r.Err == nil && r.Duplicate:
			duplicates++
		case r.Err == nil:
			stored++
		}
	}
	return stored, duplicates
}

func (r *rig) sameAgain(t *testing.T) {
	t.Helper()
	check(t, r.m)
	live := dump(r.m, r.now)
	if again := dump(r.replayed(len(r.log)), r.now); again != live {
		t.Errorf("replay results in another state (-live +replayed):\n%s", cmp.Diff(live, again))
	}
	r.takeSnapshot(1 << 10)
	if again := dump(r.restored(r.snaps[len(r.snaps)-1]), r.now); again != live {
		t.Errorf("the snapshot results in another state (-live +restored):\n%s", cmp.Diff(live, again))
	}
}

// TestNumbersAreInTheEntryOfTheirMessages publishes a batch that takes many turns. For every prefix
// of the log that a crash can leave, sending the batch again stores exactly the missing messages.
func TestNumbersAreInTheEntryOfTheirMessages(t *testing.T) {
	r := newRig(t, Limits{TurnBytes: 500}, 1)
	r.step(&Declare{Name: "q"})
	before := len(r.log)
	const n = 40
	r.numbered("the-only-publisher", 1, n)
	r.sameAgain(t)
	log := r.log
	if len(log)-before < 5 {
		t.Fatalf("the batch took %d turns; it should take several", len(log)-before)
	}
	for cut := before; cut <= len(log); cut++ {
		a := newRig(t, Limits{TurnBytes: 500}, 1)
		a.log, a.m = log[:cut:cut], r.replayed(cut)
		a.open()
		had := int(a.m.byName["q"].nextSeq - 1)
		c := a.numbered("the-only-publisher", 1, n)
		if s, d := stored(c); s != n-had || d != had {
			t.Fatalf("after %d entries with %d messages, the repeated batch stored %d messages and had %d duplicates", cut, had, s, d)
		}
		for i, x := range c.Results {
			if x.ID.Seq != 0 && x.ID.Seq != uint64(i+1) {
				t.Fatalf("the result for message %d has the id %v", i+1, x.ID)
			}
		}
	}
}

func TestPublishersAreBounded(t *testing.T) {
	r := newRig(t, Limits{TurnBytes: 1 << 30}, 1)
	r.step(&Declare{Name: "q"})
	id := func(i int) string { return fmt.Sprintf("publisher-no-%08d", i) }
	var ps []surgetank.Publishing
	for i := range MaxPublishers {
		ps = append(ps, surgetank.Publishing{Queues: []string{"q"}, Publisher: id(i), Sequence: 1})
	}
	r.step(publishAll(ps...))
	r.numbered(id(0), 2, 1) // now number 1 is the oldest publisher
	r.numbered("one-publisher-more", 1, 1)
	if _, d := stored(r.numbered(id(0), 1, 2)); d != 2 {
		t.Error("the publisher with the second-newest use is forgotten")
	}
	if c := r.numbered(id(1), 2, 1); surgetank.CodeOf(c.Results[0].Err) != surgetank.CodeUncertain {
		t.Errorf("the publisher that was used longest ago is known: %+v", c.Results[0])
	}
	if n := len(r.m.publishers.byID); n != MaxPublishers {
		t.Errorf("%d publishers are remembered", n)
	}
	r.sameAgain(t)
}

func TestHolesAreBounded(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q"})
	const id = "publisher-with-holes"
	for i := range maxHoles + 11 { // holes at 2, 4, 6, ...
		r.numbered(id, uint64(2*i+1), 1)
	}
	r.sameAgain(t)
	// The first ten holes are forgotten: the state of the numbers up to 20 is unknown.
	if s, d := stored(r.numbered(id, 1, 20)); s+d != 0 {
		t.Errorf("of 20 forgotten numbers, %d are stored and %d confirmed", s, d)
	}
	if s, d := stored(r.numbered(id, 21, 2*maxHoles)); s != maxHoles || d != maxHoles {
		t.Errorf("of the known numbers, %d are stored and %d confirmed", s, d)
	}
	if c := r.numbered(id, 20, 1); c.Results[0].Err.(*surgetank.Error).Field != surgetank.FieldPublisher {
		t.Errorf("the refusal does not say that the publisher is at fault: %+v", c.Results[0].Err)
	}
	r.sameAgain(t)
}

func TestPublisherIDs(t *testing.T) {
	for _, p := range []surgetank.Publishing{
		{Publisher: "short", Sequence: 1}, {Publisher: "with a space in it", Sequence: 1}, {Publisher: "long-enough-for-an-id"}, {Sequence: 1},
		{Publisher: "long-enough-for-an-id", Sequence: surgetank.MaxSequence + 1}, {Publisher: string(make([]byte, 20)), Sequence: 1},
		{Publisher: "0123456789012345678901234567890123456789012345678901234567890123456789", Sequence: 1},
	} {
		p.Queues = []string{"q"}
		if err := Check(&p, 100); surgetank.CodeOf(err) != surgetank.CodeInvalid {
			t.Errorf("publisher %q, number %d is accepted: %v", p.Publisher, p.Sequence, err)
		}
	}
}

// TestNumbersCostNothingPerMessage compares publishing with and without a publisher.
func TestNumbersCostNothingPerMessage(t *testing.T) {
	r := newRig(t, Limits{TurnBytes: 1 << 20}, 1)
	r.step(&Declare{Name: "q"})
	plain := publishAll(make([]surgetank.Publishing, 1000)...)
	numbered := publishAll(make([]surgetank.Publishing, 1000)...)
	queues, next := []string{"q"}, uint64(1)
	for i := range 1000 {
		*plain.Msgs[i].Publishing, *numbered.Msgs[i].Publishing = surgetank.Publishing{Queues: queues}, surgetank.Publishing{Queues: queues, Publisher: "the-only-publisher"}
	}
	clear(plain.Results)
	entry := make([]byte, 0, 1<<20)
	run := func(c *Publish) (allocs float64, bytes int) {
		allocs = testing.AllocsPerRun(20, func() {
			for i := range c.Msgs {
				c.Results[i] = surgetank.PublishResult{}
				if c == numbered {
					c.Msgs[i].Sequence = next
					next++
				}
			}
			out := Output{Entry: entry[:0]}
			c.next = 0
			r.m.Step(r.now, uint64(len(r.log))+1, []Command{c}, &out)
			bytes = len(out.Entry)
		})
		if s, _ := stored(c); s != len(c.Results) {
			t.Fatalf("%d of %d messages are stored: %v", s, len(c.Results), c.Results[0].Err)
		}
		return allocs, bytes
	}
	a, x := run(plain)
	b, y := run(numbered)
	if b > a+5 || y > x+64 {
		t.Errorf("a batch of 1000 costs %.0f allocations and %d bytes, with a publisher %.0f and %d", a, x, b, y)
	}
}

// TestNumbersOfLostEntries removes each entry of a log in turn and repairs the log. After the
// repair, a number is confirmed exactly if its message exists. So sending everything again stores
// the lost messages.
func TestNumbersOfLostEntries(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q"})
	before := len(r.log)
	const id, n = "publisher-of-a-lost-log", 9
	for i := range n {
		r.numbered(id, uint64(i+1), 1)
	}
	for lost := before; lost < len(r.log); lost++ {
		m := New(Limits{}, 1)
		s := m.StartRepair(r.now)
		for i, e := range r.log {
			if i == lost {
				s.Gap(uint64(i+1), uint64(i+1))
				continue
			}
			if _, err := s.Entry(e); err != nil {
				t.Fatal(err)
			}
		}
		number := uint64(len(r.log) + 1)
		s.Finish(false, func(uint64) bool { return false }, func(e uint64) bool { return e != uint64(lost+1) })
		m.Recovered(r.now)
		check(t, m)
		a := &rig{tb: t, m: m, now: r.now, log: append([][]byte(nil), r.log...)}
		a.step(&OpenEpoch{Epoch: m.Epoch() + 1, Incarnation: 7})
		again, fresh := a.numbered(id, 1, n), a.numbered(id, n+1, 1)
		if s, d := stored(again); s != 1 || d != n-1 || again.Results[lost-before].Duplicate {
			t.Errorf("without entry %d of %d: %d messages are stored again and %d known: %+v", lost+1, number-1, s, d, again.Results)
		}
		if s, _ := stored(fresh); s != 1 {
			t.Errorf("without entry %d: the next message is not stored: %v", lost+1, fresh.Results[0].Err)
		}
	}
}
