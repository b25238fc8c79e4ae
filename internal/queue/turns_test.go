package queue

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// TestNoQueueTakesAllTurns: two queues have more to hand out than one turn allows. The next turn
// begins after the queue that made the turn full.
func TestNoQueueTakesAllTurns(t *testing.T) {
	r := newRig(t, Limits{TurnHandout: 4}, 1)
	for _, name := range []string{"a", "b", "c"} {
		r.step(&Declare{Name: name})
		for range 40 {
			r.step(publish(surgetank.Message{Body: []byte("m")}, name))
		}
	}
	got := map[string]int{}
	count := func(o *Output) {
		for i := range o.Handouts {
			got[o.Handouts[i].Queue.Name()]++
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		count(r.step(&Attach{Queue: name, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, NoAck: true}}}))
	}
	for range 6 {
		count(r.step())
	}
	if got["a"] < 8 || got["b"] < 8 || got["c"] < 8 {
		t.Errorf("of the hand-outs of nine turns the queues got %v", got)
	}
	if r.settleDown(count); got["a"] != 40 || got["b"] != 40 || got["c"] != 40 {
		t.Errorf("handed out in the end: %v", got)
	}
}
