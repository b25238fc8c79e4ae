package amqp

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// client is one channel of RabbitMQ's own Go client.
type client struct {
	t    testing.TB
	conn *amqp091.Connection
	*amqp091.Channel
}

func (bn *bench) dial() *client { return dialClient(bn.t, bn.url()) }

func dialClient(t testing.TB, url string) *client {
	t.Helper()
	conn, err := amqp091.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return (&client{t: t, conn: conn}).open()
}

// open opens another channel of the same connection.
func (c *client) open() *client {
	c.t.Helper()
	ch, err := c.conn.Channel()
	if err != nil {
		c.t.Fatal(err)
	}
	return &client{c.t, c.conn, ch}
}

func (c *client) queue(name string, args amqp091.Table) amqp091.Queue {
	c.t.Helper()
	return amqptest.Must[amqp091.Queue](c.t)(c.QueueDeclare(name, true, false, false, false, args))
}

func (c *client) exchange(name, kind string, args amqp091.Table) {
	c.t.Helper()
	c.ok(c.ExchangeDeclare(name, kind, true, false, false, false, args))
}

func (c *client) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) bind(queue, key, exchange string, args amqp091.Table) {
	c.t.Helper()
	c.ok(c.QueueBind(queue, key, exchange, false, args))
}

func (c *client) put(exchange, key string, m amqp091.Publishing) {
	c.t.Helper()
	c.ok(c.PublishWithContext(context.Background(), exchange, key, false, false, m))
}

// bodies publishes one message for each body.
func (c *client) bodies(exchange, key string, bodies ...string) {
	c.t.Helper()
	for _, b := range bodies {
		c.put(exchange, key, amqp091.Publishing{Body: []byte(b), DeliveryMode: 2})
	}
}

// confirmed publishes one message and waits for its confirm.
func (c *client) confirmed(exchange, key string, m amqp091.Publishing) bool {
	c.t.Helper()
	d := amqptest.Must[*amqp091.DeferredConfirmation](c.t)(c.PublishWithDeferredConfirm(exchange, key, false, false, m))
	ctx, cancel := context.WithTimeout(context.Background(), amqptest.Patience)
	defer cancel()
	return amqptest.Must[bool](c.t)(d.WaitContext(ctx))
}

func (c *client) consume(queue string, args amqp091.Table) <-chan amqp091.Delivery {
	c.t.Helper()
	return amqptest.Must[<-chan amqp091.Delivery](c.t)(c.Consume(queue, "", false, false, false, false, args))
}

// next waits for one delivery.
func next(t testing.TB, ds <-chan amqp091.Delivery) amqp091.Delivery {
	t.Helper()
	select {
	case d, ok := <-ds:
		if !ok {
			t.Fatal("the consumer ended")
		}
		return d
	case <-time.After(amqptest.Patience):
		t.Fatal("no delivery")
	}
	panic("unreachable")
}

// take waits for n deliveries and returns their bodies.
func take(t testing.TB, ds <-chan amqp091.Delivery, n int) (bodies []string) {
	t.Helper()
	for range n {
		bodies = append(bodies, string(next(t, ds).Body))
	}
	return bodies
}

// drain empties a queue by basic.get and returns the bodies.
func (c *client) drain(queue string) (bodies []string) {
	c.t.Helper()
	for {
		d, ok, err := c.Get(queue, true)
		c.ok(err)
		if !ok {
			return bodies
		}
		bodies = append(bodies, string(d.Body))
	}
}

func (c *client) ready(queue string) int {
	c.t.Helper()
	return amqptest.Must[amqp091.Queue](c.t)(c.QueueDeclarePassive(queue, true, false, false, false, nil)).Messages
}

func TestEveryPropertyAndTypeComesBack(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	in := amqp091.Publishing{
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 7, CorrelationId: "corr", ReplyTo: "me",
		Expiration: "100000", MessageId: "id", Timestamp: time.Unix(1700000000, 0), Type: "t", UserId: "guest", AppId: "app",
		Headers: amqp091.Table{"bool": true, "i8": int8(-1), "u8": byte(200), "i16": int16(-5), "i32": int32(-6), "i64": int64(-7), "f32": float32(1.5),
			"f64": 2.5, "dec": amqp091.Decimal{Scale: 2, Value: 314}, "str": "text", "bytes": []byte{0, 1}, "void": nil,
			"time": time.Unix(5, 0), "table": amqp091.Table{"in": "side", "list": []any{int32(1), "two"}}},
		Body: []byte("body"),
	}
	c.put("", "q", in)
	for _, round := range []string{"consume", "get"} {
		var d amqp091.Delivery
		if round == "consume" {
			d = next(t, c.consume("q", nil))
			c.ok(d.Nack(false, true))
			c.Close()
			c = c.open()
		} else {
			d, _, _ = c.Get("q", false)
		}
		got := amqp091.Publishing{ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode, Priority: d.Priority,
			CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, Expiration: d.Expiration, MessageId: d.MessageId, Timestamp: d.Timestamp,
			Type: d.Type, UserId: d.UserId, AppId: d.AppId, Headers: d.Headers, Body: d.Body}
		amqptest.Same(t, got, in)
		if d.RoutingKey != "q" || d.Exchange != "" || d.Redelivered != (round == "get") {
			t.Errorf("%s: %q %q redelivered %v", round, d.Exchange, d.RoutingKey, d.Redelivered)
		}
	}
}

func TestBodiesOfEverySize(t *testing.T) {
	bn := start(t, Limits{})
	conn := amqptest.Must[*amqp091.Connection](t)(amqp091.DialConfig(bn.url(), amqp091.Config{FrameSize: 4096}))
	defer conn.Close()
	c := (&client{t: t, conn: conn}).open()
	c.queue("q", nil)
	ds := c.consume("q", nil)
	for _, n := range []int{0, 1, 4087, 4088, 4089, 10000, 1 << 20, 5<<20 + 3} {
		body := strings.Repeat("0123456789abcdef", n/16+1)[:n]
		c.bodies("", "q", body)
		if d := next(t, ds); string(d.Body) != body {
			t.Errorf("%d bytes were read back as %d", n, len(d.Body))
		}
	}
}

func TestRouting(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.exchange("d", "direct", nil)
	c.exchange("f", "fanout", nil)
	c.exchange("t", "topic", amqp091.Table{"alternate-exchange": "alt"})
	c.exchange("h", "headers", nil)
	// The alternate exchanges make a loop. Routing must end.
	c.exchange("alt", "fanout", amqp091.Table{"alternate-exchange": "t"})
	for _, q := range []string{"one", "two", "lost"} {
		c.queue(q, nil)
	}
	c.bind("one", "k", "d", nil)
	c.bind("one", "other", "d", nil)
	c.bind("one", "k", "d", nil) // binding again is no error
	c.bind("two", "k", "d", nil)
	c.bind("one", "", "f", nil)
	c.bind("one", "x", "f", nil) // two bindings match, and the queue gets one copy
	c.bind("one", "a.*.c", "t", nil)
	c.bind("two", "a.#", "t", nil)
	c.bind("lost", "", "alt", nil)
	c.bind("one", "", "h", amqp091.Table{"x-match": "all", "n": int32(1), "there": nil})
	c.bind("two", "", "h", amqp091.Table{"x-match": "any", "n": int64(2), "s": "v"})
	c.ok(c.ExchangeBind("f", "k", "d", false, nil))
	c.ok(c.ExchangeBind("d", "back", "f", false, nil)) // a cycle
	for _, tt := range []struct {
		exchange, key string
		headers       amqp091.Table
		want          string // names of the queues that get the message
	}{
		{"", "one", nil, "one"},
		{"d", "k", nil, "one two"}, {"d", "other", nil, "one"}, {"d", "none", nil, ""},
		{"f", "anything", nil, "one"},
		{"t", "a.b.c", nil, "one two"}, {"t", "a", nil, "two"}, {"t", "a.b.c.d", nil, "two"}, {"t", "b", nil, "lost"}, {"t", "", nil, "lost"},
		{"h", "", amqp091.Table{"n": int64(1), "there": "yes"}, "one"}, {"h", "", amqp091.Table{"n": int32(1)}, ""},
		{"h", "", amqp091.Table{"n": "1", "there": true}, ""}, {"h", "", amqp091.Table{"n": int32(2)}, "two"}, {"h", "", amqp091.Table{"s": "v"}, "two"},
		{"d", "none", amqp091.Table{"CC": []any{"other"}}, "one"}, {"", "nowhere", amqp091.Table{"BCC": []any{"two"}, "CC": []any{"one"}}, "one two"},
	} {
		t.Run(fmt.Sprint(tt.exchange, "/", tt.key, "/", tt.headers), func(t *testing.T) {
			c.put(tt.exchange, tt.key, amqp091.Publishing{Headers: tt.headers, Body: []byte("m")})
			var got []string
			for _, q := range []string{"one", "two", "lost"} {
				for range c.drain(q) {
					got = append(got, q)
				}
			}
			amqptest.Same(t, strings.Join(got, " "), tt.want)
		})
	}
	c.put("", "one", amqp091.Publishing{Headers: amqp091.Table{"BCC": []any{"two"}, "CC": []any{"lost"}}})
	d, _, _ := c.Get("two", true)
	if _, bcc := d.Headers["BCC"]; bcc || d.Headers["CC"] == nil {
		t.Errorf("headers %v: BCC must go and CC must stay", d.Headers)
	}
	c.drain("one")
	c.drain("lost")
	c.ok(c.QueueUnbind("two", "k", "d", nil))
	c.ok(c.QueueUnbind("two", "k", "d", nil)) // unbinding again is no error
	c.ok(c.QueueUnbind("absent", "k", "absent", nil))
	c.ok(c.ExchangeUnbind("f", "k", "d", false, nil))
	c.put("d", "k", amqp091.Publishing{})
	if n, m := len(c.drain("one")), len(c.drain("two")); n != 1 || m != 0 {
		t.Errorf("after unbinding: %d and %d", n, m)
	}
}

func TestAutoDelete(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.ok(c.ExchangeDeclare("auto", "fanout", false, true, false, false, nil))
	amqptest.Must[amqp091.Queue](t)(c.QueueDeclare("autoq", false, true, false, false, nil))
	// An auto-delete exchange stays until its first binding has gone.
	c.ok(c.ExchangeDeclarePassive("auto", "", false, false, false, false, nil))
	c.bind("autoq", "", "auto", nil)
	amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume("autoq", "t", false, false, false, false, nil))
	c.ok(c.Cancel("t", false))
	if _, err := c.open().QueueDeclarePassive("autoq", false, true, false, false, nil); err == nil {
		t.Error("the queue outlived its last consumer")
	}
	if err := c.open().ExchangeDeclarePassive("auto", "", false, false, false, false, nil); err == nil {
		t.Error("the exchange outlived its last binding")
	}
}

func TestExclusiveQueuesGoBeforeTheirConnection(t *testing.T) {
	bn := start(t, Limits{})
	for range 20 {
		c := bn.dial()
		amqptest.Must[amqp091.Queue](t)(c.QueueDeclare("mine", true, false, true, false, nil))
		c.ok(c.conn.Close())
	}
	if qs := amqptest.Must[[]surgetank.QueueInfo](t)(bn.broker.Queues(context.Background())); len(qs) != 0 {
		t.Errorf("left behind: %v", qs)
	}
}

func TestConfirmsReturnsAndOrder(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	c.ok(c.Confirm(false))
	confirms := c.NotifyPublish(make(chan amqp091.Confirmation, 2000))
	returns := c.NotifyReturn(make(chan amqp091.Return, 10))
	for i := range 1000 {
		key := "q"
		if i%100 == 50 {
			key = "nowhere"
		}
		c.ok(c.PublishWithContext(context.Background(), "", key, i%100 == 50, false, amqp091.Publishing{Body: []byte(strconv.Itoa(i)), MessageId: "m" + strconv.Itoa(i)}))
	}
	for i := range 1000 {
		select {
		case got := <-confirms:
			if !got.Ack || got.DeliveryTag != uint64(i+1) {
				t.Fatalf("confirm %d: %+v", i, got)
			}
		case <-time.After(amqptest.Patience):
			t.Fatal("no confirm", i)
		}
	}
	for i := 50; i < 1000; i += 100 {
		r := <-returns
		if r.ReplyCode != 312 || r.ReplyText != "NO_ROUTE" || r.RoutingKey != "nowhere" || string(r.Body) != strconv.Itoa(i) || r.MessageId != "m"+strconv.Itoa(i) {
			t.Errorf("%+v", r)
		}
	}
	if n := c.ready("q"); n != 990 {
		t.Errorf("%d messages", n)
	}
}

func TestRequeueKeepsThePlace(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	c.bodies("", "q", "0", "1", "2", "3")
	var got []amqp091.Delivery
	for range 3 {
		d, _, err := c.Get("q", false)
		c.ok(err)
		got = append(got, d)
	}
	if got[1].MessageCount != 2 || got[0].Redelivered {
		t.Errorf("message count %d, redelivered %v", got[1].MessageCount, got[0].Redelivered)
	}
	c.ok(got[2].Nack(true, true))
	d, _, _ := c.Get("q", false)
	if string(d.Body) != "0" || !d.Redelivered {
		t.Errorf("%s redelivered %v", d.Body, d.Redelivered)
	}
	c.ok(c.Close()) // closing the channel returns the messages too
	c = c.open()
	amqptest.Same(t, c.drain("q"), []string{"0", "1", "2", "3"})
	c.bodies("", "q", "a", "b")
	ds := c.consume("q", nil)
	take(t, ds, 2)
	c.ok(c.Recover(true))
	for _, want := range []string{"a", "b"} {
		if d := next(t, ds); string(d.Body) != want || !d.Redelivered || d.DeliveryTag < 3 {
			t.Errorf("after recover: %+v", d)
		}
	}
}

func TestCancelLeavesDeliveriesWithTheChannel(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	c.bodies("", "q", "a", "b", "c")
	ds := amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume("q", "t", false, false, false, false, nil))
	first := next(t, ds)
	take(t, ds, 2)
	c.ok(c.Cancel("t", false))
	c.ok(c.Cancel("unknown", false))
	c.ok(first.Ack(false))
	if n := c.ready("q"); n != 0 {
		t.Errorf("%d ready: cancelling returned deliveries", n)
	}
	other := c.open()
	c.ok(c.Close())
	amqptest.Same(t, other.drain("q"), []string{"b", "c"})
}

func TestPrefetch(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	for i := range 20 {
		c.bodies("", "q", strconv.Itoa(i))
	}
	leased := func() int {
		return int(amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), "q")).Leased)
	}
	c.ok(c.Qos(3, 0, false))
	one := c.consume("q", nil)
	amqptest.Until(t, "three deliveries", func() bool { return leased() == 3 })
	d := next(t, one)
	c.ok(d.Ack(false))
	amqptest.Until(t, "one more", func() bool { return c.ready("q") == 16 })
	c.ok(c.Qos(5, 0, true)) // the limit of the whole channel
	two := c.consume("q", nil)
	amqptest.Until(t, "the channel's limit", func() bool { return leased() == 5 })
	if n := c.ready("q"); n != 14 {
		t.Errorf("%d ready with a limit of five for the channel", n)
	}
	c.ok(c.Qos(0, 0, true))
	amqptest.Until(t, "each consumer's own limit", func() bool { return leased() == 6 })
	take(t, one, 3)
	take(t, two, 3)
	other := c.open() // basic.get ignores the prefetch
	c.ok(other.Qos(1, 0, true))
	for range 3 {
		if _, ok, err := other.Get("q", false); !ok || err != nil {
			t.Error(ok, err)
		}
	}
	unlimited := c.open()
	take(t, unlimited.consume("q", nil), 10)
}

func TestPrioritiesOfMessagesAndConsumers(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("p", amqp091.Table{"x-max-priority": int32(5)})
	for _, p := range []int{0, 9, 5, 3, 1, -1} {
		m := amqp091.Publishing{Body: []byte(strconv.Itoa(p))}
		if p >= 0 {
			m.Priority = uint8(p)
		}
		c.put("", "p", m)
	}
	amqptest.Same(t, c.drain("p"), []string{"9", "5", "3", "1", "0", "-1"})
	c.queue("q", nil)
	c.ok(c.Qos(2, 0, false))
	low := c.consume("q", amqp091.Table{"x-priority": int32(-5)})
	high := c.consume("q", amqp091.Table{"x-priority": int32(10)})
	c.bodies("", "q", "1", "2", "3")
	amqptest.Same(t, take(t, high, 2), []string{"1", "2"})
	amqptest.Same(t, take(t, low, 1), []string{"3"})
}

func TestSingleActiveConsumer(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", amqp091.Table{"x-single-active-consumer": true})
	first := amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume("q", "first", true, false, false, false, nil))
	second := amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume("q", "second", true, false, false, false, nil))
	c.bodies("", "q", "1", "2")
	amqptest.Same(t, take(t, first, 2), []string{"1", "2"})
	c.ok(c.Cancel("first", false))
	c.bodies("", "q", "3")
	amqptest.Same(t, take(t, second, 1), []string{"3"})
}

func TestDeletingAQueueCancelsItsConsumers(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	for _, byAnotherDoor := range []bool{false, true} {
		c.queue("q", nil)
		cancels := c.NotifyCancel(make(chan string, 1))
		amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume("q", "tag", false, false, false, false, nil))
		if byAnotherDoor {
			amqptest.Must[int64](t)(bn.broker.DeleteQueue(context.Background(), "q", surgetank.DeleteOptions{}))
		} else {
			amqptest.Must[int](t)(c.open().QueueDelete("q", false, false, false))
		}
		select {
		case tag := <-cancels:
			amqptest.Same(t, tag, "tag")
		case <-time.After(amqptest.Patience):
			t.Fatal("not told")
		}
		amqptest.Until(t, "the queue is gone", func() bool {
			_, err := c.open().QueueDeclarePassive("q", true, false, false, false, nil)
			return err != nil
		})
		c = c.open()
	}
}

func TestSurgetanksOwnOptions(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	// A queue that another door declared keeps its settings, whatever a plain client declares.
	config := surgetank.QueueConfig{DedupWindow: time.Minute, GroupBy: "none", Group: surgetank.GroupConfig{MaxInFlight: 1}, TTL: time.Hour}
	if _, _, err := bn.broker.DeclareQueue(ctx, "set", config, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	c := bn.dial()
	c.queue("set", nil)
	c.queue("set", amqp091.Table{"x-message-ttl": int32(3600000)})
	if _, err := c.open().QueueDeclare("set", true, false, false, false, amqp091.Table{"x-message-ttl": int32(1)}); err == nil ||
		!strings.Contains(err.Error(), "received '1' but current is '3600000'") {
		t.Error(err)
	}
	for range 3 {
		c.put("", "set", amqp091.Publishing{Headers: amqp091.Table{"x-deduplication-header": "once", "x-group-id": "g"}, Body: []byte("1")})
	}
	c.put("", "set", amqp091.Publishing{Headers: amqp091.Table{"x-group-id": "g"}, Body: []byte("2")})
	d, _, _ := c.Get("set", false)
	if _, ok, _ := c.Get("set", false); ok || string(d.Body) != "1" {
		t.Error("two messages of one group at a time")
	}
	c.ok(d.Ack(false))
	amqptest.Same(t, c.drain("set"), []string{"2"})
	c.queue("late", nil)
	c.exchange("delayed", "x-delayed-message", amqp091.Table{"x-delayed-type": "topic"})
	c.bind("late", "a.*", "delayed", nil)
	c.put("delayed", "a.b", amqp091.Publishing{Headers: amqp091.Table{"x-delay": int32(3600000)}})
	c.put("", "late", amqp091.Publishing{Headers: amqp091.Table{"x-delay": int32(3600000)}})
	c.put("", "late", amqp091.Publishing{Headers: amqp091.Table{"x-delay": int32(1)}, Body: []byte("soon")})
	var got []string
	amqptest.Until(t, "the short delay ends", func() bool { got = append(got, c.drain("late")...); return len(got) > 0 })
	amqptest.Same(t, got, []string{"soon"})
	if info := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(ctx, "late")); info.Delayed != 2 {
		t.Errorf("%+v", info)
	}
}

func TestMessagesCrossDoors(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	c := bn.dial()
	c.queue("q", nil)
	c.put("amq.direct", "k", amqp091.Publishing{})
	c.bind("q", "k", "amq.direct", nil)
	c.put("amq.direct", "k", amqp091.Publishing{ContentType: "application/json", CorrelationId: "c", MessageId: "m", Priority: 3, Body: []byte("{}"),
		Headers: amqp091.Table{"customer": "acme", "n": int32(5), "nested": amqp091.Table{"a": "b"}}})
	var ds []surgetank.Delivery
	amqptest.Until(t, "it is stored", func() bool {
		ds = amqptest.Must[[]surgetank.Delivery](t)(bn.broker.Receive(ctx, "q", surgetank.ReceiveOptions{}))
		return len(ds) == 1
	})
	d := ds[0]
	slices.SortFunc(d.Headers, func(a, b surgetank.Header) int { return strings.Compare(a.Name, b.Name) })
	amqptest.Same(t, d.Headers, []surgetank.Header{{Name: "correlation-id", Value: "c"}, {Name: "customer", Value: "acme"}, {Name: "message-id", Value: "m"}, {Name: "n", Value: "5"}})
	if d.ContentType != "application/json" || d.Key != "k" || d.Priority != 3 || string(d.Body) != "{}" {
		t.Errorf("%+v", d.Message)
	}
	amqptest.Must[[]surgetank.PublishResult](t)(bn.broker.Publish(ctx, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("go"), ContentType: "text/plain",
		Priority: 2, Group: "g", Headers: []surgetank.Header{{Name: "Correlation-Id", Value: "x"}, {Name: "tenant", Value: "t"}}}}}))
	got := next(t, c.consume("q", nil))
	if got.ContentType != "text/plain" || got.CorrelationId != "x" || got.Priority != 2 || got.DeliveryMode != 2 || got.RoutingKey != "q" || got.Timestamp.IsZero() {
		t.Errorf("%+v", got)
	}
	amqptest.Same(t, got.Headers, amqp091.Table{"tenant": "t", "x-group-id": "g"})
}

func TestTopologySurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	open := func() surgetank.Broker {
		return amqptest.Must[*embedded.Broker](t)(embedded.Open(dir, embedded.Options{Shards: shardstest.N}))
	}
	if ok := t.Run("before", func(t *testing.T) {
		c := startOn(t, open(), Limits{}).dial()
		c.exchange("x", "topic", nil)
		c.exchange("y", "headers", amqp091.Table{"alternate-exchange": "amq.fanout"})
		c.exchange("gone", "fanout", nil)
		c.ok(c.ExchangeDeclare("transient", "fanout", false, false, false, false, nil))
		c.queue("q", amqp091.Table{"x-message-ttl": int16(30000), "x-dead-letter-exchange": "x"})
		c.queue("plain", nil)
		c.queue("remade", nil)
		amqptest.Must[amqp091.Queue](t)(c.QueueDeclare("transientq", false, false, false, false, nil))
		c.bind("q", "a.*", "x", nil)
		c.bind("q", "b.*", "x", nil)
		c.ok(c.QueueUnbind("q", "b.*", "x", nil))
		c.bind("plain", "", "y", amqp091.Table{"x-match": "any", "h": "1"})
		c.bind("transientq", "a.*", "x", nil)
		c.bind("remade", "a.*", "x", nil)
		c.ok(c.ExchangeBind("y", "e.#", "x", false, nil))
		c.ok(c.ExchangeDelete("gone", false, false))
		amqptest.Must[int](t)(c.QueueDelete("remade", false, false, false))
		c.queue("remade", nil) // the old queue's binding must not apply to the new one
		c.ok(c.Confirm(false))
		if !c.confirmed("x", "a.b", amqp091.Publishing{Body: []byte("kept"), DeliveryMode: 2}) {
			t.Error("nacked")
		}
	}); !ok {
		return
	}
	t.Run("after", func(t *testing.T) {
		c := startOn(t, open(), Limits{}).dial()
		c.ok(c.ExchangeDeclare("x", "topic", true, false, false, false, nil))
		c.ok(c.ExchangeDeclare("y", "headers", true, false, false, false, amqp091.Table{"alternate-exchange": "amq.fanout"}))
		for _, x := range []string{"gone", "transient"} {
			if c.open().ExchangeDeclarePassive(x, "", false, false, false, false, nil) == nil {
				t.Error(x, "is there")
			}
		}
		c.queue("q", amqp091.Table{"x-message-ttl": int64(30000), "x-dead-letter-exchange": "x"})
		if _, err := c.open().QueueDeclare("q", true, false, false, false, nil); err == nil || !strings.Contains(err.Error(), "of type 'short'") {
			t.Error(err)
		}
		if _, err := c.open().QueueDeclarePassive("transientq", false, false, false, false, nil); err == nil {
			t.Error("the transient queue is there")
		}
		if _, err := c.open().QueueDeclare("plain", true, false, false, false, amqp091.Table{"x-max-length": int32(5)}); err == nil {
			t.Error("a redeclaration changed the limit of a plain queue")
		}
		amqptest.Same(t, c.drain("q"), []string{"kept"})
		c.bodies("x", "a.c", "1")
		c.bodies("x", "b.c", "2")
		c.put("x", "e.f", amqp091.Publishing{Headers: amqp091.Table{"h": "1"}, Body: []byte("3")})
		amqptest.Same(t, c.drain("q"), []string{"1"})
		amqptest.Same(t, c.drain("plain"), []string{"3"})
		if n := c.ready("remade"); n != 0 {
			t.Errorf("a queue that was created again got %d messages by the old queue's binding", n)
		}
	})
}

// TestRoutesAreNotMixedUp: names may contain any character, including one that code might use as a
// separator.
func TestRoutesAreNotMixedUp(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	c.queue("other", nil)
	for _, x := range []string{"a", "a\x00b", "ab"} {
		c.exchange(x, "direct", nil)
	}
	c.bind("q", "b\x00c", "a", nil)
	c.bind("q", "bc", "a", nil)
	c.bind("other", "c", "a\x00b", nil)
	c.bind("other", "c", "ab", nil)
	for range 2 {
		c.bodies("a", "b\x00c", "q")
		c.bodies("a", "bc", "q")
		c.bodies("a\x00b", "c", "other")
		c.bodies("ab", "c", "other")
	}
	for _, q := range []string{"q", "other"} {
		amqptest.Same(t, c.drain(q), []string{q, q, q, q})
	}
}

// TestPermissionsAreAskedAgain: a change of a user's rights applies at once, although routes are
// cached.
func TestPermissionsAreAskedAgain(t *testing.T) {
	bn := start(t, Limits{})
	bn.user("u", auth.AllPermissions)
	c := dialClient(t, strings.Replace(bn.url(), "guest:guest", "u:u", 1))
	c.queue("q", nil)
	c.ok(c.Confirm(false))
	if !c.confirmed("", "q", amqp091.Publishing{}) {
		t.Fatal("nacked")
	}
	if err := bn.auth.PutPermission(context.Background(), "u", "/", auth.Permission{Read: ".*"}); err != nil {
		t.Fatal(err)
	}
	closed := c.NotifyClose(make(chan *amqp091.Error, 1))
	c.put("", "q", amqp091.Publishing{})
	if err := <-closed; err == nil || err.Code != 403 {
		t.Errorf("%v", err)
	}
}
