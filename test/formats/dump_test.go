package formats

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/sink"
)

// opensAfter is the time on the synctest bubble's clock at which a golden directory is opened.
const opensAfter = 24 * time.Hour

// reader records what a user sees of a data directory.
type reader struct {
	strings.Builder
	t *testing.T
	b *broker.Broker
}

func (r *reader) line(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

func (r *reader) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// dump opens a directory and returns everything that a user sees of it, in a fixed form. It must
// run in a synctest bubble.
func dump(t *testing.T, dir string) string {
	pass(opensAfter)
	r := &reader{t: t, b: open(t, dir, opening{incarnation: 99})}
	r.queues()
	r.metadata()
	r.access()
	r.sinks()
	r.repeated()
	r.coalesced()
	r.overAMQP()
	closeBroker(t, r.b)
	return r.String()
}

func (r *reader) queues() {
	infos, err := r.b.Queues(ctx)
	r.must(err)
	for n, i := range infos {
		h, err := r.b.History(ctx, i.Name)
		r.must(err)
		if n == 0 {
			r.line("openings %s", show(h.Openings))
		}
		h.Openings, i.Waiting = nil, ""
		r.line("queue %s", show(i))
		r.line("  history %s", show(h))
		ds, err := r.b.Peek(ctx, i.Name, surgetank.PeekOptions{Max: 1000})
		r.must(err)
		for _, d := range ds {
			r.line("  message %s", show(d))
		}
	}
}

func (r *reader) metadata() {
	for _, ns := range []string{"golden", auth.Namespace, policy.Namespace, "amqp", sink.Namespace, sink.WrittenNamespace} {
		state, err := r.b.Meta(ctx, ns)
		r.must(err)
		for _, name := range slices.Sorted(maps.Keys(state.Values)) {
			v := state.Values[name]
			r.line("metadata %q %q %q version %d", ns, name, v.Value, v.Version)
		}
	}
}

func (r *reader) access() {
	users, err := auth.Open(ctx, r.b)
	r.must(err)
	for _, u := range users.Users() {
		r.line("user %s", show(u))
	}
	for _, v := range users.Vhosts() {
		r.line("vhost %s", show(v))
	}
	for _, p := range users.Permissions("", "") {
		r.line("permission %s", show(p))
	}
	for _, p := range users.TopicPermissions("", "") {
		r.line("topic permission %s", show(p))
	}
	policies, err := policy.Open(ctx, r.b, users, nil)
	r.must(err)
	for _, vhost := range []string{"/", "east"} {
		for _, p := range policies.Policies(vhost) {
			r.line("policy %q %q %q %q %d %v", p.Vhost, p.Name, p.Pattern, p.ApplyTo, p.Priority, p.Settings)
		}
	}
	i, err := policies.Queue(ctx, "policed")
	r.must(err)
	r.line("under a policy %s", show(i))
}

func (r *reader) sinks() {
	m, err := sink.NewManager(ctx, r.b, nil, sink.Options{})
	r.must(err)
	list, err := m.Infos(ctx)
	r.must(err)
	for _, s := range list {
		r.line("sink %s", show(s))
	}
	r.must(m.Close(ctx))
}

// repeated publishes earlier messages again. The answers show which dedup ids and publishers'
// numbers are known.
func (r *reader) repeated() {
	try := func(p surgetank.Publishing) {
		r.t.Helper()
		res, err := r.b.Publish(ctx, []surgetank.Publishing{p})
		r.must(err)
		res[0].ID.Incarnation = 0
		r.line("published again %s: %s", show(p), show(res[0]))
	}
	for _, id := range []string{"order-1", "order-2", "order-3"} {
		try(surgetank.Publishing{Queues: []string{"everything"}, Message: surgetank.Message{DedupID: id}})
	}
	for _, n := range []uint64{1, 2, 3, 5, 6, 8, 9, 10} {
		try(surgetank.Publishing{Queues: []string{"plain"}, Publisher: publisher, Sequence: n})
	}
	try(surgetank.Publishing{Queues: []string{"moved"}, Message: surgetank.Message{DedupID: "moved-2"}})
	for _, n := range []uint64{1, 4, 5} {
		try(surgetank.Publishing{Queues: []string{"moved"}, Publisher: movedPublisher + "moved", Sequence: n})
	}
	for _, id := range []string{otherOne, "golden-publisher-unknown"} {
		try(surgetank.Publishing{Queues: []string{"plain"}, Publisher: id, Sequence: 3})
		try(surgetank.Publishing{Queues: []string{"plain"}, Publisher: id, Sequence: 1})
	}
}

// coalesced publishes to queues that coalesce. The answers show that the queues know the keys of
// stored messages, and the dedup ids of coalesced messages.
func (r *reader) coalesced() {
	for name, p := range map[string]surgetank.Publishing{
		"newest": {Message: surgetank.Message{Body: []byte("again"), Headers: []surgetank.Header{{Name: "key", Value: "k"}}}},
		"oldest": {Message: surgetank.Message{Body: []byte("again"), Group: "g", DedupID: "oldest-1"}},
	} {
		p.Queues = []string{name}
		_, err := r.b.Publish(ctx, []surgetank.Publishing{p})
		r.must(err)
	}
	for _, name := range []string{"newest", "oldest"} {
		info, err := r.b.Queue(ctx, name)
		r.must(err)
		r.line("after another message, queue %s coalesced %d, found %d duplicates", name, info.Coalesced, info.Duplicates)
		ds, err := r.b.Peek(ctx, name, surgetank.PeekOptions{Max: 1000})
		r.must(err)
		for _, d := range ds {
			r.line("  message %d %s", d.ID.Seq, d.Body)
		}
	}
}

// overAMQP reads the message that was published over AMQP, and publishes one message through each
// exchange.
func (r *reader) overAMQP() {
	dialed(r.t, r.b, func(ch *amqp091.Channel) {
		d, ok, err := ch.Get("rabbits", true)
		r.must(err)
		r.line("over AMQP %v %s %v %v", ok, d.Body, d.Headers["text"], d.Headers["number"])
		d.Acknowledger = nil
		r.line("  %v %q %q %d %d %q %q %q %q %v %q %q %q %q", d.Headers, d.ContentType, d.ContentEncoding, d.DeliveryMode, d.Priority, d.CorrelationId,
			d.ReplyTo, d.Expiration, d.MessageId, d.Timestamp.UTC(), d.Type, d.UserId, d.AppId, d.RoutingKey)
		r.must(ch.Confirm(false))
		send := func(exchange, key string, headers amqp091.Table) {
			c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp091.Publishing{Headers: headers, Body: []byte("x")})
			r.must(err)
			c.Wait()
			r.line("sent to exchange %q with key %q %v", exchange, key, headers)
			for _, name := range []string{"rabbits", "quorum"} {
				n, err := ch.QueuePurge(name, false)
				r.must(err)
				r.line("  queue %q got %d", name, n)
			}
		}
		send("", "rabbits", nil)
		send("directs", "key", nil)
		send("directs", "another", nil) // unroutable, so it goes to the alternate exchange
		send("fans", "", nil)
		send("topics", "eu.berlin", nil)
		send("topics", "all.together", nil)
		send("topics", "nowhere", nil)
		send("heads", "", amqp091.Table{"colour": "blue"})
		send("heads", "", amqp091.Table{"colour": "red", "size": 8})
		send("hashes", "any", nil)
	})
}
