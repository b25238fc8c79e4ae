package sink

import (
	"sync"
	"time"

	"github.com/surgetank/surgetank/internal/adapt"
	"github.com/surgetank/surgetank/internal/door"
)

// governor decides how many lanes may write at the same time, and how large their batches are. It
// follows the level.adaptive of the queue. Without that setting every lane may write at once.
//
// The number of lanes never changes, because the progress in the target belongs to lanes. A lane
// has a turn for each batch:
//
//	a batch is ready → try → takeBatch → write → leave
//	                   └ false: the lane is in the line, and its wake channel gets a token when it must try again
//
// A batch is taken after try, so the messages that arrive while a lane is in the line make the
// batch fuller. The governor outlives sessions. It is safe for use by many goroutines.
type governor struct {
	opts  *Options
	lanes int
	most  int // batch.max

	mu      sync.Mutex
	limit   *adapt.Controller // nil: the queue has no level.adaptive
	set     adapt.Settings
	known   bool // told has a value
	told    door.Level
	line    []*lane // lanes that wait, in order
	writing int     // number of lanes that have a turn
	typical float64 // rows of a batch under load; it shrinks slowly
}

// try gives the lane a turn. Otherwise it puts the lane into the line and returns when to try
// again, even without a token; 0 means that a token will come.
func (g *governor) try(l *lane) (ok bool, after time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.limit != nil {
		g.limit.Tick(now)
		first := len(g.line) == 0 || g.line[0] == l
		if !first || g.limit.InFlight() >= g.limit.Limit(now) {
			if !l.inLine {
				g.line, l.inLine = append(g.line, l), true
			}
			if at := g.limit.Next(); at != 0 {
				after = max(time.Millisecond, time.Duration(at-now))
			}
			return false, after
		}
		g.limit.Handed(now, 1)
	}
	g.writing++
	g.remove(l)
	g.next()
	l.turnAt, l.hasTurn = now, true
	return true, 0
}

// quit removes a lane from the line.
func (g *governor) quit(l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(l)
	g.next()
}

func (g *governor) remove(l *lane) {
	if !l.inLine {
		return
	}
	l.inLine = false
	for i, o := range g.line {
		if o == l {
			g.line = append(g.line[:i], g.line[i+1:]...)
			return
		}
	}
}

// next lets the first lane of the line try again.
func (g *governor) next() {
	if len(g.line) > 0 {
		signal(g.line[0].wake)
	}
}

// leave ends the turn of a lane with the result of its batch.
func (g *governor) leave(l *lane, a adapt.Answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !l.hasTurn {
		return
	}
	l.hasTurn = false
	g.writing--
	if g.limit == nil {
		return
	}
	a.HandedAt = l.turnAt
	a.Partial = g.partial(a.Rows)
	g.limit.Answered(g.now(), a)
	g.next()
}

// partial reports whether a batch is much smaller than the batches under load. Its latency per row
// cannot be compared with theirs, because a batch has a fixed cost. A batch that is full counts, and
// so does a batch of the usual size: bytes or level.max_in_flight can keep batches small.
func (g *governor) partial(rows int) bool {
	n := float64(rows)
	if n < g.typical {
		g.typical -= (g.typical - n) / 64
	} else {
		g.typical = n
	}
	return rows < g.limit.BatchSize() && n < 0.75*g.typical
}

// follow applies the level of the queue. The broker calls it after each change.
func (g *governor) follow(level door.Level) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	was, known := g.told, g.known
	g.told, g.known = level, true
	set := g.settings(level)
	switch {
	case !level.Adaptive.On:
		g.limit = nil
		for _, l := range g.line {
			l.inLine = false
			signal(l.wake)
		}
		g.line = nil
		return
	case g.limit == nil:
		g.limit = adapt.New(now, set)
		g.limit.Handed(now, g.writing)
	case set != g.set:
		g.limit.Configure(now, set)
	}
	g.set = set
	switch {
	case !known:
	case level.Opened != was.Opened:
		g.limit.Reset(now, adapt.BreakerOpen)
	case level.Resumed != was.Resumed:
		g.limit.Reset(now, adapt.Resumed)
	}
	g.next()
}

// settings returns the bounds of the limit. A limit above the number of lanes would have no effect.
func (g *governor) settings(level door.Level) adapt.Settings {
	a := level.Adaptive
	s := adapt.Settings{Min: a.Min, Max: a.Max, Tolerance: a.Tolerance}.WithDefaults()
	s.Min, s.Max, s.BatchMax = min(s.Min, g.lanes), min(s.Max, g.lanes), g.most
	return s
}

// down sets the limit to the smallest one, because the target cannot be used.
func (g *governor) down() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit != nil {
		g.limit.Reset(g.now(), adapt.TargetDown)
	}
}

// size returns the number of rows for the next batches.
func (g *governor) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit == nil {
		return g.most
	}
	return g.limit.BatchSize()
}

func (g *governor) now() int64 { return g.opts.clock.Now().UnixNano() }
