package broker

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/inorder"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// openLanes opens a broker whose turns are small, with a queue of n messages, all leased to one
// subscription. The commands of each later turn are appended to turns.
func openLanes(t *testing.T, n int) (h *byHand, sub surgetank.Subscription, leased []surgetank.Delivery, turns *[][]queue.Command) {
	t.Helper()
	h = &byHand{t: t, clock: clock.NewManual(start)}
	turns = new([][]queue.Command)
	o := h.options(memlog.NewStore(), false)
	o.Limits.TurnBytes = 1000
	h.stepping.Watch = func(turn Turn) { *turns = append(*turns, slices.Clone(turn.Commands)) }
	err := h.open(o)
	if err != nil {
		t.Fatal(err)
	}
	h.send(&queue.Declare{Name: "q"})
	for range n {
		h.publish(surgetank.Message{})
	}
	c := &queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: n}}}
	sub = h.NewSubscription(c)
	h.send(c)
	if leased, err = sub.TryReceive(nil, n, 1<<20); err != nil || len(leased) != n {
		t.Fatalf("%d messages, %v", len(leased), err)
	}
	*turns = nil
	return h, sub, leased, turns
}

// flood puts publishes into the mailbox that fill several turns.
func (h *byHand) flood(ctx context.Context) {
	h.t.Helper()
	for range 100 {
		msg := []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 100)}}}
		if err := h.PublishAsync(ctx, msg, func([]surgetank.PublishResult, error) {}); err != nil {
			h.t.Fatal(err)
		}
	}
}

func ack(d surgetank.Delivery) []surgetank.Settlement {
	return []surgetank.Settlement{{Receipt: d.Receipt, Op: surgetank.Ack}}
}

// turnOf returns the number of the first turn with a command for which the function is returns
// true.
func turnOf(t *testing.T, turns [][]queue.Command, is func(queue.Command) bool) int {
	t.Helper()
	for i, cmds := range turns {
		if slices.ContainsFunc(cmds, is) {
			return i
		}
	}
	t.Fatal("no turn ran the command")
	return 0
}

func isSettle(c queue.Command) bool { _, is := c.(*queue.Settle); return is }
func isDetach(c queue.Command) bool { _, is := c.(*queue.Detach); return is }

// TestAcksOvertakePublishes: a settlement is decided in the next turn, although earlier publishes
// fill many turns. This is also true if the loop has already removed those publishes from the
// mailbox.
func TestAcksOvertakePublishes(t *testing.T) {
	h, _, leased, turns := openLanes(t, 2)
	h.flood(t.Context())
	settle := func(d surgetank.Delivery) {
		t.Helper()
		if err := h.SettleAsync(t.Context(), ack(d), func(r []surgetank.SettleResult, err error) {
			if err != nil || r[0] != nil {
				t.Error(r, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	settle(leased[0])
	h.turn()
	settle(leased[1])
	h.turn()
	for i, cmds := range *turns {
		if !slices.ContainsFunc(cmds, isSettle) {
			t.Errorf("turn %d settled nothing", i)
		}
	}
	if h.run(); len(*turns) < 5 {
		t.Fatalf("the publishes filled %d turns only", len(*turns))
	}
}

// TestOneCallersOrder: with a context of package inorder, a settlement is decided after the
// caller's earlier publishes. Settlements of other callers do not wait for these publishes. The end
// of a subscription comes after its settlements.
func TestOneCallersOrder(t *testing.T) {
	h, sub, leased, turns := openLanes(t, 2)
	ctx := inorder.With(t.Context())
	h.flood(ctx)
	last := len(h.mailbox.ops)
	if err := h.SettleAsync(ctx, ack(leased[0]), nil); err != nil {
		t.Fatal(err)
	}
	if len(h.mailbox.ops) == last {
		t.Fatal("the settlement is not behind the publishes")
	}
	mine := h.mailbox.ops[last].cmd.(*queue.Settle)
	if err := h.SettleAsync(t.Context(), ack(leased[1]), nil); err != nil {
		t.Fatal(err)
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	own := turnOf(t, *turns, func(c queue.Command) bool { return c == mine })
	others := turnOf(t, *turns, isSettle)
	end := turnOf(t, *turns, isDetach)
	if others != 0 || own < 4 || end < own {
		t.Errorf("another caller's ack was in turn %d, the caller's own in turn %d, the end of the subscription in turn %d", others, own, end)
	}
	if mine.Results[0] != nil {
		t.Errorf("the ack failed: %v", mine.Results[0])
	}
	if h.mailbox.delayed != 0 || inorder.Of(ctx).Waits() {
		t.Error("the mailbox counts commands that were decided")
	}
}

// TestHeldPublishesGoOn: publishes that wait for consumers are decided when the waiting time ends,
// even if no other command comes.
func TestHeldPublishesGoOn(t *testing.T) {
	h := &byHand{t: t, clock: clock.NewManual(start)}
	o := h.options(memlog.NewStore(), false)
	o.Limits.Hold, o.Limits.TurnPublish = 5*time.Millisecond, 1
	if err := h.open(o); err != nil {
		t.Fatal(err)
	}
	h.send(&queue.Declare{Name: "q"})
	for range 300 {
		h.publish(surgetank.Message{})
	}
	c := &queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 100}}}
	sub := h.NewSubscription(c)
	h.send(c)
	ds, err := sub.TryReceive(nil, 100, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	acks := make([]surgetank.Settlement, len(ds))
	for i := range ds {
		acks[i].Receipt = ds[i].Receipt
	}
	if err := h.SettleAsync(t.Context(), acks, nil); err != nil {
		t.Fatal(err)
	}
	confirmed := 0
	for range 250 {
		if err := h.PublishAsync(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}}}, func([]surgetank.PublishResult, error) { confirmed++ }); err != nil {
			t.Fatal(err)
		}
	}
	if h.run(); confirmed != 100 {
		t.Fatalf("%d messages were confirmed beside 100 hand-outs", confirmed)
	}
	if due := h.untilDue(); due != 5*time.Millisecond {
		t.Fatalf("the loop would sleep for %v", due)
	}
	h.clock.Advance(5 * time.Millisecond)
	if h.run(); confirmed != 250 {
		t.Fatalf("%d messages were confirmed after the time to wait", confirmed)
	}
}
