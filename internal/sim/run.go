package sim

// Result is the outcome of one run.
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

// Play runs the given actions with the given options.
func Play(o Options, actions []Action, tracing bool) Result {
	if o.Shards > 1 {
		return playShards(o, actions, tracing)
	}
	w := newWorld(o, tracing)
	violation := w.play(actions)
	if tracing {
		w.tracef("the end: the files have the checksum %016x", w.disk.checksum())
	}
	return Result{Options: o, Actions: actions, Violation: violation, Trace: w.trace, Counters: w.count}
}
