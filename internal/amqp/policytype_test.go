package amqp

import (
	"context"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/policy"
)

// TestPoliciesByType: a policy for one type of queue does not change other types. The order of
// policy and queue does not matter, and a restart changes nothing.
func TestPoliciesByType(t *testing.T) {
	bn := start(t, Limits{})
	ctx := context.Background()
	put := func(name string, to policy.Target, priority, ttl int) {
		t.Helper()
		_, err := bn.server.policies.PutPolicy(ctx, policy.Policy{Vhost: "/", Name: name, Pattern: ".*", ApplyTo: to, Priority: priority,
			Settings: map[string]any{"message-ttl": ttl, "expires": 1000 * ttl}})
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(want map[string]int) {
		t.Helper()
		for name, ttl := range want {
			info, err := bn.server.broker.Queue(ctx, name)
			if err != nil || info.Config.TTL != time.Duration(ttl)*time.Millisecond {
				t.Errorf("%s: ttl %v, %v; want %d ms", name, info.Config.TTL, err, ttl)
			}
			if q := bn.server.vhosts.Vhost("/").Known(name); q == nil || q.Attrs().Expires != time.Duration(ttl)*time.Second {
				t.Errorf("%s: the door knows it as %+v; want expires %d s", name, q, ttl)
			}
		}
	}
	quorum := amqp091.Table{"x-queue-type": "quorum"}
	c := bn.dial()
	c.queue("quorum before", quorum)
	c.queue("classic before", nil)
	put("streams", policy.Streams, 9, 9000)
	put("quorum", policy.QuorumQueues, 5, 5000)
	put("classic", policy.ClassicQueues, 6, 6000)
	put("all", policy.Queues, 1, 1000)
	c.queue("quorum after", quorum)
	c.queue("classic after", amqp091.Table{"x-queue-type": "classic"})
	if _, _, err := bn.server.broker.DeclareQueue(ctx, "other door", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	bn.server.vhosts.Vhost("/").Find("other door")
	want := map[string]int{"quorum before": 5000, "quorum after": 5000, "classic before": 6000, "classic after": 6000, "other door": 6000}
	check(want)
	bn.serveAgain()
	check(want)
	c = bn.dial()
	// A new queue with an old name can have another type.
	c.ok(c.Confirm(false))
	if _, err := c.QueueDelete("quorum after", false, false, false); err != nil {
		t.Fatal(err)
	}
	c.queue("quorum after", nil)
	if err := bn.server.policies.DeletePolicy(ctx, "/", "quorum"); err != nil {
		t.Fatal(err)
	}
	check(map[string]int{"quorum before": 1000, "quorum after": 6000, "classic before": 6000, "classic after": 6000, "other door": 6000})
}
