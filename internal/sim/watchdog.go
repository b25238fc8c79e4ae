package sim

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// A run must end. Two bounds make a run fail that does not:
//
//	endless work | bound                                    | the run
//	-------------+------------------------------------------+----------------------------------------
//	many turns   | maxSteps turns and waits in one action   | breaks the promise "comes to rest"
//	one turn     | patience without a turn, by the computer | ends the process, with the seed, the
//	             | clock                                    | action and all goroutines
//
// The first bound does not depend on the speed of the computer, so a failure can be repeated and
// shrunk. The model has a bound of its own inside a turn.

// maxSteps is how many turns and waits one action may need. The most that was seen is below 2,000.
const maxSteps = 50_000

// patience is how long one turn may last. A turn lasts less than a millisecond.
const patience = 5 * time.Minute

// endless is the panic of a run that does not come to rest.
type endless struct{ text string }

// watchdog watches one run.
type watchdog struct {
	seed   uint64
	steps  int                    // in this action
	most   int                    // the highest number of steps of an action
	pulse  atomic.Uint64          // grows with every step and action
	doing  atomic.Pointer[string] // the action
	timer  *time.Timer
	seen   uint64 // pulse at the last look
	stuck  func(text string)
	looked func() // for tests: called after each look
	busy   string // for tests: a kind of action that never comes to rest
}

// watch starts to watch a run. stuck is called from another goroutine if a turn does not end. The
// caller must call stop at the end of the run.
func watch(seed uint64, stuck func(text string)) *watchdog {
	d := &watchdog{seed: seed, stuck: stuck, looked: func() {}}
	d.action("opening")
	d.timer = time.AfterFunc(patience, d.look)
	return d
}

func (d *watchdog) stop() { d.timer.Stop() }

// action notes what the run does now.
func (d *watchdog) action(what string) {
	d.most, d.steps = max(d.most, d.steps), 0
	d.doing.Store(&what)
	d.pulse.Add(1)
}

// step counts a turn or a wait. It panics if the action has too many of them.
func (d *watchdog) step() {
	d.pulse.Add(1)
	if d.steps++; d.steps > maxSteps {
		panic(endless{fmt.Sprintf("%s needs more than %d turns", *d.doing.Load(), maxSteps)})
	}
}

// look checks whether the run went on since the last look.
func (d *watchdog) look() {
	defer d.looked()
	if now := d.pulse.Load(); now != d.seen {
		d.seen = now
		d.timer.Reset(patience)
		return
	}
	d.stuck(fmt.Sprintf("seed %d (go test ./internal/sim -run 'TestSim$' -seed %d) does not end: %s had no turn for %v. The goroutines:\n%s",
		d.seed, d.seed, *d.doing.Load(), patience, stacks()))
}

// abort ends the process. A goroutine cannot be ended from outside, so nothing less helps.
func abort(text string) { panic(text) }

// stacks returns the stacks of all goroutines.
func stacks() string {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= 1<<26 {
			return strings.TrimRight(string(b[:n]), "\n")
		}
	}
}
