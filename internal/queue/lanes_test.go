package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// contention is a queue with a backlog, a consumer, and publishers whose commands always wait.
type contention struct {
	*rig
	consumer uint64
	body     []byte
	leased   []Handout
}

func newContention(t *testing.T, limits Limits, backlog, credit int) *contention {
	c := &contention{rig: newRig(t, limits, 1), body: make([]byte, 100)}
	c.step(&Declare{Name: "q"})
	for range backlog {
		c.step(c.publish())
	}
	if credit > 0 {
		a := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: credit}}}
		c.leased = c.step(a).Handouts
		c.consumer = a.Consumer
	}
	return c
}

func (c *contention) publish() *Publish {
	p := surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: c.body}}
	return &Publish{Msgs: []Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
}

// publishes returns n commands with one message each.
func (c *contention) publishes(n int) (cmds []Command) {
	for range n {
		cmds = append(cmds, c.publish())
	}
	return cmds
}

// acks returns a command for the oldest n leases.
func (c *contention) acks(n int, op surgetank.SettleOp) *Settle {
	s := &Settle{Results: make([]error, n)}
	for _, h := range c.leased[:n] {
		s.Items = append(s.Items, surgetank.Settlement{Op: op, Reason: "try again",
			Receipt: surgetank.Receipt{ID: h.ID, Epoch: c.m.Epoch(), Incarnation: c.m.incarnation(), Lease: h.Lease}})
	}
	c.leased = c.leased[n:]
	return s
}

// turn runs one turn. It returns how many commands of each lane are finished, and the hand-outs.
func (c *contention) turn(front, back []Command) (fronts, backs, handouts int) {
	c.tb.Helper()
	number := uint64(len(c.log)) + 1
	out := &Output{Entry: AppendHeader(nil, EntryHeader{Epoch: c.m.Epoch(), Number: number, Time: c.m.TurnTime(c.now)})}
	fronts, backs = c.m.StepLanes(c.now, number, front, back, out)
	if out.Records > 0 {
		c.log = append(c.log, out.Entry)
	}
	c.leased = append(c.leased, out.Handouts...)
	return fronts, backs, len(out.Handouts)
}

// TestConsumersGetHalfOfATurn: while publishes always wait, each turn hands out at least as many
// messages as it accepts, and publishes also fill their half of the turn.
func TestConsumersGetHalfOfATurn(t *testing.T) {
	for _, credit := range []int{1, 50, 500, 5000} {
		t.Run(fmt.Sprint(credit), func(t *testing.T) {
			c := newContention(t, Limits{TurnPublish: 1}, 3*credit+100, credit)
			waiting := c.publishes(30_000)
			for turn := range 10 {
				n := len(c.leased)
				fronts, backs, handouts := c.turn([]Command{c.acks(n, surgetank.Ack)}, waiting)
				if fronts != 1 || backs == 0 || handouts < backs || handouts < min(n, 1000) {
					t.Fatalf("turn %d: %d acks were settled in %d commands, %d messages were accepted, %d handed out", turn, n, fronts, backs, handouts)
				}
				waiting = waiting[backs:]
			}
		})
	}
}

// TestEveryOrderHasAShare: consumers get their half of a turn whatever orders the queue's groups.
func TestEveryOrderHasAShare(t *testing.T) {
	for name, config := range map[string]surgetank.QueueConfig{
		"heap":       {},
		"fair":       {Group: surgetank.GroupConfig{Fair: true}},
		"fresh":      {Level: surgetank.LevelConfig{FreshShare: 0.2}},
		"fair fresh": {Level: surgetank.LevelConfig{FreshShare: 0.2}, Group: surgetank.GroupConfig{Fair: true}},
	} {
		c := newContention(t, Limits{TurnPublish: 1}, 2000, 500)
		c.step(&Declare{Name: "q", Config: config})
		if _, backs, handouts := c.turn([]Command{c.acks(500, surgetank.Ack)}, c.publishes(5000)); backs > 500 || handouts != 500 {
			t.Errorf("%s: %d messages were accepted and %d handed out, want at most 500 and 500", name, backs, handouts)
		}
	}
}

// TestPublishersFillATurn: without a backlog, without credit and without consumers, publishes fill
// the whole entry.
func TestPublishersFillATurn(t *testing.T) {
	for name, c := range map[string]*contention{
		"no consumer": newContention(t, Limits{}, 100, 0),
		"no credit":   newContention(t, Limits{}, 100, 10),
		"no backlog":  newContention(t, Limits{}, 0, 500),
	} {
		_, backs, _ := c.turn(nil, c.publishes(10_000))
		if got := len(c.log[len(c.log)-1]); got < c.m.limits.TurnBytes {
			t.Errorf("%s: the entry has %d bytes of %d messages; the turn has room for %d", name, got, backs, c.m.limits.TurnBytes)
		}
	}
	c := newContention(t, Limits{}, 100, 10)
	c.step(&Pause{Name: "q", Paused: true})
	if c.turn([]Command{c.acks(10, surgetank.Ack)}, c.publishes(10_000)); len(c.log[len(c.log)-1]) < c.m.limits.TurnBytes {
		t.Error("a paused queue's consumers limited the publishers")
	}
}

// TestNoLaneStarves: if settlements and publishes could each fill every entry, both lanes make
// progress.
func TestNoLaneStarves(t *testing.T) {
	c := newContention(t, Limits{TurnBytes: 4096}, 2000, 2000)
	var front []Command
	for len(c.leased) > 0 {
		front = append(front, c.acks(1, surgetank.Nack))
	}
	back := c.publishes(2000)
	for turn := 0; len(front) > 0 && len(back) > 0; turn++ {
		fronts, backs, _ := c.turn(front, back)
		if fronts == 0 || backs == 0 {
			t.Fatalf("turn %d finished %d settlements and %d publishes", turn, fronts, backs)
		}
		front, back = front[fronts:], back[backs:]
	}
}

// TestLargeMessagesDoNotStopHandOuts: a publish that fills the entry leaves room for hand-outs,
// also to consumers whose hand-outs are records.
func TestLargeMessagesDoNotStopHandOuts(t *testing.T) {
	for _, noAck := range []bool{false, true} {
		c := newContention(t, Limits{TurnBytes: 10_000}, 1000, 0)
		c.body = make([]byte, 20_000)
		a := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 100, ManualCredit: true, NoAck: noAck}}}
		back := append([]Command{a}, c.publishes(5)...)
		for len(back) > 0 {
			_, backs, handouts := c.turn([]Command{&Credit{a.Consumer, 100}}, back)
			if back = back[backs:]; handouts < 100 {
				t.Fatalf("no ack %v: a turn with a large message handed out %d messages", noAck, handouts)
			}
		}
	}
}

// TestPublishersWaitForConsumers: when consumers used all their credit and want more, publishes
// beyond their share wait for the consumers' next settlements, but not longer than Hold.
func TestPublishersWaitForConsumers(t *testing.T) {
	const hold = 5 * time.Millisecond
	c := newContention(t, Limits{Hold: hold, TurnPublish: 10}, 2000, 500)
	waiting := c.publishes(5000)
	pass := func(front ...Command) (backs, handouts int) {
		_, backs, handouts = c.turn(front, waiting)
		waiting = waiting[backs:]
		return backs, handouts
	}
	if backs, handouts := pass(c.acks(500, surgetank.Ack)); backs != 500 || handouts != 500 {
		t.Fatalf("%d messages accepted, %d handed out, want 500 each", backs, handouts)
	}
	if backs, _ := pass(); backs != 0 || c.m.Held() != c.now+int64(hold) {
		t.Fatalf("%d were accepted while the consumer had 500 messages to settle; held until %d", backs, c.m.Held()-c.now)
	}
	if backs, handouts := pass(c.acks(20, surgetank.Ack)); backs != 20 || handouts != 20 {
		t.Fatalf("%d messages accepted, %d handed out, want 20 each", backs, handouts)
	}
	c.now += int64(hold)
	if backs, _ := pass(); backs < 1000 || c.m.Held() != 0 {
		t.Fatalf("%d messages were accepted after the time to wait", backs)
	}
	// If most of a consumer's credit is in use for leased messages, the consumer is busy with its
	// own work.
	pass(c.acks(100, surgetank.Ack))
	if backs, _ := pass(); backs < 500 {
		t.Fatalf("%d messages were accepted although a slow consumer is at work", backs)
	}
}
