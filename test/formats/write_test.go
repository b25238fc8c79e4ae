package formats

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/sink"
)

// The names used by the writer and the reader of a golden directory.
const (
	publisher = "golden-publisher-1"
	otherOne  = "golden-publisher-2"

	movedPublisher = "golden-publisher-of-queue-"
	userName       = "ada"
	userSecret     = "a secret of the golden directory"
)

// The kinds of records that the writer uses directly.
const (
	recMoved queue.Kind = 2
	recEpoch            = 11 // old record of an opening; current builds write kind 12
)

// writer makes a golden directory. It runs in a synctest bubble, so its clock is simulated.
type writer struct {
	t   *testing.T
	b   *broker.Broker
	dir string
}

// write makes a complete directory and returns its path.
//
// The directory ends with two snapshots. Every kind of record is between them, and the newer one
// has every kind of frame.
func write(t *testing.T) string {
	w := &writer{t: t, dir: filepath.Join(t.TempDir(), "log")}
	w.losses()
	w.moves()
	w.b = open(t, w.dir, opening{incarnation: 4})
	w.settings()
	w.messages()
	w.access()
	w.topology()
	w.crash() // some leases are live
	w.b = open(t, w.dir, opening{incarnation: 5})
	w.later()
	closeBroker(t, w.b)
	appendEntry(t, w.dir, []byte{recEpoch, 9})
	w.b = open(t, w.dir, opening{incarnation: 6, closing: true})
	w.publish("plain", surgetank.Message{Body: []byte("after the old epoch record")})
	if ds := w.receive("leased", 1); len(ds) != 1 { // the clean stop records this lease
		t.Fatalf("%d messages are leased, want 1", len(ds))
	}
	closeBroker(t, w.b)
	return w.dir
}

func (w *writer) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) crash() {
	w.t.Helper()
	to := crash(w.t, w.dir)
	closeBroker(w.t, w.b)
	w.dir = to
}

func (w *writer) declare(name string, c surgetank.QueueConfig) {
	w.t.Helper()
	_, _, err := w.b.DeclareQueue(ctx, name, c, surgetank.DeclareOrUpdate)
	w.must(err)
}

func (w *writer) publishing(p surgetank.Publishing) {
	w.t.Helper()
	res, err := w.b.Publish(ctx, []surgetank.Publishing{p})
	w.must(err)
	w.must(res[0].Err)
}

func (w *writer) publish(name string, m surgetank.Message) {
	w.t.Helper()
	w.publishing(surgetank.Publishing{Queues: []string{name}, Message: m})
}

func (w *writer) receive(name string, n int) []surgetank.Delivery {
	w.t.Helper()
	ds, err := w.b.Receive(ctx, name, surgetank.ReceiveOptions{Max: n, Lease: surgetank.LeaseForever})
	w.must(err)
	return ds
}

func (w *writer) settle(s surgetank.Settlement, ds ...surgetank.Delivery) {
	w.t.Helper()
	var list []surgetank.Settlement
	for _, d := range ds {
		s.Receipt = d.Receipt
		list = append(list, s)
	}
	res, err := w.b.Settle(ctx, list)
	w.must(err)
	for _, err := range res {
		w.must(err)
	}
}

// losses makes a directory that was repaired and has lost a message.
func (w *writer) losses() {
	w.b = open(w.t, w.dir, opening{incarnation: 1})
	w.declare("harmed", surgetank.QueueConfig{})
	for _, body := range []string{"before the damage", "the damaged message", "after the damage"} {
		w.publish("harmed", surgetank.Message{Body: []byte(body)})
	}
	closeBroker(w.t, w.b)
	w.dir = repaired(w.t, w.dir, "the damaged message")
}

// moves publishes and acks messages until the broker appends the few survivors again, and then
// crashes.
func (w *writer) moves() {
	w.b = open(w.t, w.dir, opening{incarnation: 2, snapshotBytes: 16 << 10})
	w.declare("survivors", surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: -1}})
	w.publish("survivors", surgetank.Message{Body: []byte("a message that is written again")})
	w.publish("survivors", surgetank.Message{Body: []byte("a dead letter that is written again")})
	w.publish("survivors", surgetank.Message{Body: []byte("a second message that is written again"), Group: "g", Delay: 48 * time.Hour})
	w.settle(surgetank.Settlement{Op: surgetank.Reject, Reason: "it is bad"}, w.receive("survivors", 1)...)
	w.declare("filler", surgetank.QueueConfig{})
	for range 400 {
		w.publish("filler", surgetank.Message{Body: make([]byte, 2000)})
		w.settle(surgetank.Settlement{}, w.receive("filler", 1)...)
		pass(100 * time.Millisecond)
		if copied := crash(w.t, w.dir); w.moved(copied) {
			closeBroker(w.t, w.b)
			w.dir = copied
			return
		}
	}
	w.t.Fatal("no survivor was written again")
}

// moved reports whether a directory has a record of a moved survivor after its newest snapshot.
func (w *writer) moved(dir string) (found bool) {
	newest := newestSnapshot(w.t, dir)
	entries(w.t, dir, func(e disklog.EntryInfo) error {
		if e.Lost || fmt.Sprintf("%020d.snap", e.Offset) <= filepath.Base(newest) {
			return nil
		}
		return queue.Records(e.Data, func(_ queue.EntryHeader, r *queue.Record) error {
			found = found || r.Kind == recMoved
			return nil
		})
	})
	return found
}

// settings creates queues with every setting.
func (w *writer) settings() {
	w.declare("paused by ann", surgetank.QueueConfig{})
	w.declare("everything", surgetank.QueueConfig{
		GroupBy: "header:tenant",
		Group:   surgetank.GroupConfig{MaxInFlight: 2, Rate: 10, Fair: true, Weights: map[string]int{"acme": 3, surgetank.OtherGroups: 2}},
		Level: surgetank.LevelConfig{Rate: 100, Burst: 7, MaxInFlight: 9, FreshShare: 0.25, FreshAge: 5 * time.Minute,
			Adaptive: surgetank.AdaptiveConfig{On: true, Min: 2, Max: 20, Tolerance: 2}, Breaker: surgetank.BreakerErrors, Target: "billing-db"},
		Retry: surgetank.RetryConfig{MaxAttempts: 4, Initial: 2 * time.Second, Factor: 3, Max: time.Minute, Jitter: 0.25, Budget: 0.5,
			ByReason: map[string]surgetank.RetryRule{"timeout": {MaxAttempts: 9, Initial: surgetank.NoDelay, Factor: 1.5, Max: time.Hour, Jitter: surgetank.NoJitter}}},
		DeadLetter: "graveyard", DedupWindow: 96 * time.Hour, DedupBy: "header:id", TTL: 96 * time.Hour, MaxBytes: 1 << 20, MaxMessages: 50, MaxConsumers: 8, Accept: surgetank.AcceptConfig{Rate: 1e6, Burst: 1e6},
		Overflow: surgetank.OverflowDeadLetter, MaxPriority: 5, Lease: 45 * time.Second, Paused: true, PausedUntil: time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC), Shard: 1, PriorityStep: 30 * time.Second,
	})
	w.must(w.b.PauseQueue(door.WithUser(ctx, "ann"), "paused by ann", 80_000*time.Hour))
	w.declare("newest", surgetank.QueueConfig{Coalesce: surgetank.CoalesceConfig{By: "header:key", Window: time.Minute, MaxWait: 200 * time.Hour}})
	w.declare("oldest", surgetank.QueueConfig{DedupWindow: 96 * time.Hour, Coalesce: surgetank.CoalesceConfig{By: "group", Keep: surgetank.KeepFirst}})
	w.declare("transient", surgetank.QueueConfig{Transient: true})
	w.declare("plain", surgetank.QueueConfig{})
	w.declare("leased", surgetank.QueueConfig{})
	w.declare("strict", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}, Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: 30 * time.Hour, Max: 30 * time.Hour}})
	w.declare("gone", surgetank.QueueConfig{})
	w.declare("purged", surgetank.QueueConfig{})
	w.declare("short", surgetank.QueueConfig{TTL: time.Minute, DeadLetter: "second"})
	w.declare("second", surgetank.QueueConfig{TTL: 96 * time.Hour})
	w.declare("ring", surgetank.QueueConfig{MaxMessages: 2, Overflow: surgetank.OverflowDropOldest})
	w.declare("dropping", surgetank.QueueConfig{TTL: time.Minute, DeadLetter: surgetank.DeadLetterDrop})
	w.declare("circle-a", surgetank.QueueConfig{TTL: time.Minute, DeadLetter: "circle-b"})
	w.declare("circle-b", surgetank.QueueConfig{TTL: time.Minute, DeadLetter: "circle-a"})
}

// messages publishes messages with every field, and brings messages into every state.
func (w *writer) messages() {
	everything := surgetank.Message{
		Body: []byte(`{"total": 7}`), ContentType: "application/json", Key: "orders.eu", Priority: 3, Delay: 48 * time.Hour, TTL: 72 * time.Hour, DedupID: "order-1",
		Headers: []surgetank.Header{{Name: "tenant", Value: "acme"}, {Name: "Tenant", Value: "acmé"}}}
	*door.Opaque(&everything) = []byte{0x7f, 0, 1}
	w.publish("everything", everything)
	w.publish("everything", surgetank.Message{Body: []byte("found"), Headers: []surgetank.Header{{Name: "tenant", Value: "zoo"}, {Name: "id", Value: "order-2"}}})
	w.publishing(surgetank.Publishing{Queues: []string{"plain", "second", "strict"}, Message: surgetank.Message{Body: []byte("for three queues"), Group: "g1"}})
	w.publish("transient", surgetank.Message{Body: []byte("gone with the next opening")})
	w.publish("leased", surgetank.Message{Body: []byte("leased at the clean stop")})
	for _, n := range []uint64{1, 2, 5, 6, 9} {
		w.publishing(surgetank.Publishing{Queues: []string{"plain"}, Publisher: publisher, Sequence: n, Message: surgetank.Message{Body: fmt.Appendf(nil, "number %d", n)}})
	}
	w.publishing(surgetank.Publishing{Queues: []string{"plain"}, Publisher: otherOne, Sequence: 1, Message: surgetank.Message{Body: []byte("one more publisher")}})
	for i := range 3 {
		w.publish("newest", surgetank.Message{Body: fmt.Appendf(nil, "newest %d", i), Headers: []surgetank.Header{{Name: "key", Value: "k"}}})
		w.publish("oldest", surgetank.Message{Body: fmt.Appendf(nil, "oldest %d", i), Group: "g", DedupID: fmt.Sprintf("oldest-%d", i)})
	}
	for i := range 4 {
		w.publish("ring", surgetank.Message{Body: fmt.Appendf(nil, "ring %d", i)})
		w.publish("strict", surgetank.Message{Body: fmt.Appendf(nil, "strict %d", i), Group: "g1"})
		w.publish("purged", surgetank.Message{Body: fmt.Appendf(nil, "purged %d", i)})
		w.publish("gone", surgetank.Message{Body: fmt.Appendf(nil, "gone %d", i)})
	}
	for _, name := range []string{"short", "dropping", "circle-a"} {
		w.publish(name, surgetank.Message{Body: []byte("expires in " + name)})
	}
	ds := w.receive("plain", 3)
	w.settle(surgetank.Settlement{}, ds[0])
	w.settle(surgetank.Settlement{Op: surgetank.Nack, Delay: 40 * time.Hour}, ds[1])
	w.settle(surgetank.Settlement{Op: surgetank.Reject, Reason: "never"}, ds[2])
	w.settle(surgetank.Settlement{Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: "the target is down"}, w.receive("strict", 1)...)
	w.receive("purged", 1)
	_, err := w.b.PurgeQueue(ctx, "purged")
	w.must(err)
	_, err = w.b.DeleteQueue(ctx, "gone", surgetank.DeleteOptions{})
	w.must(err)
	pass(5 * time.Minute) // short-lived messages expire
	w.must(w.b.SetMeta(ctx, "golden", "kept", []byte("a value")))
	w.must(w.b.SetMeta(ctx, "golden", "empty", []byte{}))
	w.must(w.b.SetMeta(ctx, "golden", "removed", []byte("x")))
	w.must(w.b.SetMeta(ctx, "golden", "removed", nil))
	spec, err := sink.ParseSpec([]byte(`{"queue": "plain", "sqlite": {"path": "/var/lib/orders.db", "table": "orders", "columns": {"id": "$.id", "body": "$"}}, "lanes": 2}`))
	w.must(err)
	stored, err := json.Marshal(map[string]any{"version": 1, "instance": "golden-instance", "paused": true, "spec": json.RawMessage(spec.Encode()),
		"choices": []sink.Choice{{Time: time.Now().UTC(), Text: "a choice of the golden directory"}}})
	w.must(err)
	w.must(w.b.SetMeta(ctx, sink.Namespace, "orders-to-db", stored))
}

// access creates users, virtual hosts, permissions, limits and policies.
func (w *writer) access() {
	users, err := auth.Open(ctx, w.b)
	w.must(err)
	secret, tags, loopback := auth.Secret(userSecret), []string{auth.TagAdministrator}, false
	_, err = users.PutUser(ctx, userName, auth.UserSpec{Password: &secret, Tags: &tags, LoopbackOnly: &loopback})
	w.must(err)
	_, err = users.PutVhost(ctx, "east", "the virtual host of the east")
	w.must(err)
	few := 30
	w.must(users.PutVhostLimits(ctx, "east", auth.VhostLimits{MaxConnections: &few, MaxQueues: &few}))
	w.must(users.PutUserLimits(ctx, userName, auth.UserLimits{MaxConnections: &few, MaxChannels: &few}))
	w.must(users.PutPermission(ctx, userName, "/", auth.AllPermissions))
	w.must(users.PutPermission(ctx, userName, "east", auth.Permission{Configure: "^a", Write: "b$", Read: ".*"}))
	w.must(users.PutTopicPermission(ctx, userName, "/", auth.TopicPermission{Exchange: "topics", Write: "(eu|all|now).*", Read: ".*"}))
	policies, err := policy.Open(ctx, w.b, users, nil)
	w.must(err)
	for _, p := range []policy.Policy{
		{Vhost: "/", Name: "lengths", Pattern: "^pol", ApplyTo: policy.Queues, Priority: 3, Settings: map[string]any{"max-length": 12, "message-ttl": 1e9}},
		{Vhost: "east", Name: "exchanges", Pattern: ".*", ApplyTo: policy.Exchanges, Settings: map[string]any{"alternate-exchange": "spare"}},
	} {
		_, err = policies.PutPolicy(ctx, p)
		w.must(err)
	}
	_, _, err = policies.DeclareQueue(ctx, "policed", surgetank.QueueConfig{MaxMessages: 100}, surgetank.DeclareNew)
	w.must(err)
}

// topology creates exchanges, queues and bindings over AMQP, and a message that was published over
// AMQP.
func (w *writer) topology() {
	dialed(w.t, w.b, func(ch *amqp091.Channel) {
		for kind, name := range map[string]string{"direct": "directs", "fanout": "fans", "topic": "topics", "headers": "heads", "x-consistent-hash": "hashes"} {
			w.must(ch.ExchangeDeclare(name, kind, true, false, false, false, amqp091.Table{"alternate-exchange": "fans"}))
		}
		_, err := ch.QueueDeclare("rabbits", true, false, false, false, amqp091.Table{"x-dead-letter-exchange": "directs", "x-dead-letter-routing-key": "dead",
			"x-max-priority": 4, "x-message-ttl": int64(400_000_000), "x-max-length": 77, "x-overflow": "reject-publish"})
		w.must(err)
		_, err = ch.QueueDeclare("quorum", true, false, false, false, amqp091.Table{"x-queue-type": "quorum"})
		w.must(err)
		for _, b := range [][3]string{{"rabbits", "key", "directs"}, {"quorum", "", "fans"}, {"rabbits", "eu.#", "topics"}, {"quorum", "2", "hashes"}} {
			w.must(ch.QueueBind(b[0], b[1], b[2], false, nil))
		}
		w.must(ch.QueueBind("rabbits", "", "heads", false, amqp091.Table{"x-match": "any", "colour": "blue", "size": 7}))
		w.must(ch.ExchangeBind("fans", "all.*", "topics", false, nil))
		w.must(ch.Confirm(false))
		c, err := ch.PublishWithDeferredConfirm("directs", "key", true, false, amqp091.Publishing{
			Headers:     amqp091.Table{"text": "x", "number": int64(7), "table": amqp091.Table{"a": true}, "time": time.Unix(946_684_800, 0), "bytes": []byte{0, 1}},
			ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 2, CorrelationId: "correlation", ReplyTo: "rabbits",
			Expiration: "300000000", MessageId: "id-1", Timestamp: time.Unix(946_684_800, 0), Type: "order", UserId: userName, AppId: "golden", Body: []byte("over AMQP")})
		w.must(err)
		if !c.Wait() {
			w.t.Fatal("the message over AMQP was refused")
		}
	})
}

// dialed serves a broker over AMQP on a pipe, because sockets stop the simulated clock. It runs f
// on a channel.
func dialed(t *testing.T, b surgetank.Broker, f func(ch *amqp091.Channel)) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	users, err := auth.Open(ctx, b)
	must(err)
	server, err := amqp.NewServer(ctx, amqp.Options{Broker: doortest.Of(t, b), Auth: users})
	must(err)
	defer func() { must(server.Shutdown(ctx)) }()
	here, there := net.Pipe()
	server.ServeConn(there)
	conn, err := amqp091.Open(here, amqp091.Config{SASL: []amqp091.Authentication{&amqp091.PlainAuth{Username: userName, Password: userSecret}}, Vhost: "/", Heartbeat: time.Hour})
	must(err)
	ch, err := conn.Channel()
	must(err)
	why := ch.NotifyClose(make(chan *amqp091.Error, 1))
	defer func() {
		if err := <-why; err != nil {
			t.Errorf("the server closed the channel: %v", err)
		}
	}()
	defer func() { _ = conn.Close() }()
	f(ch)
}

// later uses queues, messages and users that were made before a restart.
func (w *writer) later() {
	if _, err := w.b.Redrive(ctx, "survivors.dead", surgetank.RedriveOptions{Max: 1}); err != nil {
		w.t.Fatal(err)
	}
	w.publish("purged", surgetank.Message{Body: []byte("after the purge")})
	w.declare("ring", surgetank.QueueConfig{MaxMessages: 3, Overflow: surgetank.OverflowDeadLetter})
	for i := range 3 {
		w.publish("ring", surgetank.Message{Body: fmt.Appendf(nil, "ring again %d", i)})
	}
	ds := w.receive("plain", 2)
	if len(ds) < 2 {
		w.t.Fatalf("%d messages, want 2", len(ds))
	}
	res, err := w.b.Transact(ctx, []surgetank.Publishing{{Queues: []string{"strict"}, Message: surgetank.Message{Body: []byte("in a transaction"), Group: "g2"}}},
		[]surgetank.Settlement{{Receipt: ds[0].Receipt}})
	w.must(err)
	w.must(res[0].Err)
	n, err := w.b.Arrive(ctx, door.Arrivals{Queue: "plain", Outbox: "1099511627777", Floor: 1, Msgs: []door.Arrival{{Seq: 1, Incarnation: 7, Time: time.Now(),
		Message: surgetank.Message{Body: []byte("from another shard")},
		Deaths:  []surgetank.Death{{Queue: "elsewhere", Reason: surgetank.ReasonExpired, Time: time.Now(), Attempts: 1}}}}})
	w.must(err)
	if n != 1 {
		w.t.Fatalf("%d messages arrived, want 1", n)
	}
	w.arrives()
}

// arrives moves a queue from another shard into the directory, and begins to move a second one.
func (w *writer) arrives() {
	other := &writer{t: w.t, dir: filepath.Join(w.t.TempDir(), "log")}
	other.b = open(w.t, other.dir, opening{incarnation: 7})
	w.must(other.b.SetMeta(ctx, door.ShardNamespace, door.ShardIndex, []byte("2")))
	for _, name := range []string{"moved", "moving"} {
		other.declare(name, surgetank.QueueConfig{DedupWindow: 1000 * time.Hour, TTL: 70_000 * time.Hour, Retry: surgetank.RetryConfig{Initial: 60_000 * time.Hour}})
		for i := range 4 {
			other.publishing(surgetank.Publishing{Queues: []string{name}, Publisher: movedPublisher + name, Sequence: uint64(i) + 1, Message: surgetank.Message{Body: fmt.Appendf(nil, "moved %d", i), DedupID: fmt.Sprint("moved-", i), Group: "g"}})
		}
		other.settle(surgetank.Settlement{Op: surgetank.Nack, Delay: surgetank.RetryBackoff, Reason: "not in the old shard"}, other.receive(name, 1)...)
		step := func(b *broker.Broker, s door.MoveStep) door.MoveStep {
			s.Queue = name
			w.must(b.MoveStep(ctx, &s))
			return s
		}
		info, err := other.b.Queue(ctx, name)
		w.must(err)
		freeze := step(other.b, door.MoveStep{Op: door.MoveFreeze})
		step(w.b, door.MoveStep{Op: door.MoveStage, ID: info.ID, Config: info.Config})
		out := step(other.b, door.MoveStep{Op: door.MoveOutline})
		same := step(w.b, door.MoveStep{Op: door.MoveCompare, Last: out.Last, Outline: out.Outline})
		read := step(other.b, door.MoveStep{Op: door.MoveRead, Seqs: same.Seqs})
		step(w.b, door.MoveStep{Op: door.MoveCopy, Copies: read.Copies})
		packed := step(other.b, door.MoveStep{Op: door.MovePack})
		step(w.b, door.MoveStep{Op: door.MoveUnpack, Frames: packed.Frames})
		if name == "moved" {
			step(w.b, door.MoveStep{Op: door.MoveArrive, Names: freeze.Names, Configs: []surgetank.QueueConfig{packed.Config}})
		}
	}
	closeBroker(w.t, other.b)
}
