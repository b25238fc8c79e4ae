package topology

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// openPair opens two Registries over one broker, each with its own users and policies.
func openPair(t *testing.T) (list [2]*Registry) {
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var works sync.WaitGroup
	t.Cleanup(func() {
		stop()
		works.Wait()
		b.Close()
	})
	for i := range list {
		users, err := auth.Open(ctx, doortest.Of(t, b))
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Open(ctx, doortest.Of(t, b), users, nil)
		if err != nil {
			t.Fatal(err)
		}
		list[i], err = Open(ctx, &Env{Broker: p, Policies: p, Auth: users, Log: slog.New(slog.DiscardHandler), Clock: clock.Real{},
			Context: ctx, Background: works.Go, MaxExchanges: 1000, MaxBindings: 1000})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func anyone(string) error                 { return nil }
func anyQueue(translate.QueueAttrs) error { return nil }

func (vh *Vhost) routed(x, key string) []string {
	e := vh.Exchange(x)
	if e == nil {
		return []string{"no exchange"}
	}
	q := vh.Route(e, []string{key}, nil).Queues
	slices.Sort(q)
	return q
}

// TestTwoRegistries: exchanges, queues and bindings that are made through one Registry route in the
// other one, and are gone there when they are deleted.
func TestTwoRegistries(t *testing.T) {
	list := openPair(t)
	one, two := list[0].Vhost("/"), list[1].Vhost("/")
	sees := func(key, want string) {
		t.Helper()
		for i, vh := range []*Vhost{one, two} {
			list[i].records.Refresh()
			if got := fmt.Sprint(vh.routed("x", key)); got != want {
				t.Errorf("registry %d routes %s to %s, want %s", i+1, key, got, want)
			}
		}
	}
	before := two.Version()
	ok(t, one.DeclareExchange("x", &wire.ExchangeDeclare{Type: "direct", Durable: true}, anyone))
	_, err := one.DeclareQueue("q", translate.QueueAttrs{Durable: true}, nil, anyQueue)
	ok(t, err)
	ok(t, one.BindQueue("x", "q", nil, "k", nil))
	sees("k", "[q]")
	if two.Version() == before {
		t.Error("the route caches of the other registry stay valid")
	}
	// The other Registry uses the exchange and the queue as its own.
	ok(t, two.DeclareExchange("x", &wire.ExchangeDeclare{Type: "direct", Durable: true}, anyone))
	if err := two.DeclareExchange("x", &wire.ExchangeDeclare{Type: "fanout", Durable: true}, anyone); err == nil {
		t.Error("an exchange was declared with another type")
	}
	ok(t, two.BindQueue("x", "q", nil, "other", nil))
	sees("other", "[q]")
	two.UnbindQueue("x", "q", "k", nil)
	sees("k", "[]")
	ok(t, one.DeleteExchange("x", false))
	sees("other", "[no exchange]")
	ok(t, two.DeclareExchange("x", &wire.ExchangeDeclare{Type: "fanout", Durable: true}, anyone))
	sees("other", "[]")

	// A virtual host of the other one, with records from before the Registry knew it.
	_, err = list[0].Auth.PutVhost(t.Context(), "v", "")
	ok(t, err)
	ok(t, list[0].Vhost("v").DeclareExchange("late", &wire.ExchangeDeclare{Type: "direct", Durable: true}, anyone))
	changed := list[1].Auth.Changed()
	for !list[1].Auth.VhostExists("v") {
		<-changed
		changed = list[1].Auth.Changed()
	}
	list[1].records.Refresh()
	if list[1].Vhost("v").Exchange("late") == nil {
		t.Error("an exchange of a new virtual host is missing")
	}
}

// TestRegistriesAtOnce: two Registries declare the same exchanges with different types, and bind
// queues of their own to them. Each exchange has one type for both, and every binding routes in
// both.
func TestRegistriesAtOnce(t *testing.T) {
	list := openPair(t)
	const exchanges, bindings = 20, 3
	won := [2][exchanges]bool{}
	var wg sync.WaitGroup
	for i, r := range list {
		wg.Go(func() {
			vh := r.Vhost("/")
			for n := range exchanges {
				name := fmt.Sprint("x", n)
				kind := []string{"direct", "fanout"}[i]
				won[i][n] = vh.DeclareExchange(name, &wire.ExchangeDeclare{Type: kind, Durable: true}, anyone) == nil
				for k := range bindings {
					q := fmt.Sprintf("q%d-%d", i, k)
					if _, err := vh.DeclareQueue(q, translate.QueueAttrs{Durable: true}, nil, anyQueue); err != nil {
						t.Error(err)
					}
					if err := vh.BindQueue(name, q, nil, "k", nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for n := range exchanges {
		name := fmt.Sprint("x", n)
		if won[0][n] == won[1][n] {
			t.Errorf("exchange %s: declared by the first %v, by the second %v", name, won[0][n], won[1][n])
		}
		for i, r := range list {
			r.records.Refresh()
			vh := r.Vhost("/")
			if got := vh.routed(name, "k"); len(got) != 2*bindings || vh.Exchange(name).kind != list[0].Vhost("/").Exchange(name).kind {
				t.Errorf("registry %d: exchange %s routes to %v", i+1, name, got)
			}
		}
	}
}
