package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// TestCompact makes every map of a queue large and drains the queue. Then the memory must be freed,
// and the queue must work as before.
func TestCompact(t *testing.T) {
	m := New(Limits{}, 1)
	entry, now := uint64(0), time.Unix(1_800_000_000, 0).UnixNano()
	step := func(cmds ...Command) Output {
		t.Helper()
		entry++
		out := Output{Entry: AppendHeader(nil, EntryHeader{Epoch: 1, Number: entry, Time: now})}
		if n := m.Step(now, entry, cmds, &out); n != len(cmds) {
			t.Fatalf("%d of %d commands were done", n, len(cmds))
		}
		return out
	}
	step(&OpenEpoch{Epoch: 1})
	step(&Declare{Name: "q", Config: surgetank.QueueConfig{DedupWindow: time.Minute, Group: surgetank.GroupConfig{MaxInFlight: 1}}})
	attach := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1 << 20, Lease: surgetank.LeaseForever}}}
	step(attach)
	q := m.byName["q"]
	round := func(n int) {
		t.Helper()
		var all []surgetank.Settlement
		take := func(out Output) {
			for _, h := range out.Handouts {
				all = append(all, surgetank.Settlement{Receipt: surgetank.Receipt{ID: surgetank.MessageID{Queue: q.id, Seq: h.Seq}, Epoch: 1, Lease: h.Lease}})
			}
		}
		for i := range n {
			id := fmt.Sprintf("%d-%d", entry, i)
			p := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("x"), Group: "g" + id, DedupID: id}}
			take(step(&Publish{Msgs: []Incoming{{Publishing: &p, Dedup: MakeDedupKey(id)}}, Results: make([]surgetank.PublishResult, 1)}))
		}
		if len(all) != n {
			t.Fatalf("%d of %d messages were handed out", len(all), n)
		}
		m.Survey()
		c := &Settle{Items: all, Results: make([]error, n)}
		step(c)
		for _, err := range c.Results {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	round(5000)
	if p := q.peaks; p.leases != 5000 || q.dedup.ids.used != 5000 || p.groups < 5000 {
		t.Fatalf("the queue was not as large as it should be: %+v", p)
	}
	now += int64(2 * time.Minute)
	m.StartSnapshot(entry)
	m.SnapshotNext(10)
	step(Mark{})
	m.Compact()
	if n := cap(q.flows) + cap(q.freeFlows) + cap(q.ready) + len(q.dedup.line.pages)*idPage + len(q.dedup.ids.pages)*tablePage + len(q.dedup.ids.heads); n > 64 {
		t.Errorf("a drained queue keeps memory for %d elements", n)
	}
	if p := q.peaks; p.leases+p.groups > 10 {
		t.Errorf("maps were not made small: %+v", p)
	}
	for last := false; !last; {
		_, last = m.SnapshotNext(1 << 20)
	}
	round(3000)
	m.Compact()
	round(10)
}
