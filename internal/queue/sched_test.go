package queue

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// TestFlowSize: a queue can have millions of groups, so a flow must not grow.
func TestFlowSize(t *testing.T) {
	if n := unsafe.Sizeof(flow{}); n != 104 {
		t.Errorf("a flow has %d bytes", n)
	}
}

// publishMany publishes n messages of a group.
func (r *rig) publishMany(queue, group string, n int) {
	for n > 0 {
		batch := make([]surgetank.Publishing, min(n, 500))
		for i := range batch {
			batch[i] = surgetank.Publishing{Queues: []string{queue}, Message: surgetank.Message{Body: []byte("m"), Group: group}}
		}
		c := publishAll(batch...)
		r.step(c)
		r.settleDown(func(*Output) {})
		n -= len(batch)
	}
}

// order receives n messages, without acks, and returns their groups.
func (r *rig) order(queue string, n int) (groups []string) {
	note := func(o *Output) {
		for i := range o.Handouts {
			groups = append(groups, o.Handouts[i].Group)
		}
	}
	note(r.step(&Attach{Queue: queue, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: n, NoAck: true, ManualCredit: true}}, Now: true}))
	r.settleDown(note)
	return groups
}

// TestQuietGroupsWait counts how many hand-outs of other groups come before a message of a quiet
// group. The count must not depend on the backlog of a noisy group. This holds for a quiet group
// that is new and for a quiet group that had its turn.
func TestQuietGroupsWait(t *testing.T) {
	most := 1_000_000
	if testing.Short() {
		most = 100_000
	}
	for _, weight := range []int{1, 5} {
		for _, c := range []struct{ backlog, isNew, isOld int }{{0, 0, 0}, {10_000, 0, weight}, {most, 0, weight}} {
			r := newRig(t, Limits{}, 1)
			r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true, Weights: map[string]int{"noisy": weight}}}})
			r.publishMany("q", "noisy", c.backlog)
			if n := len(r.order("q", min(c.backlog, 2*weight))); n != min(c.backlog, 2*weight) {
				t.Fatalf("%d hand-outs", n)
			}
			wait := func() int {
				r.publishMany("q", "quiet", 1)
				for n := 0; ; n++ {
					if got := r.order("q", 1); len(got) != 1 {
						t.Fatal("the quiet group's message is not handed out")
					} else if got[0] == "quiet" {
						return n
					}
				}
			}
			isNew, isOld := wait(), wait()
			t.Logf("weight %d, a backlog of %d: a new group waits for %d hand-outs, one that had its turn for %d", weight, c.backlog, isNew, isOld)
			if isNew != c.isNew || isOld != c.isOld {
				t.Errorf("want %d and %d", c.isNew, c.isOld)
			}
		}
	}
}

// TestNewGroupsStarveNoGroup: new groups with one message each arrive without end. A group that had
// its turn before has one of nine hand-outs.
func TestNewGroupsStarveNoGroup(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true}}})
	r.publishMany("q", "old", 100)
	r.order("q", 1)
	got := 0
	for i := range 180 {
		r.publishMany("q", fmt.Sprint("new", i, "a"), 1)
		r.publishMany("q", fmt.Sprint("new", i, "b"), 1)
		if r.order("q", 1)[0] == "old" {
			got++
		}
	}
	if got != 20 {
		t.Errorf("of 180 hand-outs the old group got %d", got)
	}
	if n := r.m.byName["q"].sched.linked; n > 2*180-160+1+2*newRun {
		t.Errorf("%d groups have places: empty groups pile up", n)
	}
}

// TestEmptyGroupsLeave: when no group can deliver, empty groups are forgotten, as many in one turn
// as the limit allows.
func TestEmptyGroupsLeave(t *testing.T) {
	r := newRig(t, Limits{TurnHandout: 1 << 20, TurnBytes: 1 << 30}, 1)
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true}}})
	const n = 2*sweepEmpty + 10
	for i := range n {
		r.publishMany("q", fmt.Sprint("g", i), 2)
	}
	if got := len(r.order("q", 2*n)); got != 2*n {
		t.Fatalf("%d hand-outs", got)
	}
	r.settleDown(func(*Output) {})
	q := r.m.byName["q"]
	if len(q.byGroup) != 1 || q.sched.linked != 0 || len(q.freeFlows)+1 != len(q.flows) {
		t.Errorf("%d groups are left, %d of them in rings", len(q.byGroup), q.sched.linked)
	}
}

// TestWeightsTouchNamedGroups: a change of weights does not look at groups that it does not name.
func TestWeightsTouchNamedGroups(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	config := surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true, MaxInFlight: 1, Weights: map[string]int{"a": 3, "b": 2}}}
	r.step(&Declare{Name: "q", Config: config})
	for _, g := range []string{"a", "b", "c", "d"} {
		r.publishMany("q", g, 2)
	}
	q := r.m.byName["q"]
	for h := range q.flows { // a call of touch would correct the wrong value
		q.ready_ += 1000
		q.flows[h].open += 1000
	}
	config.Group.Weights = map[string]int{"b": 5, "c": 7, "*": 9}
	r.step(&Declare{Name: "q", Config: config})
	for name, want := range map[string]uint16{"a": 9, "b": 5, "c": 7, "d": 9} {
		f := &q.flows[q.byGroup[name]]
		if got := q.weight(f); got != want {
			t.Errorf("group %s has weight %d, not %d", name, got, want)
		}
		if f.open < 1000 {
			t.Errorf("group %s was looked at", name)
		}
	}
}

// TestLineAgesInParts: a backlog without groups that existed before level.fresh_share was set moves
// to the backlog's line in several turns.
func TestLineAgesInParts(t *testing.T) {
	r := newRig(t, Limits{TurnTimers: 100}, 1)
	r.step(&Declare{Name: "q"})
	r.publishMany("q", "", 1000)
	r.now += int64(time.Hour)
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Level: surgetank.LevelConfig{FreshShare: 0.5}}})
	q := r.m.byName["q"]
	if n := q.flows[0].waiting; n != 900 {
		t.Errorf("after the first turn %d messages are in the fresh line", n)
	}
	r.settleDown(func(*Output) {})
	if n := q.flows[0].waiting; n != 0 {
		t.Errorf("%d stale messages are in the fresh line", n)
	}
	r.publishMany("q", "", 10)
	if n := len(r.order("q", 2000)); n != 1010 {
		t.Errorf("%d messages came", n)
	}
}
