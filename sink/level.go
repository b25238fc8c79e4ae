package sink

import (
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/adapt"
)

// Level is the adaptive limit of a sink whose queue has level.adaptive. The limit counts lanes that
// write at the same time.
type Level struct {
	Limit       int           `json:"limit"`    // the working limit; at most the number of lanes
	InForce     int           `json:"in_force"` // the limit now: lower while the target is measured, 0 while it asked for a pause
	Writing     int           `json:"writing"`  // lanes that write now
	Batch       int           `json:"batch"`    // rows of the next batches
	Reason      string        `json:"reason"`   // why the limit or the batch size changed last, such as "too_slow"
	Changed     time.Time     `json:"changed"`
	Ratio       float64       `json:"ratio,omitempty"`      // latency per row under load as a multiple of the latency at the smallest limit; 0: not known yet
	Latency     time.Duration `json:"latency_ns,omitempty"` // of a batch at the smallest limit; 0: not known yet
	State       string        `json:"state"`                // a sentence
	PausedUntil time.Time     `json:"paused_until,omitzero"`
	// History is the last 64 changes, the newest first. Lists of sinks do not have it.
	History []LevelChange `json:"history,omitempty"`
}

// LevelChange is one change of the limit, or of the batch size if the name of the reason begins with
// batch.
type LevelChange struct {
	Time   time.Time `json:"time"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Reason string    `json:"reason"`
	Ratio  float64   `json:"ratio,omitempty"`
}

// status returns the state of the limit, and nil if the queue has no level.adaptive.
func (g *governor) status() *Level {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit == nil {
		return nil
	}
	now := g.now()
	g.limit.Tick(now)
	s := g.limit.Status(now)
	l := &Level{Limit: s.Limit, InForce: s.Now, Writing: s.InFlight, Batch: s.BatchSize, Reason: s.Last.Reason.String(), Changed: utc(s.Last.At), Ratio: s.Ratio,
		Latency: time.Duration(s.Latency), State: s.Sentence()}
	if s.PausedUntil > 0 {
		l.PausedUntil = utc(s.PausedUntil)
	}
	for _, c := range slices.Backward(g.limit.History(make([]adapt.Change, 0, adapt.HistorySize))) {
		l.History = append(l.History, LevelChange{Time: utc(c.At), From: int(c.From), To: int(c.To), Reason: c.Reason.String(), Ratio: float64(c.Ratio)})
	}
	return l
}

func utc(at int64) time.Time { return time.Unix(0, at).UTC() }

// LevelHistory returns the changes of the limits of a queue's sinks, the newest first.
func (m *Manager) LevelHistory(queue string) []surgetank.LevelChange {
	var list []surgetank.LevelChange
	for _, b := range m.OnQueue(queue) {
		if b.Level == nil {
			continue
		}
		for _, c := range b.Level.History {
			list = append(list, surgetank.LevelChange{Time: c.Time, From: c.From, To: c.To, Reason: c.Reason, Ratio: c.Ratio, Sink: b.Name})
		}
	}
	slices.SortStableFunc(list, func(a, b surgetank.LevelChange) int { return b.Time.Compare(a.Time) })
	return list
}
