package sim

// Result is what one run came to.
type Result struct {
	Options   Options
	Actions   []Action
	Violation string // empty: every promise was kept
	Trace     []string
	Counters  Counters
}

// Run runs a seed.
func Run(seed uint64) Result {
	o := Draw(seed)
	return Play(o, Script(o), false)
}

// Play runs given actions under given options.
func Play(o Options, actions []Action, tracing bool) Result {
	w := newWorld(o, tracing)
	violation := w.play(actions)
	return Result{Options: o, Actions: actions, Violation: violation, Trace: w.trace, Counters: w.count}
}

// Shrink leaves out actions as long as the run still fails, whatever the violation, and gives the smallest run that was found.
func Shrink(r Result) Result {
	actions := r.Actions
	for size := len(actions) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(actions); {
			less := append(append([]Action(nil), actions[:at]...), actions[at+size:]...)
			if Play(r.Options, less, false).Violation != "" {
				actions = less
			} else {
				at += size
			}
		}
	}
	return Play(r.Options, actions, true)
}
