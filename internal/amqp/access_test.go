package amqp

import (
	"context"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/tally"
)

// as returns a client that is logged in as a user. The user's password is its name.
func (bn *bench) as(user string) *client {
	return dialClient(bn.t, strings.Replace(bn.url(), "guest:guest", user+":"+user, 1))
}

// TestTopicPermissions: each operation that checks a routing key runs on topic exchanges and on
// other exchanges, for users with and without a topic permission.
func TestTopicPermissions(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	c := bn.dial()
	c.exchange("topic", "topic", nil)
	c.exchange("delayed", "x-delayed-message", amqp091.Table{"x-delayed-type": "topic"})
	c.exchange("direct", "direct", nil)
	c.exchange("other", "topic", nil)
	c.queue("q", nil)
	for _, u := range []string{"free", "bound", "none"} {
		bn.user(u, auth.AllPermissions)
	}
	for _, x := range []string{"topic", "delayed", "direct"} {
		for user, p := range map[string]auth.TopicPermission{"bound": {Write: "{username}[.].*", Read: "news[.]#"}, "none": {}} {
			p.Exchange = x
			if err := bn.auth.PutTopicPermission(ctx, user, "/", p); err != nil {
				t.Fatal(err)
			}
		}
	}
	allowed := func(user, op, exchange, key string) bool {
		ch := bn.as(user)
		closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
		var err error
		switch op {
		case "publish":
			ch.put(exchange, key, amqp091.Publishing{})
		case "publish CC":
			ch.put(exchange, "bound.x", amqp091.Publishing{Headers: amqp091.Table{"CC": []any{key}}})
		case "publish BCC":
			ch.put(exchange, "bound.x", amqp091.Publishing{Headers: amqp091.Table{"BCC": []any{key}}})
		case "bind":
			err = ch.QueueBind("q", key, exchange, false, nil)
		case "unbind":
			err = ch.QueueUnbind("q", key, exchange, nil)
		case "bind exchange":
			err = ch.ExchangeBind("direct", key, exchange, false, nil)
		case "unbind exchange":
			err = ch.ExchangeUnbind("direct", key, exchange, false, nil)
		}
		if err == nil { // the answer or the closed channel shows that the server has decided the earlier publishes
			_, err = ch.QueueDeclarePassive("q", true, false, false, false, nil)
		}
		if err == nil {
			return true
		}
		e := <-closed
		if want := "ACCESS_REFUSED - access to topic '" + key + "' in exchange '" + exchange + "' in vhost '/' refused for user '" + user + "'"; e == nil || e.Code != 403 || e.Reason != want {
			t.Errorf("%s %s %s %s: %v, want %s", user, op, exchange, key, e, want)
		}
		ch.conn.Close()
		return false
	}
	for _, op := range []string{"publish", "publish CC", "publish BCC", "bind", "unbind", "bind exchange", "unbind exchange"} {
		good, bad := "bound.x", "free.x"
		if !strings.HasPrefix(op, "publish") {
			good, bad = "news.#", "#"
		}
		for _, x := range []string{"topic", "delayed"} {
			for _, tt := range []struct {
				user, key string
				want      bool
			}{{"free", good, true}, {"free", bad, true}, {"bound", good, true}, {"bound", bad, false}} {
				if got := allowed(tt.user, op, x, tt.key); got != tt.want {
					t.Errorf("%s may %s %s at %s: %v, want %v", tt.user, op, tt.key, x, got, tt.want)
				}
			}
			if !strings.Contains(op, "CC") && allowed("none", op, x, good) {
				t.Errorf("an empty pattern let %s at %s", op, x)
			}
		}
		// A topic permission does not restrict an exchange of another type, nor a topic exchange
		// that the permission does not name.
		for _, x := range []string{"direct", "other"} {
			if !allowed("bound", op, x, bad) {
				t.Errorf("%s at %s was refused", op, x)
			}
		}
	}
	// Routes are cached, but the user's rights are checked each time.
	u := bn.as("bound")
	u.ok(u.Confirm(false))
	if !u.confirmed("topic", "bound.x", amqp091.Publishing{}) {
		t.Fatal("nacked")
	}
	if err := bn.auth.PutTopicPermission(ctx, "bound", "/", auth.TopicPermission{Exchange: "topic"}); err != nil {
		t.Fatal(err)
	}
	closed := u.NotifyClose(make(chan *amqp091.Error, 1))
	u.put("topic", "bound.x", amqp091.Publishing{})
	if e := <-closed; e == nil || e.Code != 403 {
		t.Errorf("%v", e)
	}
}

func ptr(n int) *int { return &n }

func TestLimitsOfUsersAndVirtualHosts(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	bn.user("u", auth.AllPermissions)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refusal := func(user string) string {
		t.Helper()
		conn, err := amqp091.Dial(strings.Replace(bn.url(), "guest:guest", user+":"+user, 1))
		if err == nil {
			conn.Close()
			return ""
		}
		e, is := err.(*amqp091.Error)
		if !is || e.Code != int(wire.CodeNotAllowed) {
			t.Fatalf("%v", err)
		}
		return e.Reason
	}
	// The virtual host may have one connection, and c has one. After c closes its connection,
	// another client can connect.
	ok(bn.auth.PutVhostLimits(ctx, "/", auth.VhostLimits{MaxConnections: ptr(1)}))
	c := bn.dial()
	amqptest.Same(t, refusal("u"), "NOT_ALLOWED - access to vhost '/' refused for user 'u': connection limit (1) is reached")
	c.ok(c.conn.Close())
	amqptest.Until(t, "its connection is no longer counted", func() bool { return refusal("u") == "" })
	ok(bn.auth.PutVhostLimits(ctx, "/", auth.VhostLimits{MaxQueues: ptr(2)}))
	ok(bn.auth.PutUserLimits(ctx, "u", auth.UserLimits{MaxConnections: ptr(2), MaxChannels: ptr(3)}))
	amqptest.Until(t, "no connection is left", func() bool { return len(bn.server.Connections()) == 0 })
	a, b := bn.as("u"), bn.as("u") // one channel each
	amqptest.Same(t, refusal("u"), "NOT_ALLOWED - connection refused for user 'u': user connection limit (2) is reached")
	if vhosts, users, all := bn.refusedNow(tally.VhostConnections), bn.refusedNow(tally.UserConnections), bn.refusedNow(tally.Connections); vhosts != 1 || users != 1 || all != 0 {
		t.Errorf("refusals: %d by the virtual host, %d by the user, %d by the server", vhosts, users, all)
	}
	amqptest.Same(t, refusal("guest"), "")

	third := a.open()
	closed := b.conn.NotifyClose(make(chan *amqp091.Error, 1))
	if _, err := b.conn.Channel(); err == nil {
		t.Error("a fourth channel was opened")
	}
	if e := <-closed; e == nil || e.Code != 530 || e.Reason != "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (3)" {
		t.Errorf("%v", e)
	}
	amqptest.Until(t, "the connection is gone", func() bool { return len(bn.server.Connections()) == 1 })
	third.ok(third.Close())
	for range 2 { // closing a channel frees its share of the limit
		a.open()
	}

	// The limit of queues counts queues of each kind. Declaring an existing queue again does not
	// count.
	a.queue("one", nil)
	amqptest.Must[amqp091.Queue](t)(a.QueueDeclare("", false, true, true, false, nil))
	a.queue("one", nil)
	_, err := a.QueueDeclare("three", true, false, false, false, nil)
	if e, is := err.(*amqp091.Error); !is || e.Code != 406 || !strings.HasPrefix(e.Reason, "PRECONDITION_FAILED - cannot declare queue 'three': queue limit in vhost '/' (2) is reached") {
		t.Errorf("%v", err)
	}
}
