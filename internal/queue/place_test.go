package queue

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// TestAskingChangesNobodysPlace: if statistics are read in the middle of a turn, while the first
// consumer in line has no credit, that consumer stays first.
func TestAskingChangesNobodysPlace(t *testing.T) {
	for _, ask := range []bool{false, true} {
		r := newRig(t, Limits{}, 1)
		r.step(&Declare{Name: "a"})
		first := &Attach{Queue: "a", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}}}
		r.step(first)
		r.step(&Attach{Queue: "a", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}}})
		cmds := []Command{&Credit{Consumer: first.Consumer, N: -1}, publish(surgetank.Message{Body: []byte("x")}, "a")}
		if ask {
			cmds = append(cmds, &Info{})
		}
		out := r.step(append(cmds, &Credit{Consumer: first.Consumer, N: 1})...)
		if len(out.Handouts) != 1 || out.Handouts[0].Consumer != first.Consumer {
			t.Errorf("asked: %v; handed out: %+v, want one message for consumer %d", ask, out.Handouts, first.Consumer)
		}
	}
}
