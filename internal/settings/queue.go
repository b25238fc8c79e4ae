package settings

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
)

// Queue is a queue in the JSON of the HTTP interface. Clients read it, and the command line prints
// it with --json. Durations are written as "1m30s", times in UTC. The tags doc and schema are for
// openapi.json.
type Queue struct {
	Name      string         `json:"name"`
	Vhost     string         `json:"vhost"`
	ID        uint64         `json:"id"`
	Created   time.Time      `json:"created"`
	Settings  map[string]any `json:"settings" schema:"QueueSettings"`
	Policy    string         `json:"policy,omitempty" doc:"the policy that changes the settings"`
	Declared  map[string]any `json:"declared,omitempty" schema:"QueueSettings" doc:"with a policy: the settings without it"`
	Ready     int64          `json:"ready" doc:"can be delivered now"`
	Blocked   int64          `json:"blocked" doc:"wait for earlier messages of their group"`
	Delayed   int64          `json:"delayed" doc:"wait for the end of their delay or back-off"`
	Leased    int64          `json:"leased" doc:"delivered and not settled"`
	Damaged   int64          `json:"damaged" doc:"cannot be read; not delivered, and stored until an operator drops them"`
	Bytes     int64          `json:"bytes"`
	OldestAge string         `json:"oldest_age" schema:"Duration" doc:"the longest time that a ready or blocked message has waited"`
	// Messages in back-off: their number, the earliest next try, and the last failure of the
	// message with this try.
	BackingOff int64       `json:"backing_off" doc:"the part of delayed that waits for another try"`
	NextTry    *time.Time  `json:"next_try,omitempty" doc:"the earliest next try"`
	Failure    string      `json:"failure,omitempty" doc:"the reason of that message's last failure; for users who may read the queue or monitor"`
	Groups     int64       `json:"groups"`
	Consumers  int64       `json:"consumers"`
	Floor      uint64      `json:"floor" doc:"every message with a lower number was settled for good"`
	In         *QueueRates `json:"in,omitempty" doc:"messages a second that came in; missing: none"`
	Out        *QueueRates `json:"out,omitempty" doc:"messages a second that left for good; missing: none"`
	PausedBy   string      `json:"paused_by,omitempty" doc:"the user who paused the queue, if one is known"`
	PausedAt   *time.Time  `json:"paused_at,omitempty" doc:"when the queue was paused"`
	Waiting    string      `json:"waiting,omitempty" doc:"why the next message is not delivered"`
	Shard      int         `json:"shard,omitempty" doc:"the shard, from 1; missing if the broker has one shard"`
	Moving     *QueueMove  `json:"moving,omitempty" doc:"the move to another shard that is under way"`
	Level      *QueueLevel `json:"level,omitempty" doc:"The adaptive limit and the breaker. Missing if the queue uses neither."`
	Refusals   []Refusal   `json:"refusals,omitempty" doc:"What the limits of the queue and the disk refused."`
	Counts     QueueCounts `json:"counts" doc:"These are counted from the opening of the broker."`
	Sinks      []QueueSink `json:"sinks,omitempty" doc:"sinks that read the queue"`
}

// QueueMove is a move to another shard that is under way.
type QueueMove struct {
	Shard  int       `json:"shard" doc:"the new shard"`
	State  string    `json:"state" doc:"copying: the queue works as usual. waiting: nothing is delivered until the leases have ended. switching: calls wait."`
	Since  time.Time `json:"since"`
	Copied int64     `json:"copied" doc:"messages that are copied"`
	Left   int64     `json:"left" doc:"about how many are still to copy"`
}

// QueueSink is a sink of a queue. Reason is why the sink waits or has stopped. Only users with the
// right to monitor the server see the reason.
type QueueSink struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty" doc:"why the sink waits or has stopped; for users who may monitor"`
	// Level is the sink's adaptive limit.
	Level *SinkLevel `json:"level,omitempty" doc:"the sink's adaptive limit, if the queue has level.adaptive"`
}

// Refusal counts the refusals of one limit since the opening of the broker.
type Refusal struct {
	Limit string    `json:"limit"`
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// QueueCounts are a queue's counters since the opening of the broker.
type QueueCounts struct {
	Published    uint64 `json:"published"`
	Duplicates   uint64 `json:"duplicates"`
	Refused      uint64 `json:"refused"`
	Delivered    uint64 `json:"delivered"`
	Acked        uint64 `json:"acked"`
	Nacked       uint64 `json:"nacked"`
	Expired      uint64 `json:"expired"`
	DeadLettered uint64 `json:"dead_lettered"`
	Dropped      uint64 `json:"dropped"`
	LeasesLost   uint64 `json:"leases_lost"`
	Circled      uint64 `json:"circled,omitempty" doc:"The part of dropped that would have returned to a queue without a consumer in between."`
	Coalesced    uint64 `json:"coalesced,omitempty" doc:"Messages that were confirmed and not delivered, because another message with their coalescing key is delivered instead."`
}

// Show returns the JSON form of a queue.
func Show(q *surgetank.QueueInfo) Queue {
	vhost, name := fullname.Split(q.Name)
	s := Queue{
		Name: name, Vhost: vhost, ID: q.ID, Created: q.Created.UTC(), Settings: Encode(Unqualify(WithDefaults(q.Config))),
		Ready: q.Ready, Blocked: q.Blocked, Delayed: q.Delayed, Leased: q.Leased, Damaged: q.Damaged, Bytes: q.Bytes, OldestAge: q.OldestAge.String(),
		Groups: q.Groups, Consumers: q.Consumers, Floor: *door.QueueFloor(q), Waiting: q.Waiting, BackingOff: q.BackingOff, Failure: q.Failure,
		Counts: QueueCounts{q.Published, q.Duplicates, q.Refused, q.Delivered, q.Acked, q.Nacked, q.Expired, q.DeadLettered, q.Dropped, q.LeasesLost, q.Circled, q.Coalesced},
	}
	for _, r := range q.Refusals {
		s.Refusals = append(s.Refusals, Refusal(r))
	}
	s.Level = showLevel(q.Level)
	s.PausedBy, s.PausedAt = q.PausedBy, timeOrNil(q.PausedAt)
	s.Shard = q.Shard
	if m := q.Moving; m != nil {
		s.Moving = &QueueMove{m.Shard, string(m.State), m.Since.UTC(), m.Copied, m.Left}
	}
	s.In, s.Out = showRates(q.In), showRates(q.Out)
	if !q.NextTry.IsZero() {
		at := q.NextTry.UTC()
		s.NextTry = &at
	}
	if q.Policy != "" {
		s.Policy, s.Declared = q.Policy, Encode(Unqualify(WithDefaults(q.Declared())))
	}
	return s
}

func showRates(r surgetank.Rates) *QueueRates {
	if r == (surgetank.Rates{}) {
		return nil
	}
	return &QueueRates{r.Minute, r.TenMinutes}
}

// Info converts the answer of a server back. Its errors have CodeInternal.
func (s *Queue) Info() (surgetank.QueueInfo, error) {
	config, err := s.config(s.Settings)
	if err != nil {
		return surgetank.QueueInfo{}, err
	}
	age, err := time.ParseDuration(s.OldestAge)
	if err != nil {
		return surgetank.QueueInfo{}, surgetank.Errorf(surgetank.CodeInternal, "the server sent the invalid oldest age %q for queue %q; does it have another version?", s.OldestAge, s.Name)
	}
	n := &s.Counts
	q := surgetank.QueueInfo{
		Name: fullname.Of(s.Vhost, s.Name), ID: s.ID, Config: config, Created: s.Created, Policy: s.Policy,
		Ready: s.Ready, Blocked: s.Blocked, Delayed: s.Delayed, Leased: s.Leased, Damaged: s.Damaged, Bytes: s.Bytes, OldestAge: age, Groups: s.Groups,
		Consumers: s.Consumers, Waiting: s.Waiting, BackingOff: s.BackingOff, Failure: s.Failure,
		Published: n.Published, Duplicates: n.Duplicates, Refused: n.Refused, Delivered: n.Delivered, Acked: n.Acked, Nacked: n.Nacked,
		Expired: n.Expired, DeadLettered: n.DeadLettered, Dropped: n.Dropped, LeasesLost: n.LeasesLost, Circled: n.Circled, Coalesced: n.Coalesced,
	}
	*door.QueueFloor(&q) = s.Floor
	for _, r := range s.Refusals {
		q.Refusals = append(q.Refusals, surgetank.Refusal(r))
	}
	if q.Level, err = s.Level.info(); err != nil {
		return surgetank.QueueInfo{}, err
	}
	if s.In != nil {
		q.In = surgetank.Rates(*s.In)
	}
	if s.Out != nil {
		q.Out = surgetank.Rates(*s.Out)
	}
	q.PausedBy, q.PausedAt = s.PausedBy, timeOrZero(s.PausedAt)
	q.Shard = s.Shard
	if m := s.Moving; m != nil {
		q.Moving = &surgetank.MoveInfo{Shard: m.Shard, State: surgetank.MoveState(m.State), Since: m.Since, Copied: m.Copied, Left: m.Left}
	}
	if s.NextTry != nil {
		q.NextTry = *s.NextTry
	}
	if s.Policy != "" {
		own, err := s.config(s.Declared)
		if err != nil {
			return surgetank.QueueInfo{}, err
		}
		q.Own = &own
	}
	return q, nil
}

func (s *Queue) config(tree map[string]any) (surgetank.QueueConfig, error) {
	c, err := Decode(tree)
	if err != nil {
		return c, surgetank.Errorf(surgetank.CodeInternal, "the settings of queue %q could not be understood: %w; does the server have another version?", s.Name, err)
	}
	return Qualify(c, s.Vhost), nil
}
