package queue

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// pager is a machine whose turns look at one chunk of slots. It has a queue of 300 messages, some
// of them leased, and a record of their states since the test began.
type pager struct {
	*rig
	rng    *rand.Rand
	leases map[uint64]surgetank.Receipt
	was    map[uint64]map[surgetank.State]int // how many looks found a message in a state
	looks  int
}

func newPager(t *testing.T, seed uint64) *pager {
	p := &pager{rig: newRig(t, Limits{TurnScan: chunkSlots}, 1), rng: rand.New(rand.NewPCG(seed, 2)), leases: map[uint64]surgetank.Receipt{}}
	p.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}})
	for range 300 {
		p.publish()
	}
	for range 40 {
		p.happen()
	}
	p.was, p.looks = map[uint64]map[surgetank.State]int{}, 0
	p.look()
	return p
}

func (p *pager) q() *Queue { return p.m.byName["q"] }

func (p *pager) publish() {
	m := surgetank.Message{Body: []byte("m")}
	switch p.rng.IntN(4) {
	case 0:
		m.Group = fmt.Sprint("g", p.rng.IntN(5))
	case 1:
		m.Delay = time.Hour
	}
	p.step(publish(m, "q"))
}

// happen does one random operation that changes the state of messages.
func (p *pager) happen() {
	switch p.rng.IntN(5) {
	case 0:
		p.publish()
	case 1, 2:
		out := p.step(&Attach{Queue: "q", Now: true, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1 + p.rng.IntN(9), Lease: surgetank.LeaseForever}}})
		for _, h := range out.Handouts {
			p.leases[h.Seq] = surgetank.Receipt{Epoch: p.m.Epoch(), Incarnation: p.m.Incarnation(), ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Lease: h.Lease}
		}
	default:
		for _, seq := range slices.Sorted(maps.Keys(p.leases)) {
			if p.rng.IntN(4) == 0 {
				c := &Settle{Items: []surgetank.Settlement{{Receipt: p.leases[seq], Op: []surgetank.SettleOp{surgetank.Ack, surgetank.Nack}[p.rng.IntN(2)], Uncounted: true}}, Results: make([]error, 1)}
				p.step(c)
				delete(p.leases, seq)
			}
		}
	}
}

// look records the present state of every message.
func (p *pager) look() {
	p.looks++
	p.q().slots.ascend(0, func(seq uint64, s *slot) bool {
		if s.live() {
			if p.was[seq] == nil {
				p.was[seq] = map[surgetank.State]int{}
			}
			p.was[seq][""]++
			p.was[seq][p.q().stateOf(seq, s)]++
		}
		return true
	})
}

// beside sends a command again until the command is done, with a few random operations between the
// turns. It returns the number of turns.
func (p *pager) beside(c Command, more func() bool) (turns int) {
	for first := true; first || more(); first = false {
		p.step(c)
		p.look()
		for range p.rng.IntN(4) {
			if more() {
				p.happen()
				p.look()
			}
		}
		turns++
	}
	return turns
}

// TestPeekInPages: messages come and go during a peek over several turns. The peek lists each
// message at most once and in order. It lists all messages that were in the requested state the
// whole time, and no message that was never in that state.
func TestPeekInPages(t *testing.T) {
	for seed := range uint64(60) {
		p := newPager(t, seed)
		state := []surgetank.State{"", surgetank.StateReady, surgetank.StateLeased, surgetank.StateBlocked, surgetank.StateDelayed}[seed%5]
		before := p.q().nextSeq
		c := &Peek{Queue: "q", Opts: surgetank.PeekOptions{Max: 1000, State: state}}
		if turns := p.beside(c, func() bool { return c.Next != 0 }); turns < 5 {
			t.Fatalf("300 messages were looked at in %d turns of %d slots", turns, chunkSlots)
		}
		found := map[uint64]bool{}
		last := uint64(0)
		for _, f := range c.Found {
			if f.Seq <= last || f.Seq >= before {
				t.Errorf("seed %d: message %d is listed behind %d, when %d was the next", seed, f.Seq, last, before)
			}
			last = f.Seq
			found[f.Seq] = true
			if p.was[f.Seq][state] == 0 {
				t.Errorf("seed %d: message %d is listed and was never %q", seed, f.Seq, state)
			}
		}
		for seq, was := range p.was {
			if was[state] == p.looks && seq < before && !found[seq] {
				t.Errorf("seed %d: message %d was %q the whole time and is not listed", seed, seq, state)
			}
		}
	}
}

// TestPurgeInPages: a purge over several turns drops all messages of its first turn that were not
// leased in the meantime. It drops no message that was leased all the time or published later. The
// count of dropped messages is right, and a replay results in the same state.
func TestPurgeInPages(t *testing.T) {
	for seed := range uint64(60) {
		p := newPager(t, seed)
		before := p.q().nextSeq
		c := &Purge{Name: "q"}
		if turns := p.beside(c, func() bool { return c.Next != 0 }); turns < 5 {
			t.Fatalf("300 messages were purged in %d turns of %d slots", turns, chunkSlots)
		}
		check(t, p.m)
		there := map[uint64]bool{}
		p.q().slots.ascend(0, func(seq uint64, s *slot) bool { there[seq] = s.live(); return true })
		for seq, was := range p.was {
			switch leased := was[surgetank.StateLeased]; {
			case seq < before && leased == 0 && there[seq]:
				t.Errorf("seed %d: message %d was never leased and outlived the purge", seed, seq)
			case leased == p.looks && !there[seq], seq >= before && leased == 0 && !there[seq]:
				t.Errorf("seed %d: message %d was leased, or published later, and is gone", seed, seq)
			}
		}
		if live, again := dump(p.m, p.now), dump(p.replayed(len(p.log)), p.now); live != again {
			t.Errorf("seed %d: replay results in another state:\n%s", seed, cmp.Diff(live, again))
		}
		if c.Purged < 150 || p.q().stats.dropped != 0 {
			t.Errorf("seed %d: the purge reports %d dropped messages", seed, c.Purged)
		}
	}
}

// TestPurgeOfAQueueMadeAnew: a purge does not continue in a new queue of the same name.
func TestPurgeOfAQueueMadeAnew(t *testing.T) {
	p := newPager(t, 1)
	c := &Purge{Name: "q"}
	p.step(c)
	peek := &Peek{Queue: "q", Opts: surgetank.PeekOptions{Max: 1000}}
	p.step(peek)
	p.step(&Delete{Name: "q"}, &Declare{Name: "q"})
	for range 300 {
		p.publish()
	}
	purged := c.Purged
	p.step(c, peek)
	if i := p.q().info(); c.Next != 0 || c.Err != nil || c.Purged != purged || i.Ready+i.Delayed != 300 {
		t.Errorf("%+v of the new queue, which is %s", c, infoLine(&i))
	}
	if surgetank.CodeOf(peek.Err) != surgetank.CodeNotFound {
		t.Errorf("a peek into a queue that was deleted meanwhile: %v", peek.Err)
	}
}

// TestATurnLooksAtSoMuch: in one turn, many commands that look at whole queues read only little
// more than one such command. All of them make progress, and later commands of the turn are done.
func TestATurnLooksAtSoMuch(t *testing.T) {
	r := newRig(t, Limits{TurnScan: 16 * chunkSlots}, 1)
	r.step(&Declare{Name: "q"})
	for range 100 * chunkSlots {
		r.step(publish(surgetank.Message{}, "q"))
	}
	peeks := make([]*Peek, 20)
	var cmds []Command
	for i := range peeks {
		peeks[i] = &Peek{Queue: "q", Opts: surgetank.PeekOptions{Max: 10, State: surgetank.StateLeased}}
		cmds = append(cmds, peeks[i])
	}
	behind := publish(surgetank.Message{}, "q")
	out := &Output{Entry: AppendHeader(nil, EntryHeader{Epoch: 1, Number: uint64(len(r.log)) + 1, Time: r.now})}
	if n := r.m.Step(r.now, uint64(len(r.log))+1, append(cmds, behind), out); n != 21 || behind.Results[0].Err != nil {
		t.Fatalf("%d of 21 commands were done: %v", n, behind.Results[0].Err)
	}
	looked := 0
	for i, c := range peeks {
		if c.Next < chunkSlots {
			t.Errorf("peek %d made no progress", i)
		}
		looked += int(c.Next)
	}
	if most := (16 + 20) * chunkSlots; looked > most {
		t.Errorf("one turn looked at %d slots; want at most %d", looked, most)
	}
}

// TestDeleteInPages: a deleted queue is gone at once, and its part of the log's extents is removed
// over several turns. A snapshot that began before contains all of it. A queue of the same name can
// be created in the meantime.
func TestDeleteInPages(t *testing.T) {
	p := newPager(t, 3)
	before := dump(p.m, p.now)
	at := uint64(len(p.log))
	p.m.StartSnapshot(at)
	data, last := p.m.SnapshotNext(1)
	c := &Delete{Name: "q"}
	p.step(c)
	if c.Err != nil || p.q() != nil || !p.m.Sweeping() {
		t.Fatalf("deleted: %v, there: %v, to be swept: %v", c.Err, p.q() != nil, p.m.Sweeping())
	}
	check(t, p.m)
	p.step(&Declare{Name: "q"})
	p.publish()
	check(t, p.m)
	if live, again := dump(p.m, p.now), dump(p.replayed(len(p.log)), p.now); live != again {
		t.Errorf("replay results in another state:\n%s", cmp.Diff(live, again))
	}
	for turns := 0; p.m.Sweeping(); turns++ {
		if turns > 20 {
			t.Fatal("300 messages are not swept after 20 turns")
		}
		p.step()
		check(t, p.m)
	}
	if _, live := p.m.LogShare(); live != 1+messageCost {
		t.Errorf("%d bytes of the log count as needed, but there is only one message", live)
	}
	for !last {
		var piece []byte
		piece, last = p.m.SnapshotNext(1)
		data = append(data, piece...)
	}
	m := New(Limits{}, 1)
	if _, err := restoreBytes(m, data); err != nil {
		t.Fatal(err)
	}
	m.Recovered(p.now)
	if again := dump(m, p.now); again != before {
		t.Errorf("the snapshot has another state:\n%s", cmp.Diff(before, again))
	}
}

// TestInfosInPages: the statistics of many queues are read over several turns, in the order of
// creation. Queues created in the meantime are left out; queues deleted in the meantime can be left
// out.
func TestInfosInPages(t *testing.T) {
	r := newRig(t, Limits{TurnScan: 1}, 1)
	for i := range 50 {
		r.step(&Declare{Name: fmt.Sprint("q", i)})
	}
	c := &Info{}
	r.step(c)
	if c.Next == 0 || len(c.Infos) != leastQueues {
		t.Fatalf("the first turn returned %d queues", len(c.Infos))
	}
	infos := c.Infos
	r.step(&Delete{Name: "q20"}, &Delete{Name: "q30"}, &Delete{Name: "q3"}, &Declare{Name: "q3"})
	for c.Next != 0 {
		r.step(c)
		infos = append(infos, c.Infos...)
	}
	var got, want []string
	for _, i := range infos {
		got = append(got, i.Name)
	}
	for i := range 50 {
		if i != 20 && i != 30 {
			want = append(want, fmt.Sprint("q", i))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if all := r.m.Infos(); len(all) != 48 || all[47].Name != "q3" {
		t.Errorf("%d queues, the last is %s", len(all), all[len(all)-1].Name)
	}
}
