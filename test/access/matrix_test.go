package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/auth"
)

// The roles of the matrix. Their permissions cover the queues q, q2 and q.dead, and the exchanges
// for publishing over AMQP.
var (
	nobody     = role{name: "nobody"}
	guest      = role{name: "guest", user: "guest", pass: "guest"} // a user whose password is public
	none       = role{name: "none", user: "none", pass: "x"}
	elsewhere  = role{name: "elsewhere", user: "elsewhere", pass: "x", perm: &auth.Permission{Configure: "other.*", Write: "other.*", Read: "other.*"}}
	configurer = role{name: "configure", user: "configurer", pass: "x", perm: &auth.Permission{Configure: "q.*"}}
	writer     = role{name: "write", user: "writer", pass: "x", perm: &auth.Permission{Write: "q.*|amq[.].*"}}
	reader     = role{name: "read", user: "reader", pass: "x", perm: &auth.Permission{Read: "q.*|amq[.].*"}}
	all        = role{name: "all", user: "all", pass: "x", perm: &auth.Permission{Configure: ".*", Write: ".*", Read: ".*"}}
	monitor    = role{name: "monitoring", user: "monitor", pass: "x", tags: []string{auth.TagMonitoring}}
	admin      = role{name: "administrator", user: "admin", pass: "x", tags: []string{auth.TagAdministrator}}
)

// httpOp is one operation over HTTP. {r} in the body is replaced by a receipt of the queue q.
type httpOp struct {
	name, method, path, body string
	may                      []string // the allowed roles; the local token is always allowed
}

var (
	mayConfigure = []string{"configure", "all"}
	mayWrite     = []string{"write", "all"}
	mayRead      = []string{"read", "all"}
	mayAll       = []string{"all"}
	maySee       = []string{"configure", "write", "read", "all", "monitoring", "administrator"}
	mayEnter     = []string{"configure", "write", "read", "all", "elsewhere"}
	mayLogIn     = []string{"none", "configure", "write", "read", "all", "elsewhere", "monitoring", "administrator"}
	mayMonitor   = []string{"monitoring", "administrator"}
	mayManage    = []string{"administrator"}
)

var httpOps = []httpOp{
	{"see", "GET", "/v1/queues/q", "", maySee},
	{"list", "GET", "/v1/queues", "", mayEnter},
	{"declare", "PUT", "/v1/queues/q2", `{"dead_letter":"-"}`, mayConfigure},
	{"declare, dead letters to q2.dead", "PUT", "/v1/queues/q2", `{}`, mayAll},
	{"change", "PUT", "/v1/queues/q?mode=merge", `{"ttl":"1h"}`, mayConfigure},
	{"change dead letters", "PUT", "/v1/queues/q?mode=merge", `{"dead_letter":"q2"}`, mayAll},
	{"change dead letters by update", "PUT", "/v1/queues/q?mode=update", `{}`, mayAll},
	{"delete", "DELETE", "/v1/queues/q", "", mayConfigure},
	{"pause", "POST", "/v1/queues/q/pause", "", mayConfigure},
	{"resume", "POST", "/v1/queues/q/resume", "", mayConfigure},
	{"move", "POST", "/v1/queues/q/move", `{"shard":64}`, mayConfigure},
	{"publish", "POST", "/v1/queues/q/messages", "x", mayWrite},
	{"publish to many", "POST", "/v1/publish", `{"queues":["q"],"body":1}`, mayWrite},
	{"transact", "POST", "/v1/transact", `{"messages":[{"queues":["q"],"body":1}]}`, mayWrite},
	{"receive", "POST", "/v1/queues/q/receive", `{"max":1}`, mayRead},
	{"peek", "GET", "/v1/queues/q/messages", "", mayRead},
	{"purge", "POST", "/v1/queues/q/purge", "", mayRead},
	{"purge damaged", "POST", "/v1/queues/q/purge?damaged=true", "", mayRead},
	{"subscribe", "POST", "/v1/queues/q/subscribe", `{"credit":1}`, mayRead},
	{"ack", "POST", "/v1/queues/q/ack", `{"receipts":["{r}"]}`, mayRead},
	{"nack", "POST", "/v1/queues/q/nack", `{"receipts":["{r}"]}`, mayRead},
	{"extend", "POST", "/v1/queues/q/extend", `{"receipts":["{r}"],"lease":"1m"}`, mayRead},
	{"settle", "POST", "/v1/settle", `{"settlements":[{"receipt":"{r}","op":"ack"}]}`, mayRead},
	{"redrive", "POST", "/v1/queues/q.dead/redrive", `{"to":"q"}`, mayAll},
	{"redrive elsewhere", "POST", "/v1/queues/q.dead/redrive", `{"to":"other"}`, mayAll},
	{"redrive each to its own", "POST", "/v1/queues/q.dead/redrive", `{}`, mayAll},
	{"see another's", "GET", "/v1/queues/other", "", []string{"elsewhere", "all", "monitoring", "administrator"}},
	{"who am I", "GET", "/v1/whoami", "", mayLogIn},
	{"metrics", "GET", "/metrics", "", mayMonitor},
	{"policies", "GET", "/v1/policies", "", mayMonitor},
	{"set policy", "PUT", "/v1/vhosts/%2F/policies/p", `{"pattern":"^x$","settings":{"ttl":"1h"}}`, mayManage},
	{"users", "GET", "/v1/users", "", mayManage},
	{"make oneself administrator", "PUT", "/v1/users/none", `{"tags":["administrator"]}`, mayManage},
	{"permissions", "PUT", "/v1/vhosts/%2F/permissions/none", `{"configure":"","write":"","read":""}`, mayManage},
	{"virtual host", "PUT", "/v1/vhosts/team", `{}`, mayManage},
	{"sinks", "GET", "/v1/sinks", "", mayManage},
	{"sink to a file of the server's", "PUT", "/v1/sinks/s", `{"queue":"q","sqlite":{"path":"/tmp/no/such/directory/x.db","table":"t","columns":{"a":"$.a"}}}`, nil},
	{"metadata", "GET", "/v1/meta/auth", "", mayManage},
}

// amqpOp is one operation over AMQP. The channel is in confirm mode.
type amqpOp struct {
	name string
	do   func(ctx context.Context, ch *amqp.Channel) error
	may  []string
}

var amqpOps = []amqpOp{
	{"open", func(context.Context, *amqp.Channel) error { return nil }, mayEnter},
	{"declare", func(_ context.Context, ch *amqp.Channel) error {
		_, err := ch.QueueDeclare("q2", true, false, false, false, nil)
		return err
	}, mayConfigure},
	{"declare with a dead-letter exchange", func(_ context.Context, ch *amqp.Channel) error {
		_, err := ch.QueueDeclare("q2", true, false, false, false, amqp.Table{"x-dead-letter-exchange": "amq.fanout"})
		return err
	}, mayAll},
	{"delete", func(_ context.Context, ch *amqp.Channel) error {
		_, err := ch.QueueDelete("q", false, false, false)
		return err
	}, mayConfigure},
	{"publish", func(ctx context.Context, ch *amqp.Channel) error {
		closed := ch.NotifyClose(make(chan *amqp.Error, 1)) // registered before the operation, because a refusal closes the channel
		d, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", "q", false, false, amqp.Publishing{Body: []byte("x")})
		if err != nil {
			return err
		}
		select {
		case <-d.Done():
			if d.Acked() {
				return nil
			}
		case why := <-closed:
			if why != nil {
				return why
			}
			return errors.New("the channel was closed without a reason")
		case <-ctx.Done():
			return ctx.Err()
		}
		select { // a closed channel also nacks its unconfirmed messages: prefer its error
		case why := <-closed:
			if why != nil {
				return why
			}
		case <-ctx.Done():
		}
		return errors.New("nack")
	}, mayWrite},
	{"get", func(_ context.Context, ch *amqp.Channel) error { _, _, err := ch.Get("q", true); return err }, mayRead},
	{"consume", func(_ context.Context, ch *amqp.Channel) error {
		_, err := ch.Consume("q", "", true, false, false, false, nil)
		return err
	}, mayRead},
	{"purge", func(_ context.Context, ch *amqp.Channel) error { _, err := ch.QueuePurge("q", false); return err }, mayRead},
	{"bind", func(_ context.Context, ch *amqp.Channel) error {
		return ch.QueueBind("q", "k", "amq.direct", false, nil)
	}, mayAll},
	{"declare exchange", func(_ context.Context, ch *amqp.Channel) error {
		return ch.ExchangeDeclare("q.x", "fanout", true, false, false, false, nil)
	}, mayConfigure},
}

// fresh resets the queues for each operation, and returns a receipt of a message of q.
func (r *rig) fresh() (receipt string) {
	r.t.Helper()
	for _, q := range []string{"q", "q2"} {
		if status, answer := r.ask(r.machine(), "DELETE", "/v1/queues/"+q, ""); status != 200 && status != 404 {
			r.t.Fatalf("delete %s: %d %s", q, status, answer)
		}
	}
	r.must("PUT", "/v1/queues/q", `{"dead_letter":"-"}`)
	for range 2 {
		r.must("POST", "/v1/queues/q/messages", "x")
	}
	var got struct {
		Messages []struct {
			Receipt string `json:"receipt"`
		} `json:"messages"`
	}
	if err := json.Unmarshal([]byte(r.must("POST", "/v1/queues/q/receive", `{"max":1}`)), &got); err != nil || len(got.Messages) != 1 {
		r.t.Fatal(got, err)
	}
	return got.Messages[0].Receipt
}

// TestMatrix tries every operation over HTTP and AMQP with every role.
func TestMatrix(t *testing.T) {
	r := newRig(t)
	roles := []role{nobody, guest, none, elsewhere, configurer, writer, reader, all, monitor, admin}
	for _, who := range roles {
		if who.user != "guest" {
			r.enrol(who)
		}
	}
	for _, q := range []string{"q.dead", "other"} {
		r.must("PUT", "/v1/queues/"+q, `{"dead_letter":"-"}`)
	}
	for _, op := range httpOps {
		for _, who := range append(roles, r.machine()) {
			receipt := r.fresh()
			status, answer := r.ask(who, op.method, op.path, strings.ReplaceAll(op.body, "{r}", receipt))
			want := 403
			switch {
			case who.name == "nobody", who.name == "guest":
				want = 401
			case who.name == "this machine" || slices.Contains(op.may, who.name):
				want = 200
			}
			if op.name == "sink to a file of the server's" && who.name == "this machine" {
				want = 400 // the operation is allowed, but the directory does not exist
			}
			if op.name == "move" && want == 200 {
				want = 400 // the operation is allowed, but there is no such shard
			}
			if got := status; want == 200 && got/100 != 2 || want != 200 && got != want {
				t.Errorf("HTTP, %s by %s: %d, want %d: %s", op.name, who.name, status, want, answer)
			}
		}
		r.must("PUT", "/v1/users/none", `{"tags":[]}`) // removes the tags that an operation on users set
		if status, _ := r.ask(r.machine(), "DELETE", "/v1/vhosts/%2F/permissions/none", ""); status != 200 && status != 404 {
			t.Fatal(status)
		}
	}
	for _, op := range amqpOps {
		for _, who := range roles {
			r.fresh()
			err := r.overAMQP(who, op)
			var e *amqp.Error
			refused := errors.As(err, &e) && (e.Code == amqp.AccessRefused || e.Code == amqp.NotAllowed)
			if allowed := slices.Contains(op.may, who.name); allowed && err != nil || !allowed && !refused {
				t.Errorf("AMQP, %s by %s: %v, allowed %v", op.name, who.name, err, allowed)
			}
		}
	}
}

func (r *rig) overAMQP(who role, op amqpOp) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 60e9)
	defer cancel()
	conn, err := r.connect(r.amqp, who.user, who.pass)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	return op.do(ctx, ch)
}

// TestExclusive: every role but the owner tries every operation on an exclusive queue. All must be
// refused, except publishing: replies need that others can publish to the queue.
func TestExclusive(t *testing.T) {
	r := newRig(t)
	owner, err := r.connect(r.amqp, "guest", "guest")
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	mine, err := owner.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.QueueDeclare("q", false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.connectAndClose("guest"); err != nil {
		t.Fatal(err)
	}
	publish := func(n int) {
		t.Helper()
		for range n {
			r.must("POST", "/v1/queues/q/messages", "x")
		}
	}
	publish(2)
	roles := []role{nobody, r.machine(), {name: "guest", user: "guest", pass: "guest"}} // no other user exists yet, so these roles have every right
	for _, op := range httpOps {
		if !strings.HasPrefix(op.path, "/v1/queues/q/") && op.path != "/v1/queues/q" && !strings.HasPrefix(op.path, "/v1/queues/q?") {
			continue
		}
		want := 403
		switch {
		case op.name == "see", op.name == "publish":
			want = 200
		case strings.Contains(op.body, "{r}"):
			continue // no other role can have a receipt of this queue
		}
		for _, who := range roles {
			if status, answer := r.ask(who, op.method, op.path, op.body); want == 200 && status/100 != 2 || want != 200 && status != want {
				t.Errorf("HTTP, %s by %s: %d, want %d: %s", op.name, who.name, status, want, answer)
			}
		}
	}
	if status, answer := r.ask(r.machine(), "POST", "/v1/queues/q/redrive", `{"to":"q"}`); status != 403 {
		t.Errorf("HTTP, redrive from it: %d %s", status, answer)
	}
	for _, op := range amqpOps {
		switch op.name {
		case "open", "publish", "declare", "declare with a dead-letter exchange", "declare exchange":
			continue // the operation does not use q, or only publishes to it
		}
		var e *amqp.Error
		if err := r.overAMQP(role{name: "another connection", user: "guest", pass: "guest"}, op); !errors.As(err, &e) || e.Code != amqp.ResourceLocked {
			t.Errorf("AMQP, %s by another connection: %v", op.name, err)
		}
	}
	// A sink consumes from the queue, too.
	status, _ := r.ask(r.machine(), "PUT", "/v1/sinks/s", fmt.Sprintf(`{"queue":"q","sqlite":{"path":%q,"table":"t","create_table":true,"columns":{"b":"body"}}}`, t.TempDir()+"/x.db"))
	if status/100 == 2 {
		defer r.must("DELETE", "/v1/sinks/s", "")
	}
	// None of these attempts changed anything: the owner finds every message.
	info, err := mine.QueueDeclarePassive("q", false, false, true, false, nil)
	if err != nil || info.Messages != 2+len(roles) || info.Consumers != 0 {
		t.Errorf("the owner finds %+v, %v", info, err)
	}
	if _, ok, err := mine.Get("q", true); !ok || err != nil {
		t.Errorf("the owner gets nothing: %v", err)
	}
	if n, err := mine.QueuePurge("q", false); n != 1+len(roles) || err != nil {
		t.Errorf("the owner purges %d: %v", n, err)
	}
	if _, err := mine.QueueDelete("q", false, false, false); err != nil {
		t.Errorf("the owner deletes: %v", err)
	}
	// The name is free again for every user, and the queue was removed with its connection.
	r.must("PUT", "/v1/queues/q", `{}`)
	r.must("DELETE", "/v1/queues/q", "")
	if _, err := mine.QueueDeclare("q", false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	owner.Close()
	r.must("PUT", "/v1/queues/q", `{}`)
	publish(1)
	r.must("POST", "/v1/queues/q/purge", "")
}

// connectAndClose opens and closes a connection. Queues of other connections must not be removed
// with it.
func (r *rig) connectAndClose(user string) (bool, error) {
	c, err := r.connect(r.amqp, user, user)
	if err != nil {
		return false, err
	}
	return true, c.Close()
}
