package amqp

import (
	"fmt"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

func TestExchangesThatPickOneQueue(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.exchange("hash", "x-consistent-hash", nil)
	c.exchange("by-header", "x-consistent-hash", amqp091.Table{"hash-header": "customer"})
	c.exchange("by-id", "x-consistent-hash", amqp091.Table{"hash-property": "message_id"})
	c.exchange("random", "x-random", nil)
	c.exchange("local", "x-local-random", nil)
	c.exchange("delayed", "x-delayed-message", amqp091.Table{"x-delayed-type": "x-consistent-hash"})
	queues := []string{"q0", "q1", "q2"}
	for _, q := range queues {
		c.queue(q, nil)
		for _, x := range []string{"hash", "by-header", "by-id", "random", "local", "delayed"} {
			c.bind(q, "10", x, nil)
		}
	}
	c.ok(c.Confirm(false))
	const n = 60
	send := func(exchange string, message func(i int) (string, amqp091.Publishing)) (where map[string]map[string]int) {
		t.Helper()
		var last *amqp091.DeferredConfirmation
		for i := range n {
			key, m := message(i)
			last = amqptest.Must[*amqp091.DeferredConfirmation](t)(c.PublishWithDeferredConfirm(exchange, key, true, false, m))
		}
		last.Wait()
		where = map[string]map[string]int{}
		total := 0
		for _, q := range queues {
			for _, b := range c.drain(q) {
				if where[b] == nil {
					where[b] = map[string]int{}
				}
				where[b][q]++
				total++
			}
		}
		if total != n {
			t.Errorf("%s: %d of %d messages; each must be in one queue", exchange, total, n)
		}
		return where
	}
	for x, message := range map[string]func(i int) (string, amqp091.Publishing){
		"hash": func(i int) (string, amqp091.Publishing) {
			k := fmt.Sprint(i % 20)
			return k, amqp091.Publishing{Body: []byte(k)}
		},
		"delayed": func(i int) (string, amqp091.Publishing) {
			k := fmt.Sprint(i % 20)
			return k, amqp091.Publishing{Body: []byte(k)}
		},
		"by-header": func(i int) (string, amqp091.Publishing) {
			k := fmt.Sprint(i % 20)
			return fmt.Sprint("key", i), amqp091.Publishing{Headers: amqp091.Table{"customer": k}, Body: []byte(k)}
		},
		"by-id": func(i int) (string, amqp091.Publishing) {
			k := fmt.Sprint(i % 20)
			return fmt.Sprint("key", i), amqp091.Publishing{MessageId: k, Body: []byte(k)}
		},
	} {
		used := map[string]bool{}
		for value, in := range send(x, message) {
			if len(in) != 1 {
				t.Errorf("%s: %s was routed to %v", x, value, in)
			}
			for q := range in {
				used[q] = true
			}
		}
		if len(used) != len(queues) {
			t.Errorf("%s delivered only to %v", x, used)
		}
	}
	for _, x := range []string{"random", "local"} {
		in := send(x, func(int) (string, amqp091.Publishing) { return "k", amqp091.Publishing{Body: []byte("m")} })["m"]
		for _, q := range queues { // a queue gets none of 60 messages with a probability of at most 3 × (2/3)^60
			if in[q] == 0 {
				t.Errorf("%s: %v", x, in)
			}
		}
	}
	c.ok(c.QueueUnbind("q0", "10", "random", nil))
	for _, q := range []string{"q1", "q2"} {
		c.ok(c.QueueUnbind(q, "10", "random", nil))
	}
	c.bodies("random", "k", "to nobody")
	for _, tt := range []struct {
		kind, key, text string
		args            amqp091.Table
	}{
		{"x-consistent-hash", "heavy", "The binding key must be an integer: heavy", nil},
		{"x-consistent-hash", "-1", "The binding key must be an integer: -1", nil},
		{"x-consistent-hash", "1", "Unsupported property 'app_id'", amqp091.Table{"hash-property": "app_id"}},
		{"x-consistent-hash", "1", "mutually exclusive", amqp091.Table{"hash-property": "message_id", "hash-header": "h"}},
		{"x-consistent-hash", "1", "invalid arg 'hash-header'", amqp091.Table{"hash-header": int32(1)}},
	} {
		ch := c.open()
		err := ch.ExchangeDeclare("bad", tt.kind, false, true, false, false, tt.args)
		if err == nil {
			err = ch.QueueBind("q0", tt.key, "bad", false, nil)
		}
		if e, ok := err.(*amqp091.Error); !ok || e.Code != int(wire.CodePreconditionFailed) || !strings.Contains(e.Reason, tt.text) {
			t.Errorf("%v %s: %v", tt.args, tt.key, err)
		}
		_ = c.open().ExchangeDelete("bad", false, false)
	}
}

// After a restart, equal values still go to the same queues.
func TestHashingSurvivesARestart(t *testing.T) {
	bn := start(t, Limits{})
	where := func(c *client) (list []string) {
		c.ok(c.Confirm(false))
		for i := range 20 {
			c.confirmed("hash", fmt.Sprint(i), amqp091.Publishing{Body: []byte(fmt.Sprint(i))})
		}
		return append(append(c.drain("q0"), "|"), c.drain("q1")...)
	}
	c := bn.dial()
	c.exchange("hash", "x-consistent-hash", nil)
	for i, w := range []string{"1", "3"} {
		c.queue(fmt.Sprint("q", i), nil)
		c.bind(fmt.Sprint("q", i), w, "hash", nil)
	}
	before := where(c)
	again := &bench{t: t, broker: bn.broker, auth: bn.auth}
	again.serveAgain()
	amqptest.Same(t, where(again.dial()), before)
}
