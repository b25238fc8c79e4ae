package lease

import (
	"cmp"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/lease/rules"
)

// Options describe a node. Only Name is required.
type Options struct {
	Name    string // for people; it can repeat
	Address string // where clients reach the node; other nodes see it
	Bucket  string // "": SURGETANK_OWN
	// Replicas is the number of replicas of the bucket. 0: 3. A smaller number is for tests.
	Replicas int

	Heartbeat time.Duration // 0: 0.5 s
	Renew     time.Duration // 0: 3 s
	DeadAfter time.Duration // silence after which a node is dead; 0: 3 s
	TTL       time.Duration // of all keys, in whole seconds; 0: 15 s
	// Pause is the time between two moves that balance the nodes; 0: 5 s. A negative time: logs
	// move only when their owner ends or resigns.
	Pause time.Duration
	// Leave is the time that an owner has to resign after Leave; 0: 10 s.
	Leave time.Duration

	Clock  clock.Clock  // nil: the real clock
	Logger *slog.Logger // nil: discarded
	Rand   io.Reader    // source of the node's id; nil: crypto/rand
}

const (
	defaultBucket = "SURGETANK_OWN"
	replicas      = 3
	// markerTTL is how long the bucket keeps the marker of an expired key.
	markerTTL = time.Second
	// answerIn is the time after which a write counts as unanswered.
	answerIn = 2 * time.Second
	// stagger is the time by which a further heir waits longer. It is longer than the usual
	// difference between the moments at which two nodes find that a third one is dead.
	stagger = 600 * time.Millisecond
	// maxData limits the text of Announce, a node's name and its address.
	maxData = 4 << 10
	// openIn limits the tries to create the bucket.
	openIn = 30 * time.Second
	// closeIn limits the wait for answers in Close.
	closeIn = 2 * time.Second
)

// fill sets defaults and checks the options.
func (o *Options) fill(nc *nats.Conn) error {
	o.Bucket = cmp.Or(o.Bucket, defaultBucket)
	o.Replicas = cmp.Or(o.Replicas, replicas)
	o.Heartbeat = cmp.Or(o.Heartbeat, 500*time.Millisecond)
	o.Renew = cmp.Or(o.Renew, 3*time.Second)
	o.DeadAfter = cmp.Or(o.DeadAfter, 3*time.Second)
	o.TTL = cmp.Or(o.TTL, 15*time.Second)
	o.Pause = cmp.Or(o.Pause, 5*time.Second)
	o.Leave = cmp.Or(o.Leave, 10*time.Second)
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	o.Logger = callback.Logger(o.Logger)
	switch {
	case nc == nil:
		return surgetank.FieldErrorf("conn", "a node needs a connection to NATS")
	case nc.Opts.MaxReconnect != -1 || nc.Opts.ReconnectBufSize != -1:
		return surgetank.FieldErrorf("conn", "the connection to NATS keeps messages while it is lost, or does not reconnect for ever; set MaxReconnects(-1) and ReconnectBufSize(-1)")
	case o.Name == "" || len(o.Name) > maxData || len(o.Address) > maxData:
		return surgetank.FieldErrorf("name", "a node needs a name, and its name and address have at most %d bytes each", maxData)
	case o.Replicas < 0:
		return surgetank.FieldErrorf("replicas", "the bucket %s cannot have %d replicas", o.Bucket, o.Replicas)
	case o.TTL < time.Second || o.TTL%time.Second != 0:
		return surgetank.FieldErrorf("ttl", "the time to live is %v and must be whole seconds", o.TTL)
	case o.Heartbeat < 10*time.Millisecond || o.Renew < o.Heartbeat || o.DeadAfter < 4*o.Heartbeat || o.TTL < o.DeadAfter || o.TTL < 2*o.Renew || o.Leave < 0:
		return surgetank.FieldErrorf("heartbeat", "the times of a node do not fit: heartbeat %v, renew %v, dead after %v, TTL %v; each must be several times the one before, and the TTL at least twice the renewal",
			o.Heartbeat, o.Renew, o.DeadAfter, o.TTL)
	}
	return checkName("bucket", o.Bucket)
}

// checkName refuses names that cannot be a part of a subject.
func checkName(field, name string) error {
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return surgetank.FieldErrorf(field, "the name %q must have 1 to 64 letters, digits, - and _", name)
	}
	return nil
}

func (o *Options) config(id string) rules.Config {
	return rules.Config{ID: id, Name: o.Name, Address: o.Address, Heartbeat: o.Heartbeat, Renew: o.Renew, TTL: o.TTL,
		DeadAfter: o.DeadAfter, Answer: answerIn, Stagger: stagger, Pause: o.Pause, Leave: o.Leave}
}
