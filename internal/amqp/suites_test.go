package amqp

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// The test suites of RabbitMQ and similar brokers check these behaviours. Each test has one
// subject.

// settled waits until no dead letter is moving.
func (bn *bench) settled(what string, and func() bool) {
	bn.t.Helper()
	amqptest.Until(bn.t, what, func() bool {
		i := amqptest.Must[surgetank.QueueInfo](bn.t)(bn.broker.Queue(context.Background(), policy.Passage("/")))
		return i.Ready+i.Leased+i.Delayed+i.Blocked == 0 && and()
	})
}

func (bn *bench) count(queue string) int64 {
	bn.t.Helper()
	i := amqptest.Must[surgetank.QueueInfo](bn.t)(bn.broker.Queue(context.Background(), queue))
	return i.Ready + i.Leased + i.Delayed + i.Blocked
}

func dlx(to string, more amqp091.Table) amqp091.Table {
	t := amqp091.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to}
	for k, v := range more {
		t[k] = v
	}
	return t
}

// A message that expires in one queue after another keeps the history of all of them, however many
// they are.
func TestALongChainOfDeadLetterQueues(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	const n = 40
	for i := range n {
		c.queue(fmt.Sprint("chain", i), dlx(fmt.Sprint("chain", i+1), amqp091.Table{"x-message-ttl": int32(1)}))
	}
	c.queue(fmt.Sprint("chain", n), nil)
	c.bodies("", "chain0", "m")
	amqptest.Until(t, "the message arrives in the last queue", func() bool { return bn.count(fmt.Sprint("chain", n)) == 1 })
	d, _, err := c.Get(fmt.Sprint("chain", n), true)
	c.ok(err)
	deaths, _ := d.Headers["x-death"].([]any)
	if len(deaths) != n || d.Headers["x-first-death-queue"] != "chain0" || d.Headers["x-last-death-queue"] != fmt.Sprint("chain", n-1) {
		t.Errorf("%d deaths, first %v, last %v", len(deaths), d.Headers["x-first-death-queue"], d.Headers["x-last-death-queue"])
	}
}

// TestCyclesEnd: dead letters cycle through one, two or three queues without a rejection. A message
// is dropped before it returns to the first queue.
func TestCyclesEnd(t *testing.T) {
	for n := 1; n <= 3; n++ {
		bn := start(t, Limits{})
		c := bn.dial()
		for i := range n {
			c.queue(fmt.Sprint("c", i), dlx(fmt.Sprint("c", (i+1)%n), amqp091.Table{"x-message-ttl": int32(1)}))
		}
		c.bodies("", "c0", "m")
		bn.settled("the message is gone", func() bool {
			for i := range n {
				if q := fmt.Sprint("c", i); bn.count(q) > 0 || amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), q)).Published == 0 {
					return false
				}
			}
			return true
		})
		for i := range n {
			if p := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), fmt.Sprint("c", i))).Published; p != 1 {
				t.Errorf("a cycle of %d: the message was %d times in queue %d", n, p, i)
			}
		}
	}
}

// A message goes around a cycle of queues once for each rejection.
func TestACycleOfThreeWithRejections(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("work", dlx("wait1", nil))
	c.queue("wait1", dlx("wait2", amqp091.Table{"x-message-ttl": int32(1)}))
	c.queue("wait2", dlx("work", amqp091.Table{"x-message-ttl": int32(1)}))
	ds := c.consume("work", nil)
	c.bodies("", "work", "m")
	for round := range 5 {
		d := next(t, ds)
		n := map[string]int64{}
		deaths, _ := d.Headers["x-death"].([]any)
		for _, e := range deaths {
			e := e.(amqp091.Table)
			n[fmt.Sprint(e["queue"], " ", e["reason"])] = e["count"].(int64)
		}
		want := map[string]int64{}
		if round > 0 {
			want = map[string]int64{"work rejected": int64(round), "wait1 expired": int64(round), "wait2 expired": int64(round)}
		}
		amqptest.Same(t, n, want)
		c.ok(d.Reject(false))
	}
}

// A full queue dead-letters to itself. The message that it drops to make room is gone, and the
// newest stays.
func TestMaxLengthWithDeadLettersToItself(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.ok(c.Confirm(false))
	c.queue("self", dlx("self", amqp091.Table{"x-max-length": int32(1)}))
	for i := range 5 {
		if !c.confirmed("", "self", amqp091.Publishing{Body: []byte(fmt.Sprint(i))}) {
			t.Error("nacked")
		}
	}
	bn.settled("no dead letter is moving", func() bool { return bn.count("self") == 1 })
	amqptest.Same(t, c.drain("self"), []string{"4"})
}

func TestDeadLetteredOnceToMany(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.exchange("many", "fanout", nil)
	c.exchange("more", "topic", nil)
	c.ok(c.ExchangeBind("more", "", "many", false, nil))
	for i := range 4 {
		q := fmt.Sprint("to", i)
		c.queue(q, nil)
		c.bind(q, "", "many", nil)
		c.bind(q, "#", "more", nil) // a second matching binding makes no second copy
	}
	c.queue("q", amqp091.Table{"x-dead-letter-exchange": "many"})
	c.bodies("", "q", "1", "2", "3")
	ds := c.consume("q", nil)
	for range 3 {
		c.ok(next(t, ds).Nack(false, false))
	}
	bn.settled("they arrive", func() bool { // with several shards, each queue at its own time
		return bn.count("to0") == 3 && bn.count("to1") == 3 && bn.count("to2") == 3 && bn.count("to3") == 3 && bn.count("q") == 0
	})
	for i := range 4 {
		amqptest.Same(t, c.drain(fmt.Sprint("to", i)), []string{"1", "2", "3"})
	}
}

// restarts runs steps. Each step has a new door and a new broker on the same directory.
func restarts(t *testing.T, steps ...func(t *testing.T, bn *bench)) {
	dir := t.TempDir()
	for i, step := range steps {
		ok := t.Run(fmt.Sprint("start ", i+1), func(t *testing.T) {
			step(t, startOn(t, amqptest.Must[*embedded.Broker](t)(embedded.Open(dir, embedded.Options{Shards: shardstest.N})), Limits{}))
		})
		if !ok {
			return
		}
	}
}

// Messages that expired while the broker was stopped are dead-lettered at the next start, and never
// delivered.
func TestARestartWithExpiredMessages(t *testing.T) {
	restarts(t, func(t *testing.T, bn *bench) {
		c := bn.dial()
		c.ok(c.Confirm(false))
		c.queue("dead", nil)
		c.queue("ttl", dlx("dead", amqp091.Table{"x-message-ttl": int32(30)}))
		c.queue("own", dlx("dead", nil))
		d := c.consume("ttl", nil) // it is leased when the broker stops, so it does not expire before the stop
		c.confirmed("", "ttl", amqp091.Publishing{Body: []byte("ttl"), DeliveryMode: 2})
		next(t, d)
		d = c.consume("own", nil)
		c.confirmed("", "own", amqp091.Publishing{Body: []byte("own"), Expiration: "30", DeliveryMode: 2})
		next(t, d)
	}, func(t *testing.T, bn *bench) {
		c := bn.dial()
		var got []string
		amqptest.Until(t, "both are dead-lettered", func() bool { got = append(got, c.drain("dead")...); return len(got) == 2 })
		slices.Sort(got)
		amqptest.Same(t, got, []string{"own", "ttl"})
		if n := bn.count("ttl") + bn.count("own"); n != 0 {
			t.Errorf("%d are still there", n)
		}
	})
}

// Priorities, and the order within each priority, survive a restart.
func TestPriorityQueueRecovery(t *testing.T) {
	restarts(t, func(t *testing.T, bn *bench) {
		c := bn.dial()
		c.ok(c.Confirm(false))
		c.queue("p", amqp091.Table{"x-max-priority": int32(3)})
		for i := range 12 {
			c.confirmed("", "p", amqp091.Publishing{Priority: uint8(i % 4), Body: []byte(fmt.Sprint(i%4, ".", i)), DeliveryMode: 2})
		}
	}, func(t *testing.T, bn *bench) {
		c := bn.dial()
		c.queue("p", amqp091.Table{"x-max-priority": int32(3)})
		amqptest.Same(t, c.drain("p"), []string{"3.3", "3.7", "3.11", "2.2", "2.6", "2.10", "1.1", "1.5", "1.9", "0.0", "0.4", "0.8"})
	})
}

// TestFoundDedupIDsSurviveARestart: after a restart, a queue still knows the dedup ids that its own
// rule found, as it knows the ids of publishers.
func TestFoundDedupIDsSurviveARestart(t *testing.T) {
	publish := func(t *testing.T, bn *bench) *client {
		c := bn.dial()
		c.ok(c.Confirm(false))
		c.queue("q", nil)
		c.confirmed("", "q", amqp091.Publishing{MessageId: "1", Body: []byte("m"), DeliveryMode: 2})
		return c
	}
	restarts(t, func(t *testing.T, bn *bench) {
		bn.policy("once", "^q$", 0, map[string]any{"dedup": map[string]any{"window": "1h", "by": "header:message-id"}})
		publish(t, bn)
	}, func(t *testing.T, bn *bench) {
		amqptest.Same(t, publish(t, bn).drain("q"), []string{"m"})
		amqptest.Same(t, publish(t, bn).drain("q"), []string(nil))
	})
}

// A passive declaration needs no right to configure.
func TestPassiveDeclarationsAndPermissions(t *testing.T) {
	bn := start(t, Limits{})
	bn.user("reader", auth.Permission{Read: "q"})
	c := bn.dial()
	c.queue("q", nil)
	c.exchange("x", "fanout", nil)
	r := bn.as("reader")
	amqptest.Must[amqp091.Queue](t)(r.QueueDeclarePassive("q", true, false, false, false, nil))
	r.ok(r.ExchangeDeclarePassive("x", "fanout", true, false, false, false, nil))
	if _, err := r.open().QueueDeclare("q", true, false, false, false, nil); err == nil {
		t.Error("a passive declaration made the queue")
	}
	if err := r.open().ExchangeDeclare("x", "fanout", true, false, false, false, nil); err == nil {
		t.Error("a passive declaration made the exchange")
	}
}

func TestQueueLengthLimitsInBytes(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.ok(c.Confirm(false))
	c.queue("drop", amqp091.Table{"x-max-length-bytes": int32(10)})
	c.queue("reject", amqp091.Table{"x-max-length-bytes": int32(10), "x-overflow": "reject-publish"})
	c.queue("both", amqp091.Table{"x-max-length-bytes": int32(100), "x-max-length": int32(2)})
	for i, want := range []bool{true, true, false} {
		m := amqp091.Publishing{Body: []byte(strings.Repeat(fmt.Sprint(i), 5))}
		if !c.confirmed("", "drop", m) || !c.confirmed("", "both", m) || c.confirmed("", "reject", m) != want {
			t.Errorf("message %d", i)
		}
	}
	amqptest.Same(t, c.drain("drop"), []string{"11111", "22222"})
	amqptest.Same(t, c.drain("both"), []string{"11111", "22222"})
	d, _, err := c.Get("reject", false)
	c.ok(err)
	// The limit counts ready messages only. After the ack, the queue has room for one more.
	c.ok(d.Ack(false))
	if !c.confirmed("", "reject", amqp091.Publishing{Body: []byte("33333")}) {
		t.Error("the queue has room, but the message was refused")
	}
	amqptest.Same(t, c.drain("reject"), []string{"11111", "33333"})
}

// Names, keys, headers and tags can be in any language.
func TestUnicode(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	const name = "очередь.日本語.🚰.é"
	c.exchange(name, "topic", nil)
	c.queue(name, dlx(name+".мёртв", nil))
	c.queue(name+".мёртв", nil)
	c.bind(name, "*.日本語.#", name, nil)
	c.put(name, "ключ.日本語.🚰", amqp091.Publishing{Headers: amqp091.Table{name: name}, AppId: name, Body: []byte(name)})
	c.put(name, "ключ.другой", amqp091.Publishing{})
	ds := amqptest.Must[<-chan amqp091.Delivery](t)(c.Consume(name, name, false, false, false, false, nil))
	d := next(t, ds)
	if d.RoutingKey != "ключ.日本語.🚰" || d.Exchange != name || d.ConsumerTag != name || d.Headers[name] != name || d.AppId != name || string(d.Body) != name {
		t.Errorf("%+v", d)
	}
	c.ok(d.Reject(false))
	amqptest.Until(t, "it is dead-lettered", func() bool { return bn.count(name+".мёртв") == 1 })
	d, _, err := c.Get(name+".мёртв", true)
	c.ok(err)
	if d.Headers["x-first-death-queue"] != name {
		t.Errorf("%v", d.Headers)
	}
}

// Publishers on many channels publish at once. Each gets every confirm, and every confirmed message
// is stored.
func TestParallelConfirms(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	const channels, each = 8, 200
	var wg sync.WaitGroup
	for range channels {
		ch := c.open()
		ch.ok(ch.Confirm(false))
		confirms := ch.NotifyPublish(make(chan amqp091.Confirmation, each))
		wg.Go(func() {
			for range each {
				if err := ch.PublishWithContext(context.Background(), "", "q", false, false, amqp091.Publishing{}); err != nil {
					t.Error(err)
					return
				}
			}
			for i := range each {
				if got := <-confirms; !got.Ack || got.DeliveryTag != uint64(i+1) {
					t.Errorf("%+v, want %d", got, i+1)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := c.ready("q"); n != channels*each {
		t.Errorf("%d messages", n)
	}
}

// A message of the largest size is accepted. One byte more is refused, and the connection stays
// open.
func TestTheLargestMessage(t *testing.T) {
	const most = 300_000
	bn := start(t, Limits{MaxMessage: most})
	c := bn.dial()
	c.ok(c.Confirm(false))
	c.queue("q", nil)
	if !c.confirmed("", "q", amqp091.Publishing{Body: make([]byte, most)}) {
		t.Error("nacked")
	}
	ch := c.open()
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	ch.put("", "q", amqp091.Publishing{Body: make([]byte, most+1)})
	if e := <-closed; e == nil || e.Code != 406 || e.Reason != fmt.Sprintf("PRECONDITION_FAILED - message size %d is larger than configured max size %d; server.max_message in the configuration raises it", most+1, most) {
		t.Errorf("%v", e)
	}
	if d, _, err := c.Get("q", true); err != nil || len(d.Body) != most {
		t.Error(len(d.Body), err)
	}
}

// A publisher that an alarm blocks closes its connection. The server notices while the alarm lasts.
func TestADisconnectIsNoticedDuringAnAlarm(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("q", nil)
	bn.server.SetAlarm("low on disk", true)
	blocked := c.conn.NotifyBlocked(make(chan amqp091.Blocking, 1))
	c.bodies("", "q", "1")
	if b := <-blocked; !b.Active || b.Reason != "low on disk" {
		t.Errorf("%+v", b)
	}
	if len(bn.server.Connections()) != 1 {
		t.Fatal("the connection is not listed")
	}
	c.conn.CloseDeadline(time.Now()) // closes the socket without waiting for the server
	amqptest.Until(t, "it is gone", func() bool { return len(bn.server.Connections()) == 0 })
	bn.server.SetAlarm("low on disk", false)
}

// A message with a short TTL expires even if a message with a long TTL is before it.
func TestShortTTLBehindLong(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("dead", nil)
	c.queue("q", dlx("dead", nil))
	c.put("", "q", amqp091.Publishing{Expiration: "3600000", Body: []byte("long")})
	c.put("", "q", amqp091.Publishing{Expiration: "1", Body: []byte("short")})
	amqptest.Until(t, "it expires", func() bool { return bn.count("dead") == 1 })
	amqptest.Same(t, c.drain("dead"), []string{"short"})
	amqptest.Same(t, c.drain("q"), []string{"long"})
}
