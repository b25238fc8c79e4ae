package httpapi

import (
	"encoding/json"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/msgopt"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/settings"
)

// The answers of handlers, as encoding/json writes them and as openapi.json describes them.

type healthAnswer struct {
	Status string `json:"status" enum:"ok"`
}

type readyAnswer struct {
	Status  string `json:"status" enum:"ready"`
	Publish string `json:"publish,omitempty" enum:"refused" doc:"Present while messages are refused."`
	Reason  string `json:"reason,omitempty" doc:"Why messages are refused."`
}

type whoamiAnswer struct {
	User          string `json:"user"`
	Local         bool   `json:"local"`
	Version       string `json:"version"`
	Administrator bool   `json:"administrator"`
	Monitoring    bool   `json:"monitoring"`
}

type queuesAnswer struct {
	Queues []settings.Queue `json:"queues"`
	Next   string           `json:"next,omitempty" doc:"The value of after for the next page."`
	// Incomplete is the error of the shard.
	Incomplete string `json:"incomplete,omitempty" doc:"A shard is not open, so its queues are missing. The text says which shard and why."`
}

type removedAnswer struct {
	Removed int64 `json:"removed"`
}

type purgedAnswer struct {
	Purged int64 `json:"purged"`
}

type pausedAnswer struct {
	Paused bool `json:"paused"`
}

type deletedAnswer struct {
	Deleted bool `json:"deleted" enum:"true"`
}

type storedAnswer struct {
	Stored bool `json:"stored" enum:"true"`
}

type redriveAnswer struct {
	Matched int64 `json:"matched"`
	Moved   int64 `json:"moved"`
	Skipped int64 `json:"skipped"`
	Full    int64 `json:"full,omitempty" doc:"The part of skipped whose target queue is at its limits."`
	DryRun  bool  `json:"dry_run"`
}

type subscribedAnswer struct {
	Subscription string `json:"subscription"`
	TTL          string `json:"ttl" schema:"Duration"`
}

type floorAnswer struct {
	Floor uint64 `json:"floor"`
}

type cancelledAnswer struct {
	Cancelled bool `json:"cancelled" enum:"true"`
}

type closedAnswer struct {
	Closed bool `json:"closed" enum:"true"`
}

type sinksAnswer struct {
	Sinks []sinkAnswer `json:"sinks"`
}

// sinkAnswer is the JSON of a sink, as the manager of the sinks writes it.
type sinkAnswer = json.RawMessage

type usersAnswer struct {
	Users []auth.UserInfo `json:"users"`
}

type vhostsAnswer struct {
	Vhosts []auth.VhostInfo `json:"vhosts"`
}

type permissionsAnswer struct {
	Permissions []auth.PermissionInfo `json:"permissions"`
}

type topicsAnswer struct {
	TopicPermissions []auth.TopicPermissionInfo `json:"topic_permissions"`
}

type policiesAnswer struct {
	Policies []policy.Policy `json:"policies"`
}

type metaAnswer struct {
	Values map[string][]byte `json:"values"`
}

// breakerAnswer says whether a command opened or closed a breaker.
type breakerAnswer struct {
	Open bool `json:"open"`
}

// settledAnswer has the result for each receipt of a request.
type settledAnswer struct {
	Done    int       `json:"done"`
	Failed  int       `json:"failed"`
	Results []settled `json:"results"`
}

// settled is the result for one receipt.
type settled struct {
	Receipt string         `json:"receipt"`
	OK      bool           `json:"ok"`
	Code    surgetank.Code `json:"code,omitempty"`
	Detail  string         `json:"detail,omitempty"`
}

// publishedAnswer describes the answer to a publish. answerPublished writes it without reflection.
type publishedAnswer struct {
	Published  int          `json:"published"`
	Duplicates int          `json:"duplicates" doc:"Messages that were not stored again, because their dedup id or their publisher's number was known."`
	IDs        []*string    `json:"ids,omitempty" doc:"One id for each message, in order. Null for a duplicate if the server has forgotten the id of the first copy."`
	Ranges     []idRangeDoc `json:"ranges,omitempty" doc:"With ids=ranges: ranges of consecutive ids, in the order of the messages."`
}

type idRangeDoc struct {
	First     *string `json:"first" null:"true"`
	Count     int     `json:"count"`
	Duplicate bool    `json:"duplicate,omitempty"`
}

// messagesAnswer describes a list of messages. respondMessages writes it without reflection.
type messagesAnswer struct {
	Messages []messageDoc `json:"messages"`
	Floor    uint64       `json:"floor,omitempty" doc:"Of a subscription: every message with a lower number was settled for good."`
}

// messageDoc describes a message. appendDelivery writes it.
type messageDoc struct {
	ID          string    `json:"id"`
	Receipt     string    `json:"receipt,omitempty"`
	Fencing     string    `json:"fencing_token,omitempty" doc:"The number of the lease; only in groups with max_in_flight 1. Every later lease of the group has a higher number."`
	Queue       string    `json:"queue"`
	Vhost       string    `json:"vhost,omitempty"`
	Time        time.Time `json:"time"`
	Attempt     int       `json:"attempt"`
	Redelivered bool      `json:"redelivered,omitempty"`
	Deadline    time.Time `json:"deadline,omitzero"`
	State       string    `json:"state,omitempty" enum:"ready,blocked,delayed,leased,damaged"`
	Damage      string    `json:"damage,omitempty" doc:"In a peek: why the message cannot be read. It has no body then."`
	Due         time.Time `json:"due,omitzero" doc:"In a peek: when the delay or the back-off of a delayed message ends."`
	Failure     string    `json:"failure,omitempty" doc:"In a peek: the reason of the message's last failure, if it has one."`
	Waiting     string    `json:"waiting,omitempty" doc:"In a peek: why a blocked message is not delivered."`
	msgopt.Shape
	Deaths     []deathDoc `json:"deaths,omitempty" doc:"Newest first."`
	Body       any        `json:"body,omitempty" doc:"The body, if it is JSON."`
	BodyBase64 []byte     `json:"body_base64,omitempty" doc:"The body, if it is not JSON."`
}

// deathDoc describes a surgetank.Death.
type deathDoc struct {
	Queue    string    `json:"queue"`
	Reason   string    `json:"reason" enum:"rejected,attempts,expired,overflow"`
	Detail   string    `json:"detail,omitempty"`
	Time     time.Time `json:"time"`
	Attempts int       `json:"attempts"`
	Group    string    `json:"group,omitempty"`
}

var _ = deathDoc(surgetank.Death{}) // both types have the same fields
