package brokertest_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/brokertest"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// mutants are brokers that each break one promise, and the test of the suite that must fail.
var mutants = map[string]func(surgetank.Broker) surgetank.Broker{
	"Dedup":             func(b surgetank.Broker) surgetank.Broker { return &forgetful{b} },
	"Order":             func(b surgetank.Broker) surgetank.Broker { return &shuffler{b} },
	"SettleResults":     func(b surgetank.Broker) surgetank.Broker { return &flatterer{b} },
	"PublishAndReceive": func(b surgetank.Broker) surgetank.Broker { return &trimmer{b} },
	"Transact":          func(b surgetank.Broker) surgetank.Broker { return &halfway{b} },
	"Conservation":      func(b surgetank.Broker) surgetank.Broker { return &doubler{b} },
	"Peek":              func(b surgetank.Broker) surgetank.Broker { return &taker{b} },
	"BackingOff":        func(b surgetank.Broker) surgetank.Broker { return &secretive{b} },
	"SubscribeCancel":   func(b surgetank.Broker) surgetank.Broker { return &closer{b} },
}

// forgetful drops dedup ids.
type forgetful struct{ surgetank.Broker }

func (b *forgetful) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	msgs = slices.Clone(msgs)
	for i := range msgs {
		msgs[i].Message.DedupID = ""
	}
	return b.Broker.Publish(ctx, msgs)
}

// shuffler delivers in the wrong order.
type shuffler struct{ surgetank.Broker }

func (b *shuffler) Receive(ctx context.Context, q string, o surgetank.ReceiveOptions) ([]surgetank.Delivery, error) {
	list, err := b.Broker.Receive(ctx, q, o)
	slices.Reverse(list)
	return list, err
}

// flatterer reports success for every settlement.
type flatterer struct{ surgetank.Broker }

func (b *flatterer) Settle(ctx context.Context, s []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	_, err := b.Broker.Settle(ctx, s)
	return make([]surgetank.SettleResult, len(s)), err
}

// trimmer changes bodies.
type trimmer struct{ surgetank.Broker }

func (b *trimmer) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	msgs = slices.Clone(msgs)
	for i := range msgs {
		msgs[i].Message.Body = []byte(strings.TrimSpace(string(msgs[i].Message.Body)))
	}
	return b.Broker.Publish(ctx, msgs)
}

// halfway settles although the publish is refused.
type halfway struct{ surgetank.Broker }

func (b *halfway) Transact(ctx context.Context, msgs []surgetank.Publishing, s []surgetank.Settlement) ([]surgetank.PublishResult, error) {
	if _, err := b.Settle(ctx, s); err != nil {
		return nil, err
	}
	return b.Broker.Transact(ctx, msgs, nil)
}

// doubler stores one batch twice.
type doubler struct{ surgetank.Broker }

func (b *doubler) Publish(ctx context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	if len(msgs) == 10 && string(msgs[0].Message.Body) == "100" && msgs[0].Message.Group == "g3" {
		if results, err := b.Broker.Publish(ctx, msgs); err != nil {
			return results, err
		}
	}
	return b.Broker.Publish(ctx, msgs)
}

// taker leases messages in a peek.
type taker struct{ surgetank.Broker }

func (b *taker) Peek(ctx context.Context, q string, o surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	if _, err := b.Receive(ctx, q, surgetank.ReceiveOptions{}); err != nil {
		return nil, err
	}
	return b.Broker.Peek(ctx, q, o)
}

// secretive does not say why a blocked message waits.
type secretive struct{ surgetank.Broker }

func (b *secretive) Peek(ctx context.Context, q string, o surgetank.PeekOptions) ([]surgetank.Delivery, error) {
	list, err := b.Broker.Peek(ctx, q, o)
	for i := range list {
		list[i].Waiting = ""
	}
	return list, err
}

// closer ends the leases of received messages when a consumer only cancels.
type closer struct{ surgetank.Broker }

type closingSubscription struct{ surgetank.Subscription }

func (s closingSubscription) Cancel() error { return s.Close() }

func (b *closer) Subscribe(ctx context.Context, q string, o surgetank.SubscribeOptions) (surgetank.Subscription, error) {
	s, err := b.Broker.Subscribe(ctx, q, o)
	return closingSubscription{s}, err
}

const mutantVariable = "SURGETANK_BROKERTEST_MUTANT"

// TestMutant runs the suite over one mutant. TestSuiteFindsMutants starts it; it is not run
// directly.
func TestMutant(t *testing.T) {
	wrap := mutants[os.Getenv(mutantVariable)]
	if wrap == nil {
		return
	}
	brokertest.Run(t, func(t *testing.T) surgetank.Broker {
		b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return wrap(b)
	})
}

// The suite must fail for every broker that breaks a promise.
func TestSuiteFindsMutants(t *testing.T) {
	for name := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMutant$/^"+name+"$", "-test.timeout=100s")
			cmd.Env = append(os.Environ(), mutantVariable+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestMutant/"+name) {
				t.Fatalf("the suite passes a broker that breaks it: %v\n%s", err, out)
			}
		})
	}
}
