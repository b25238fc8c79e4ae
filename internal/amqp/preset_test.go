package amqp

import (
	"context"
	"fmt"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"slices"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/policy"
)

// preset declares a queue as another door does.
func (bn *bench) preset(name string, c surgetank.QueueConfig) {
	bn.t.Helper()
	if _, _, err := bn.server.policies.DeclareQueue(context.Background(), name, c, surgetank.DeclareOrUpdate); err != nil {
		bn.t.Fatal(err)
	}
}

// Another door has configured a queue. A RabbitMQ client that does not know this declares the queue
// durable and without arguments, publishes, and consumes. Each case is one feature, and the last
// case combines all of them.
var presets = map[string]struct {
	config surgetank.QueueConfig
	use    func(t *testing.T, bn *bench, c *client)
}{
	"groups by header": {surgetank.QueueConfig{GroupBy: "header:customer", Group: surgetank.GroupConfig{MaxInFlight: 1}}, groupsServe(func(group, body string) (string, amqp091.Publishing) {
		return "q", amqp091.Publishing{Headers: amqp091.Table{"customer": group}, Body: []byte(body)}
	})},
	"groups by a number in a header": {surgetank.QueueConfig{GroupBy: "header:customer", Group: surgetank.GroupConfig{MaxInFlight: 1}}, groupsServe(func(group, body string) (string, amqp091.Publishing) {
		return "q", amqp091.Publishing{Headers: amqp091.Table{"customer": int32(group[0])}, Body: []byte(body)}
	})},
	"groups by JSON path": {surgetank.QueueConfig{GroupBy: "$.customer", Group: surgetank.GroupConfig{MaxInFlight: 1}}, groupsServe(func(group, body string) (string, amqp091.Publishing) {
		return "q", amqp091.Publishing{Body: fmt.Appendf(nil, `{"customer":%q,"n":%q}`, group, body)}
	})},
	"groups by routing key": {surgetank.QueueConfig{GroupBy: "routing_key", Group: surgetank.GroupConfig{MaxInFlight: 1}}, groupsServe(func(group, body string) (string, amqp091.Publishing) {
		return "customer." + group, amqp091.Publishing{Body: []byte(body)}
	})},
	"level": {surgetank.QueueConfig{Level: surgetank.LevelConfig{MaxInFlight: 2}}, func(t *testing.T, bn *bench, c *client) {
		c.bodies("", "q", "1", "2", "3")
		ds := c.consume("q", nil)
		one, _ := next(t, ds), next(t, ds)
		if n := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), "q")); n.Leased != 2 || n.Waiting == "" {
			t.Errorf("%d messages are leased, the level is 2: %+v", n.Leased, n)
		}
		c.ok(one.Ack(false))
		amqptest.Same(t, take(t, ds, 1), []string{"3"})
	}},
	"retry and dead letter": {surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: time.Millisecond}, DeadLetter: "morgue"}, func(t *testing.T, bn *bench, c *client) {
		c.bodies("", "q", "poison")
		ds := c.consume("q", nil)
		c.ok(next(t, ds).Nack(false, true))
		again := next(t, ds)
		if !again.Redelivered {
			t.Error("the second attempt is not marked")
		}
		c.ok(again.Nack(false, true))
		c.queue("morgue", nil)
		amqptest.Until(t, "it is parked", func() bool { return c.ready("morgue") == 1 })
		d, _, err := c.Get("morgue", true)
		c.ok(err)
		if d.Headers["x-first-death-queue"] != "q" || d.Headers["x-first-death-reason"] != "delivery_limit" || string(d.Body) != "poison" {
			t.Errorf("%v", d.Headers)
		}
		c.bodies("", "q", "refused")
		c.ok(next(t, ds).Reject(false))
		amqptest.Until(t, "refused messages are dead-lettered too", func() bool { return c.ready("morgue") == 1 })
	}},
	"dedup": {surgetank.QueueConfig{DedupWindow: time.Hour}, func(t *testing.T, bn *bench, c *client) {
		for _, id := range []string{"1", "2", "1", "2", "3"} {
			if !c.confirmed("", "q", amqp091.Publishing{Headers: amqp091.Table{"x-deduplication-header": id}, Body: []byte(id)}) {
				t.Error("nacked")
			}
		}
		amqptest.Same(t, c.drain("q"), []string{"1", "2", "3"})
	}},
	"dedup by message id": {surgetank.QueueConfig{DedupWindow: time.Hour, DedupBy: "header:message-id"}, func(t *testing.T, bn *bench, c *client) {
		for _, id := range []string{"1", "2", "1", "", ""} {
			c.confirmed("", "q", amqp091.Publishing{MessageId: id, Body: []byte("m" + id)})
		}
		amqptest.Same(t, c.drain("q"), []string{"m1", "m2", "m", "m"}) // messages without an id are not duplicates
	}},
	"dedup by JSON path": {surgetank.QueueConfig{DedupWindow: time.Hour, DedupBy: "$.order.id"}, func(t *testing.T, bn *bench, c *client) {
		for _, id := range []string{"1", "2", "1", strings.Repeat("long", 200), strings.Repeat("long", 200)} {
			c.confirmed("", "q", amqp091.Publishing{Body: fmt.Appendf(nil, `{"order":{"id":%q}}`, id)})
		}
		// The publisher's own id overrides the rule.
		c.confirmed("", "q", amqp091.Publishing{Headers: amqp091.Table{"x-deduplication-header": "other"}, Body: []byte(`{"order":{"id":"1"}}`)})
		if n := c.ready("q"); n != 4 {
			t.Errorf("%d messages, want 4", n)
		}
		// Another queue that gets the same message is not affected.
		c.queue("plain", nil)
		bn.preset("own", surgetank.QueueConfig{DedupWindow: time.Hour})
		for _, q := range []string{"q", "plain", "own"} {
			c.bind(q, "", "amq.fanout", nil)
		}
		for range 2 {
			c.confirmed("amq.fanout", "", amqp091.Publishing{Body: []byte(`{"order":{"id":"7"}}`)})
		}
		if q, p, o := c.ready("q"), bn.count("plain"), bn.count("own"); q != 5 || p != 2 || o != 2 {
			t.Errorf("%d, %d, %d; want 5, 2, 2", q, p, o)
		}
	}},
	"limits that refuse": {surgetank.QueueConfig{MaxMessages: 1}, func(t *testing.T, bn *bench, c *client) {
		if !c.confirmed("", "q", amqp091.Publishing{}) || c.confirmed("", "q", amqp091.Publishing{}) {
			t.Error("want the first confirmed and the second not")
		}
	}},
	"time to live": {surgetank.QueueConfig{TTL: time.Millisecond, DeadLetter: "morgue"}, func(t *testing.T, bn *bench, c *client) {
		c.bodies("", "q", "old")
		c.queue("morgue", nil)
		amqptest.Until(t, "it expires", func() bool { return c.ready("morgue") == 1 })
	}},
}

// groupsServe checks that at most one message of a group is delivered at a time, in order. No group
// delays another.
func groupsServe(message func(group, body string) (key string, m amqp091.Publishing)) func(t *testing.T, bn *bench, c *client) {
	return func(t *testing.T, bn *bench, c *client) {
		c.exchange("x", "topic", nil)
		c.bind("q", "#", "x", nil)
		for _, m := range []string{"a1", "a2", "b1", "a3"} {
			key, p := message(m[:1], m)
			c.put("x", key, p)
		}
		ds := c.consume("q", nil)
		first, second := next(t, ds), next(t, ds)
		if n := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), "q")); n.Groups != 2 || n.Leased != 2 || n.Blocked != 2 {
			t.Errorf("%+v", n)
		}
		_, a2 := message("a", "a2")
		_, b1 := message("b", "b1")
		if string(second.Body) != string(b1.Body) {
			t.Errorf("the second is %s, want group b's", second.Body)
		}
		c.ok(first.Ack(false))
		if d := next(t, ds); string(d.Body) != string(a2.Body) {
			t.Errorf("then %s, want a's second", d.Body)
		}
	}
}

func TestQueuesOfOtherDoorsServePlainClients(t *testing.T) {
	for name, tt := range presets {
		t.Run(name, func(t *testing.T) {
			bn := start(t, Limits{})
			bn.preset("q", tt.config)
			c := bn.dial()
			c.queue("q", nil) // a 406 would close the channel
			amqptest.Must[amqp091.Queue](t)(c.QueueDeclarePassive("q", true, false, false, false, nil))
			c.ok(c.Confirm(false))
			tt.use(t, bn, c)
		})
	}
}

// The same features by policy: the client declares the queue itself, without arguments. The policy
// works whether it was made before or after the queue.
func TestPoliciesGiveFeaturesToPlainClients(t *testing.T) {
	settings := map[string]map[string]any{
		"groups by header":               {"group_by": "header:customer", "group": map[string]any{"max_in_flight": 1}},
		"groups by a number in a header": {"group_by": "header:customer", "group": map[string]any{"max_in_flight": 1}},
		"groups by JSON path":            {"group_by": "$.customer", "group": map[string]any{"max_in_flight": 1}},
		"groups by routing key":          {"group_by": "routing_key", "group": map[string]any{"max_in_flight": 1}},
		"level":                          {"level": map[string]any{"max_in_flight": 2}},
		"retry and dead letter":          {"retry": map[string]any{"max_attempts": 2, "initial": "1ms"}, "dead_letter": "morgue"},
		"dedup":                          {"dedup": map[string]any{"window": "1h"}},
		"dedup by message id":            {"dedup": map[string]any{"window": "1h", "by": "header:message-id"}},
		"dedup by JSON path":             {"dedup": map[string]any{"window": "1h", "by": "$.order.id"}},
		"limits that refuse":             {"max-length": 1, "overflow": "reject-publish"},
		"time to live":                   {"message-ttl": 1, "dead-letter-exchange": "", "dead-letter-routing-key": "morgue"},
	}
	for name, tt := range presets {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, policy first %v", name, before), func(t *testing.T) {
				bn := start(t, Limits{})
				c := bn.dial()
				c.ok(c.Confirm(false))
				if name == "time to live" {
					c.queue("morgue", nil)
				}
				if !before {
					c.queue("q", nil)
				}
				bn.policy("features", "^q$", 0, settings[name])
				c.queue("q", nil)
				tt.use(t, bn, c)
				c.queue("q", nil) // equivalent to the first declaration
			})
		}
	}
}

// policy makes a policy for everything in the default virtual host.
func (bn *bench) policy(name, pattern string, priority int, settings map[string]any) {
	bn.t.Helper()
	_, err := bn.server.policies.PutPolicy(context.Background(), policy.Policy{Vhost: "/", Name: name, Pattern: pattern, Priority: priority, Settings: settings})
	if err != nil {
		bn.t.Fatal(err)
	}
}

// Policies with RabbitMQ's keys are combined with arguments that set the same keys or other keys.
func TestPoliciesAndArguments(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.ok(c.Confirm(false))
	c.queue("dead", nil)
	c.exchange("dlx", "fanout", nil)
	c.bind("dead", "", "dlx", nil)
	c.queue("own", amqp091.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", "x-max-length": int32(2)})
	c.queue("none", nil)
	bn.policy("dl", "^(own|none|late)$", 0, map[string]any{"dead-letter-exchange": "dlx", "dead-letter-routing-key": "from-policy", "max-length": 3})
	c.queue("late", nil)
	for _, q := range []string{"own", "none", "late"} {
		c.bodies("", q, "1", "2", "3", "4")
	}
	// The lower of two limits applies. The queue's own key overrides the policy's. The policy's
	// exchange applies to queues without one.
	amqptest.Until(t, "messages above the limit are dead-lettered", func() bool { return c.ready("dead") == 4 })
	keys := map[string]int{}
	for range 4 {
		d, _, err := c.Get("dead", true)
		c.ok(err)
		keys[d.RoutingKey]++
		if d.Headers["x-first-death-reason"] != "maxlen" {
			t.Errorf("%v", d.Headers)
		}
	}
	amqptest.Same(t, keys, map[string]int{"dead": 2, "from-policy": 2})
	// A redeclaration is compared with the arguments, not with the policy.
	c.queue("none", nil)
	if _, err := c.open().QueueDeclare("none", true, false, false, false, amqp091.Table{"x-max-length": int32(3)}); err == nil {
		t.Error("an argument that only the policy has counts as the queue's own")
	}
	if err := bn.server.policies.DeletePolicy(context.Background(), "/", "dl"); err != nil {
		t.Fatal(err)
	}
	c.bodies("", "none", "5", "6")
	amqptest.Same(t, c.drain("none"), []string{"2", "3", "4", "5", "6"})
}

func TestPoliciesOnExchangesAndExpiry(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("lost", nil)
	c.queue("mine", nil)
	c.exchange("lost", "fanout", nil)
	c.bind("lost", "", "lost", nil)
	c.exchange("mine", "fanout", nil)
	c.bind("mine", "", "mine", nil)
	c.exchange("a", "direct", nil)
	c.exchange("b", "direct", amqp091.Table{"alternate-exchange": "mine"})
	c.ok(c.Confirm(false))
	c.confirmed("a", "nowhere", amqp091.Publishing{Body: []byte("too early")})
	bn.policy("alt", "^[abc]$", 0, map[string]any{"alternate-exchange": "lost"})
	c.exchange("c", "direct", nil)
	for _, x := range []string{"a", "b", "c", "amq.direct"} {
		c.bodies(x, "nowhere", x)
	}
	amqptest.Same(t, c.drain("lost"), []string{"a", "c"})
	amqptest.Same(t, c.drain("mine"), []string{"b"})

	c.queue("short", nil)
	bn.policy("gone", "^short$", 1, map[string]any{"expires": 1})
	amqptest.Until(t, "the queue expires", func() bool {
		_, err := bn.broker.Queue(context.Background(), "short")
		return surgetank.CodeOf(err) == surgetank.CodeNotFound
	})
}

// Queues are deleted while their dead letters are still moving. The dead letters arrive even after
// a restart.
func TestDeadLettersOfDeletedQueuesArriveAfterARestart(t *testing.T) {
	shardstest.One(t, "dead letters for a full queue of another shard wait in an outbox")
	bn := start(t, Limits{})
	c := bn.dial()
	c.ok(c.Confirm(false))
	c.queue("full", amqp091.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	c.queue("q", amqp091.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "full"})
	c.queue("by-policy", nil)
	bn.policy("dl", "^by-policy$", 0, map[string]any{"dead-letter-exchange": "", "dead-letter-routing-key": "full"})
	if !c.confirmed("", "full", amqp091.Publishing{Body: []byte("plug")}) {
		t.Fatal("nacked")
	}
	for _, q := range []string{"q", "by-policy"} {
		if !c.confirmed("", q, amqp091.Publishing{Body: []byte(q)}) {
			t.Fatal("nacked")
		}
		d, _, err := c.Get(q, false)
		c.ok(err)
		c.ok(d.Reject(false))
		amqptest.Must[int](t)(c.QueueDelete(q, false, false, false))
	}
	passage := func() int64 {
		i := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), translate.DeadLetterQueue("/")))
		return i.Ready + i.Leased + i.Delayed
	}
	amqptest.Until(t, "the dead letters wait for room", func() bool { return passage() == 2 })
	c.ok(c.conn.Close())
	// A new door knows only what is durable.
	ctx, cancel := context.WithTimeout(context.Background(), amqptest.Patience)
	defer cancel()
	if err := bn.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	again := &bench{t: t, broker: bn.broker, auth: bn.auth}
	again.serveAgain()
	c = again.dial()
	amqptest.Same(t, c.drain("full"), []string{"plug"})
	var got []string
	amqptest.Until(t, "they arrive", func() bool { got = append(got, c.drain("full")...); return len(got) == 2 })
	slices.Sort(got)
	amqptest.Same(t, got, []string{"by-policy", "q"})
	amqptest.Until(t, "the record of the deleted queue is removed", func() bool {
		has := false
		for name, record := range amqptest.Must[door.MetaState](t)(again.broker.Meta(context.Background(), "amqp")).Bytes() {
			has = has || strings.HasPrefix(name, "q.") && strings.Contains(string(record), `"queue":"q"`)
		}
		return !has
	})
}

// For messages that are already in the queue, a policy has the effects that the documentation
// lists.
func TestPoliciesAndMessagesThatAreThere(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.ok(c.Confirm(false))
	c.queue("q", nil)
	for _, b := range []string{"1", "2", "3"} {
		c.confirmed("", "q", amqp091.Publishing{Body: []byte(b)})
	}
	bn.policy("p", "^q$", 0, map[string]any{"message-ttl": 1, "max-length": 2})
	amqptest.Until(t, "the oldest make room at once", func() bool { return c.ready("q") == 2 })
	c.confirmed("", "q", amqp091.Publishing{Body: []byte("4")})
	// Older messages do not expire.
	amqptest.Until(t, "the new one expires", func() bool { return c.ready("q") == 1 })
	amqptest.Same(t, c.drain("q"), []string{"3"})
}

// A policy alone gives a dead-letter exchange to a queue of another door. The queue's virtual host
// has no AMQP client.
func TestADeadLetterExchangeForAQueueOfAnotherDoor(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	if _, err := bn.auth.PutVhost(ctx, "far", ""); err != nil {
		t.Fatal(err)
	}
	_, err := bn.server.policies.PutPolicy(ctx, policy.Policy{Vhost: "far", Name: "dl", Pattern: "^work$", Settings: map[string]any{
		"dead-letter-exchange": "amq.direct", "dead-letter-routing-key": "k", "alternate-exchange": "amq.fanout"}})
	if err != nil {
		t.Fatal(err)
	}
	dead, work := fullname.Of("far", "dead"), fullname.Of("far", "work")
	bn.preset(dead, surgetank.QueueConfig{})
	bn.preset(work, surgetank.QueueConfig{})
	if err := bn.auth.PutPermission(ctx, "guest", "far", auth.AllPermissions); err != nil {
		t.Fatal(err)
	}
	c := dialClient(t, bn.url()+"far")
	c.bind("dead", "k", "amq.direct", nil)
	if _, err := bn.server.broker.Publish(ctx, []surgetank.Publishing{{Queues: []string{work}, Message: surgetank.Message{Body: []byte("m")}}}); err != nil {
		t.Fatal(err)
	}
	got, err := bn.server.broker.Receive(ctx, work, surgetank.ReceiveOptions{Max: 1})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if _, err := bn.server.broker.Settle(ctx, []surgetank.Settlement{{Receipt: got[0].Receipt, Op: surgetank.Reject}}); err != nil {
		t.Fatal(err)
	}
	amqptest.Until(t, "it arrives", func() bool { return c.ready("dead") == 1 })
	d, _, err := c.Get("dead", true)
	c.ok(err)
	if d.Exchange != "amq.direct" || d.RoutingKey != "k" || d.Headers["x-first-death-queue"] != "work" {
		t.Errorf("%+v", d)
	}
}
