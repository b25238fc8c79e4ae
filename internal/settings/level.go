package settings

import (
	"time"

	"github.com/surgetank/surgetank"
)

// QueueLevel is the JSON of a queue's adaptive limit and breaker.
type QueueLevel struct {
	InFlight    int           `json:"in_flight" doc:"Leases that the limit counts. Queues with the same level.target count together."`
	Limit       int           `json:"limit,omitempty" doc:"The adaptive limit."`
	InForce     int           `json:"in_force,omitempty" doc:"The limit now: lower while the target is measured, 0 while it asked for a pause."`
	Reason      string        `json:"reason,omitempty" doc:"Why the limit changed last."`
	Changed     *time.Time    `json:"changed,omitempty"`
	Ratio       float64       `json:"ratio,omitempty" doc:"The latency at the limit as a multiple of the latency at the smallest limit."`
	Latency     string        `json:"latency,omitempty" schema:"Duration" doc:"At the smallest limit."`
	State       string        `json:"state,omitempty" doc:"A sentence."`
	PausedUntil *time.Time    `json:"paused_until,omitempty" doc:"The end of a pause that the target asked for."`
	Changes     uint64        `json:"changes,omitempty" doc:"Changes of the limit since the start."`
	Breaker     *LevelBreaker `json:"breaker,omitempty"`
}

// SinkLevel is the JSON of a sink's adaptive limit, which counts lanes.
type SinkLevel struct {
	Limit   int       `json:"limit" doc:"The most lanes that write at the same time."`
	InForce int       `json:"in_force" doc:"The limit now: lower while the target is measured, 0 while it asked for a pause."`
	Batch   int       `json:"batch" doc:"Rows of the next batches."`
	Reason  string    `json:"reason" doc:"Why the limit or the batch size changed last."`
	Changed time.Time `json:"changed"`
	Ratio   float64   `json:"ratio,omitempty" doc:"The latency per row under load as a multiple of the latency at the smallest limit."`
	State   string    `json:"state" doc:"A sentence."`
}

// LevelBreaker is the JSON of a breaker.
type LevelBreaker struct {
	State     string     `json:"state" doc:"closed, open, probing, ramp or held."`
	Since     *time.Time `json:"since,omitempty"`
	Cause     string     `json:"cause,omitempty" doc:"Of the last opening."`
	By        string     `json:"by,omitempty" doc:"The user whose command opened it."`
	Why       string     `json:"why,omitempty"`
	DownSince *time.Time `json:"down_since,omitempty" doc:"The start of the outage."`
	NextProbe *time.Time `json:"next_probe,omitempty"`
	Probe     string     `json:"probe,omitempty" doc:"The message that tests the target now."`
	RampLimit int        `json:"ramp_limit,omitempty" doc:"The limit while the load grows after an outage, without an adaptive limit."`
	Openings  uint64     `json:"openings"`
	Probes    uint64     `json:"probes"`
	Refunds   uint64     `json:"refunds" doc:"Attempts that were returned."`
}

// LevelHistory is the JSON of surgetank.LevelHistory.
type LevelHistory struct {
	Changes []LevelChange `json:"changes"`
	Outages []Outage      `json:"outages"`
}

// LevelChange is the JSON of one change of a limit.
type LevelChange struct {
	Time   time.Time `json:"time"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Reason string    `json:"reason"`
	Ratio  float64   `json:"ratio,omitempty"`
	Sink   string    `json:"sink,omitempty" doc:"The sink whose limit of lanes or batch size changed. Missing: the limit of the queue."`
}

// Outage is the JSON of one outage.
type Outage struct {
	Start     time.Time  `json:"start"`
	End       *time.Time `json:"end,omitempty"`
	Cause     string     `json:"cause"`
	OpenedBy  string     `json:"opened_by,omitempty"`
	OpenedWhy string     `json:"opened_why,omitempty"`
	ClosedBy  string     `json:"closed_by,omitempty"`
	ClosedWhy string     `json:"closed_why,omitempty"`
	Probes    int        `json:"probes"`
	Refunds   int        `json:"refunds"`
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// showLevel returns the JSON form of i, or nil for nil.
func showLevel(i *surgetank.LevelInfo) *QueueLevel {
	if i == nil {
		return nil
	}
	q := &QueueLevel{InFlight: i.InFlight, Limit: i.Limit, InForce: i.InForce, Reason: i.Reason, Changed: timeOrNil(i.Changed), Ratio: i.Ratio,
		State: i.State, PausedUntil: timeOrNil(i.PausedUntil), Changes: i.Changes}
	if i.Latency != 0 {
		q.Latency = i.Latency.String()
	}
	if i.Breaker != "" {
		q.Breaker = &LevelBreaker{State: i.Breaker, Since: timeOrNil(i.BreakerSince), Cause: i.BreakerCause, By: i.BreakerBy, Why: i.BreakerWhy, DownSince: timeOrNil(i.DownSince),
			NextProbe: timeOrNil(i.NextProbe), RampLimit: i.RampLimit, Openings: i.Openings, Probes: i.Probes, Refunds: i.Refunds}
		if i.Probe != (surgetank.MessageID{}) {
			q.Breaker.Probe = i.Probe.String()
		}
	}
	return q
}

// info converts the answer of a server back.
func (q *QueueLevel) info() (*surgetank.LevelInfo, error) {
	if q == nil {
		return nil, nil
	}
	i := &surgetank.LevelInfo{InFlight: q.InFlight, Limit: q.Limit, InForce: q.InForce, Reason: q.Reason, Changed: timeOrZero(q.Changed), Ratio: q.Ratio,
		State: q.State, PausedUntil: timeOrZero(q.PausedUntil), Changes: q.Changes}
	if q.Latency != "" {
		d, err := time.ParseDuration(q.Latency)
		if err != nil {
			return nil, surgetank.Errorf(surgetank.CodeInternal, "the server sent the invalid latency %q; does it have another version?", q.Latency)
		}
		i.Latency = d
	}
	if b := q.Breaker; b != nil {
		i.Breaker, i.BreakerSince, i.BreakerCause, i.BreakerBy, i.BreakerWhy = b.State, timeOrZero(b.Since), b.Cause, b.By, b.Why
		i.DownSince, i.NextProbe, i.RampLimit = timeOrZero(b.DownSince), timeOrZero(b.NextProbe), b.RampLimit
		i.Openings, i.Probes, i.Refunds = b.Openings, b.Probes, b.Refunds
		if b.Probe != "" {
			id, err := surgetank.ParseMessageID(b.Probe)
			if err != nil {
				return nil, surgetank.Errorf(surgetank.CodeInternal, "the server sent the invalid message id %q; does it have another version?", b.Probe)
			}
			i.Probe = id
		}
	}
	return i, nil
}

// ShowLevelHistory returns the JSON form of a history.
func ShowLevelHistory(h surgetank.LevelHistory) LevelHistory {
	s := LevelHistory{Changes: []LevelChange{}, Outages: []Outage{}}
	for _, c := range h.Changes {
		s.Changes = append(s.Changes, LevelChange(c))
	}
	for _, o := range h.Outages {
		s.Outages = append(s.Outages, Outage{o.Start, timeOrNil(o.End), o.Cause, o.OpenedBy, o.OpenedWhy, o.ClosedBy, o.ClosedWhy, o.Probes, o.Refunds})
	}
	return s
}

// History converts the answer of a server back.
func (s LevelHistory) History() (h surgetank.LevelHistory) {
	for _, c := range s.Changes {
		h.Changes = append(h.Changes, surgetank.LevelChange(c))
	}
	for _, o := range s.Outages {
		h.Outages = append(h.Outages, surgetank.Outage{Start: o.Start, End: timeOrZero(o.End), Cause: o.Cause, OpenedBy: o.OpenedBy, OpenedWhy: o.OpenedWhy,
			ClosedBy: o.ClosedBy, ClosedWhy: o.ClosedWhy, Probes: o.Probes, Refunds: o.Refunds})
	}
	return h
}
