package policy

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// pair returns two Brokers over one plain broker, each with its own Store.
func pair(t *testing.T) (list [2]*rig) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	for i := range list {
		list[i] = &rig{t: t, raw: &flaky{Broker: doortest.Of(t, b)}}
		list[i].reopen()
		list[i].ok(list[i].TypesKnown(t.Context()))
	}
	return list
}

// await waits until the Broker obeys a change of another one.
func (r *rig) await(done func() bool) {
	r.t.Helper()
	changed := make(chan struct{}, 1)
	defer r.Watch(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	for !done() {
		select {
		case <-changed:
		case <-time.After(time.Minute):
			r.t.Fatal("the change of the other broker did not arrive")
		}
	}
}

// TestTwoBrokers: a policy that is put through one Broker is in force in the other, for queues of
// both.
func TestTwoBrokers(t *testing.T) {
	list := pair(t)
	one, two := list[0], list[1]
	one.declare("a", surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareNew)
	one.put("/", "short", ".*", 0, `{"ttl": "1s"}`)
	two.await(func() bool { return len(two.Policies("/")) == 1 })
	two.declare("b", surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareNew)
	for _, r := range list {
		r.records.Refresh()
		r.wants("a", time.Second, time.Hour, "short")
		r.wants("b", time.Second, time.Hour, "short")
	}
	two.declare("a", surgetank.QueueConfig{TTL: time.Minute}, surgetank.DeclareUpdate)
	one.records.Refresh()
	one.wants("a", time.Second, time.Minute, "short")
	one.ok(two.DeletePolicy(t.Context(), "/", "short"))
	one.await(func() bool { return len(one.Policies("/")) == 0 })
	for _, r := range list {
		r.records.Refresh()
		r.wants("a", time.Minute, time.Minute, "")
		r.wants("b", time.Hour, time.Hour, "")
	}
}

// TestBrokersAtOnce: while one Broker puts and deletes a policy, the other one declares queues
// again and again. No declaration and no policy is lost.
func TestBrokersAtOnce(t *testing.T) {
	list := pair(t)
	one, two := list[0], list[1]
	const rounds, queues = 60, 3
	name := func(i int) string { return fmt.Sprint("q", i) }
	for i := range queues {
		one.declare(name(i), surgetank.QueueConfig{TTL: time.Hour}, surgetank.DeclareNew)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range rounds {
			if _, err := one.PutPolicy(t.Context(), Policy{Vhost: "/", Name: "short", Pattern: ".*", Settings: tree(t, `{"ttl": "1s"}`)}); err != nil {
				t.Error(err)
			}
			if n < rounds-1 {
				if err := one.DeletePolicy(t.Context(), "/", "short"); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Go(func() {
		for n := range rounds {
			for i := range queues {
				c := surgetank.QueueConfig{TTL: time.Duration(n+1) * time.Minute}
				if _, _, err := two.DeclareQueue(t.Context(), name(i), c, surgetank.DeclareOrUpdate); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	one.await(func() bool { return one.settled() })
	two.await(func() bool { return two.settled() })
	for _, r := range list {
		r.records.Refresh()
		for i := range queues {
			r.wants(name(i), time.Second, rounds*time.Minute, "short")
		}
	}
}

// settled reports whether the Broker has applied all policies that it knows.
func (r *rig) settled() bool {
	r.records.Refresh()
	r.change.Lock()
	defer r.change.Unlock()
	return r.applied == r.all.Load().version
}
