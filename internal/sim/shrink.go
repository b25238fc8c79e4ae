package sim

import (
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// shrinkRuns is how many runs may be used to make one failed run smaller.
const shrinkRuns = 4000

// Shrink makes a failed run smaller while it still breaks the same promise. It leaves out actions,
// then features, faults and queues, then actions again. It returns the smallest run found, traced.
func Shrink(r Result) Result {
	s := shrinker{o: r.Options, actions: r.Actions, promise: promise(r.Violation), left: shrinkRuns}
	for was := -1; was != len(s.actions) && s.left > 0; {
		was = len(s.actions)
		s.lessActions()
		s.simpler()
	}
	return Play(s.o, s.actions, true)
}

type shrinker struct {
	o       Options
	actions []Action
	promise string
	left    int
}

// promise returns the promise that a violation names.
func promise(violation string) string {
	name, _, _ := strings.Cut(violation, ":")
	return name
}

func (s *shrinker) fails(o Options, actions []Action) bool {
	s.left--
	return s.left >= 0 && promise(Play(o, actions, false).Violation) == s.promise
}

func (s *shrinker) lessActions() {
	for size := max(1, len(s.actions)/2); size > 0; size /= 2 {
		for at := 0; at+size <= len(s.actions); {
			if less := slices.Delete(slices.Clone(s.actions), at, at+size); s.fails(s.o, less) {
				s.actions = less
			} else {
				at += size
			}
		}
	}
}

// simpler tries the simplest value of every option.
func (s *shrinker) simpler() {
	try := func(change func(o *Options)) {
		o := s.o
		o.Queues = slices.Clone(o.Queues)
		change(&o)
		if s.fails(o, s.actions) {
			s.o = o
		}
	}
	try(func(o *Options) { o.Probe = 0 })
	try(func(o *Options) { o.Model = false })
	try(func(o *Options) { o.Cache = false })
	try(func(o *Options) { o.SlowLog = 0 })
	try(func(o *Options) { o.Latency, o.Gaps = 0, false })
	try(func(o *Options) { o.Hold = 0 })
	try(func(o *Options) { o.TurnBytes = 0 })
	try(func(o *Options) { o.TurnPublish = 0 })
	try(func(o *Options) { o.ExtentBytes = 0 })
	try(func(o *Options) { o.SnapshotBytes = 1 << 30 })
	try(func(o *Options) { o.FoundIDs = false })
	try(func(o *Options) { o.Dedup = 0 })
	try(func(o *Options) {
		o.TTLs, o.Rules, o.Pools, o.Exclusive, o.Schedules = false, false, false, false, false
	})
	try(func(o *Options) { o.NoAck, o.MultiTarget, o.Transactions, o.Redrive = false, false, false, false })
	try(func(o *Options) { o.Crashes = false })
	for len(s.o.Queues) > 1 {
		n := len(s.o.Queues)
		if try(func(o *Options) { o.Queues = o.Queues[:n-1] }); len(s.o.Queues) == n {
			break
		}
	}
	for i := range s.o.Queues {
		try(func(o *Options) { o.Queues[i].Config = plain(&o.Queues[i].Config) })
		try(func(o *Options) { o.Queues[i].Config.Level = surgetank.LevelConfig{} })
		try(func(o *Options) {
			o.Queues[i].Config.Group.Rate, o.Queues[i].Config.Group.Fair, o.Queues[i].Config.Group.Weights = 0, false, nil
		})
		try(func(o *Options) { o.Queues[i].Config.Group.Weights = nil })
		try(func(o *Options) { o.Queues[i].Config.Level.FreshShare, o.Queues[i].Config.Level.FreshAge = 0, 0 })
		try(func(o *Options) { o.Queues[i].Config.PriorityStep = 0 })
		try(func(o *Options) {
			c := &o.Queues[i].Config
			c.MaxMessages, c.Overflow, c.MaxPriority, c.TTL = 0, "", 0, 0
		})
		try(func(o *Options) { o.Queues[i].Chain = false })
		try(func(o *Options) { o.Queues[i].Config.Coalesce = surgetank.CoalesceConfig{} })
	}
}

// plain returns only those settings of a queue that the plan's other fields need.
func plain(c *surgetank.QueueConfig) surgetank.QueueConfig {
	p := surgetank.QueueConfig{Retry: c.Retry, DeadLetter: c.DeadLetter, DedupWindow: c.DedupWindow, DedupBy: c.DedupBy, Coalesce: c.Coalesce}
	p.Group.MaxInFlight = c.Group.MaxInFlight
	return p
}
