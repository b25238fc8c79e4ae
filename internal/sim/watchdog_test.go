package sim

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestEndlessRun: a run with an action that never ends fails, and the failure names the action.
func TestEndlessRun(t *testing.T) {
	o := Draw(1)
	w := newWorld(o, false)
	w.dog.busy = "publish"
	v := w.play([]Action{{"info", 1}, {"publish", 2}, {"info", 3}})
	if !strings.HasPrefix(v, "comes to rest:") || !strings.Contains(v, "action 1, publish,") {
		t.Errorf("the run ended with %q", v)
	}
}

// TestStuckTurn: if a turn does not end, the seed, the action and the goroutines are reported. A run
// with turns is not reported, however long it lasts.
func TestStuckTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		looks := make(chan int)
		d := watch(4711, func(text string) { said = append(said, text) })
		d.looked = func() { looks <- len(said) }
		defer d.stop()
		for range 10 {
			d.action("action 3, wait,")
			for range maxSteps {
				d.step()
			}
			if <-looks > 0 {
				t.Fatalf("a run that goes on was reported: %s", said)
			}
		}
		start := time.Now()
		if <-looks != 1 || time.Since(start) > 2*patience {
			t.Fatalf("a turn without an end was not reported: %s", said)
		}
		for _, want := range []string{"seed 4711", "action 3, wait,", "TestStuckTurn"} {
			if !strings.Contains(said[0], want) {
				t.Errorf("the report does not contain %q: %s", want, said[0])
			}
		}
	})
}
