package amqp

import (
	"context"
	"fmt"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/translate"
)

func TestTransactions(t *testing.T) {
	shardstest.One(t, "a transaction stays within one shard")
	bn := start(t, Limits{})
	c := bn.dial()
	other := c.open()
	c.queue("q", nil)
	c.queue("work", nil)
	c.bodies("", "work", "a", "b")
	c.ok(c.Tx())
	returns := c.NotifyReturn(make(chan amqp091.Return, 1))
	a, _, _ := c.Get("work", false)
	b, _, _ := c.Get("work", false)
	c.bodies("", "q", "1", "2")
	c.ok(a.Ack(false))
	c.ok(b.Ack(false))
	c.ok(c.PublishWithContext(context.Background(), "", "nowhere", true, false, amqp091.Publishing{Body: []byte("back")}))
	if n := other.ready("q"); n != 0 {
		t.Errorf("%d messages before the commit", n)
	}
	c.ok(c.TxRollback())
	if n := other.ready("q") + other.ready("work"); n != 0 {
		t.Errorf("%d messages after the rollback: acknowledged deliveries stay outstanding", n)
	}
	c.ok(a.Ack(false)) // after the rollback, a can be acked again
	c.bodies("", "q", "3", "4")
	c.ok(c.PublishWithContext(context.Background(), "", "nowhere", true, false, amqp091.Publishing{Body: []byte("back")}))
	c.ok(c.TxCommit())
	select {
	case r := <-returns:
		amqptest.Same(t, string(r.Body), "back")
	default:
		t.Error("the return did not come before commit-ok")
	}
	amqptest.Same(t, other.drain("q"), []string{"3", "4"})
	c.ok(c.Close()) // b's ack was not committed
	amqptest.Same(t, other.drain("work"), []string{"b"})
}

func TestTTLExpiryAndLimits(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("dead", nil)
	toDead := func(args amqp091.Table) amqp091.Table {
		args["x-dead-letter-exchange"], args["x-dead-letter-routing-key"] = "", "dead"
		return args
	}
	reason := func(want string, bodies ...string) {
		t.Helper()
		amqptest.Until(t, "dead letters", func() bool { return c.ready("dead") == len(bodies) })
		for _, b := range bodies {
			d, _, _ := c.Get("dead", true)
			deaths, _ := d.Headers["x-death"].([]any)
			if len(deaths) != 1 || string(d.Body) != b {
				t.Fatalf("%s: %v", d.Body, d.Headers)
			}
			death := deaths[0].(amqp091.Table)
			if death["reason"] != want || d.Headers["x-first-death-reason"] != want || d.Headers["x-last-death-reason"] != want || death["count"] != int64(1) {
				t.Errorf("%v", d.Headers)
			}
		}
	}
	c.queue("ttl", toDead(amqp091.Table{"x-message-ttl": int32(20)}))
	c.bodies("", "ttl", "1", "2")
	reason("expired", "1", "2")
	c.queue("zero", toDead(amqp091.Table{"x-message-ttl": int32(0)}))
	c.bodies("", "zero", "1")
	reason("expired", "1")
	c.queue("plain", toDead(amqp091.Table{}))
	c.put("", "plain", amqp091.Publishing{Body: []byte("1"), Expiration: "10"})
	amqptest.Until(t, "it expires", func() bool { return c.ready("dead") == 1 })
	d, _, _ := c.Get("dead", true)
	if death := d.Headers["x-death"].([]any)[0].(amqp091.Table); death["original-expiration"] != "10" || d.Expiration != "" {
		t.Errorf("expiration %q, %v", d.Expiration, death)
	}
	c.queue("drop", toDead(amqp091.Table{"x-max-length": int32(2)}))
	c.bodies("", "drop", "1", "2", "3", "4")
	reason("maxlen", "1", "2")
	amqptest.Same(t, c.drain("drop"), []string{"3", "4"})
	c.ok(c.Confirm(false))
	c.queue("reject", amqp091.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	c.queue("rejectdlx", toDead(amqp091.Table{"x-max-length": int32(1), "x-overflow": "reject-publish-dlx"}))
	for _, q := range []string{"reject", "rejectdlx"} {
		if !c.confirmed("", q, amqp091.Publishing{Body: []byte("kept")}) {
			t.Error(q, "refused the first message")
		}
		if c.confirmed("", q, amqp091.Publishing{Body: []byte("refused")}) {
			t.Error(q, "confirmed a message that it refused")
		}
		amqptest.Same(t, c.drain(q), []string{"kept"})
	}
	reason("maxlen", "refused")
	// Many messages that are refused at once are dead-lettered in their order.
	c.queue("inorder", toDead(amqp091.Table{"x-max-length": int32(1), "x-overflow": "reject-publish-dlx"}))
	var all []string
	for i := range 300 {
		all = append(all, fmt.Sprint(i))
		c.put("", "inorder", amqp091.Publishing{Body: []byte(all[i])})
	}
	reason("maxlen", all[1:]...)
	amqptest.Same(t, c.drain("inorder"), all[:1])
	c.queue("none", amqp091.Table{"x-max-length": int32(0), "x-overflow": "reject-publish"})
	if c.confirmed("", "none", amqp091.Publishing{}) {
		t.Error("a queue with a length limit of 0 confirmed a publish")
	}
	c.queue("expires", amqp091.Table{"x-expires": int32(50)})
	amqptest.Until(t, "the queue expires", func() bool {
		_, err := bn.broker.Queue(context.Background(), "expires")
		return surgetank.CodeOf(err) == surgetank.CodeNotFound
	})
}

func TestDeadLetterHistoryAndCycles(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.exchange("dlx", "topic", nil)
	c.queue("work", amqp091.Table{"x-dead-letter-exchange": "dlx"})
	c.queue("dead", amqp091.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work"})
	c.bind("dead", "#", "dlx", nil)
	reject := func(q string) {
		t.Helper()
		amqptest.Until(t, "a message in "+q, func() bool { return c.ready(q) == 1 })
		d, _, err := c.Get(q, false)
		c.ok(err)
		c.ok(d.Reject(false))
	}
	forged := amqp091.Table{"x-death": []any{amqp091.Table{"queue": "work", "reason": "rejected", "count": int64(5)}}, "CC": []any{"other"}}
	c.put("", "work", amqp091.Publishing{Headers: forged, Body: []byte("m")})
	reject("work")
	reject("dead")
	reject("work")
	amqptest.Until(t, "it is back in dead", func() bool { return c.ready("dead") == 1 })
	d, _, _ := c.Get("dead", true)
	var got []string
	for _, e := range d.Headers["x-death"].([]any) {
		e := e.(amqp091.Table)
		got = append(got, fmt.Sprint(e["queue"], " ", e["reason"], " ", e["count"], " ", e["exchange"], " ", e["routing-keys"]))
	}
	amqptest.Same(t, got, []string{"work rejected 2  [work other]", "dead rejected 1 dlx [work other]"})
	if h := d.Headers; h["x-first-death-queue"] != "work" || h["x-last-death-queue"] != "work" || h["x-first-death-exchange"] != "" || d.Exchange != "dlx" {
		t.Errorf("%v exchange %q", h, d.Exchange)
	}
	// A cycle that expiry alone causes ends after one round.
	c.queue("a", amqp091.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "b", "x-message-ttl": int32(1)})
	c.queue("b", amqp091.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a", "x-message-ttl": int32(1)})
	c.bodies("", "a", "m")
	stats := func(q string) uint64 {
		return amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), q)).Published
	}
	passage := translate.DeadLetterQueue("/")
	amqptest.Until(t, "both expired", func() bool {
		i := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), passage))
		return stats("b") == 1 && c.ready("b") == 0 && i.Ready+i.Leased == 0
	})
	if stats("a") != 1 {
		t.Errorf("the message went around the cycle %d times", stats("a"))
	}
	// If the dead-letter exchange does not exist, the message is dropped.
	c.queue("void", amqp091.Table{"x-dead-letter-exchange": "absent"})
	c.bodies("", "void", "m")
	reject("void")
	amqptest.Until(t, "it is dropped", func() bool {
		i := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), passage))
		return i.Ready+i.Leased == 0 && i.Acked >= 3
	})
}

func TestDeliveryLimit(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("dead", nil)
	c.queue("q", amqp091.Table{"x-queue-type": "quorum", "x-delivery-limit": int32(2), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
	c.bodies("", "q", "poison")
	ds := c.consume("q", nil)
	for i := range 3 {
		d := next(t, ds)
		if n, _ := d.Headers["x-delivery-count"].(int64); n != int64(i) {
			t.Errorf("delivery %d has x-delivery-count %v", i, d.Headers["x-delivery-count"])
		}
		c.ok(d.Nack(false, true))
	}
	amqptest.Until(t, "it is dead-lettered", func() bool { return c.ready("dead") == 1 })
	d, _, _ := c.Get("dead", true)
	amqptest.Same(t, d.Headers["x-first-death-reason"], any("delivery_limit"))
}

func TestDirectReplyTo(t *testing.T) {
	bn := start(t, Limits{})
	requester, server := bn.dial(), bn.dial()
	server.queue("rpc", nil)
	requests := server.consume("rpc", nil)
	replies := amqptest.Must[<-chan amqp091.Delivery](t)(requester.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil))
	requester.put("", "rpc", amqp091.Publishing{ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: "1", Body: []byte("ask")})
	d := next(t, requests)
	if !strings.HasPrefix(d.ReplyTo, "amq.rabbitmq.reply-to.") {
		t.Fatal(d.ReplyTo)
	}
	if q := amqptest.Must[amqp091.Queue](t)(server.QueueDeclarePassive(d.ReplyTo, false, false, false, false, nil)); q.Consumers != 1 {
		t.Error(q)
	}
	server.put("", d.ReplyTo, amqp091.Publishing{CorrelationId: d.CorrelationId, Body: []byte("answer")})
	if r := next(t, replies); string(r.Body) != "answer" || r.CorrelationId != "1" || r.Exchange != "" || r.RoutingKey != d.ReplyTo {
		t.Errorf("%+v", r)
	}
	requester.ok(requester.Close())
	returns := server.NotifyReturn(make(chan amqp091.Return, 1))
	amqptest.Until(t, "the address is gone", func() bool {
		_, err := server.open().QueueDeclarePassive(d.ReplyTo, false, false, false, false, nil)
		return err != nil
	})
	server.ok(server.PublishWithContext(context.Background(), "", d.ReplyTo, true, false, amqp091.Publishing{}))
	if r := <-returns; r.ReplyCode != 312 {
		t.Errorf("%+v", r)
	}
}
