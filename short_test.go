package surgetank_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
)

func TestDeliveriesEnd(t *testing.T) {
	body := surgetank.Message{Body: []byte("{}")}
	subscribe := func(t *testing.T, ctx context.Context) (surgetank.Broker, surgetank.Subscription) {
		b := open("q", surgetank.QueueConfig{})
		t.Cleanup(func() { _ = b.Close() })
		if err := surgetank.SendAll(ctx, b, "q", body, body, body); err != nil {
			t.Fatal(err)
		}
		s, err := b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return b, s
	}

	t.Run("left", func(t *testing.T) { // deliveries that this loop did not reach stay in the subscription for a later loop
		_, s := subscribe(t, t.Context())
		seen := 0
		for range 3 {
			for d, err := range surgetank.Deliveries(t.Context(), s) {
				if seen++; err != nil || d.ID.Seq != uint64(seen) {
					t.Fatal(d.ID, err)
				}
				break
			}
		}
		if seen != 3 {
			t.Errorf("%d of 3 were seen", seen)
		}
	})
	for name, end := range map[string]func(b surgetank.Broker, s surgetank.Subscription, cancel func()) error{
		"context": func(_ surgetank.Broker, _ surgetank.Subscription, cancel func()) error { cancel(); return nil },
		"closed":  func(_ surgetank.Broker, s surgetank.Subscription, _ func()) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b, s := subscribe(t, ctx)
			for _, err := range surgetank.Deliveries(ctx, s) {
				if err != nil {
					t.Fatal(err)
				}
				if err := end(b, s, cancel); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Run("queue deleted", func(t *testing.T) {
		b, s := subscribe(t, t.Context())
		var last error
		deleted := false
		for _, err := range surgetank.Deliveries(t.Context(), s) {
			if last = err; err == nil && !deleted {
				deleted = true
				if _, err := b.DeleteQueue(t.Context(), "q", surgetank.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !errors.Is(last, surgetank.ErrNotFound) {
			t.Error(last)
		}
	})
}

// The error names the number of refused messages, the first of them and its cause. It keeps the
// code.
func TestOneError(t *testing.T) {
	b := open("q", surgetank.QueueConfig{MaxMessages: 1})
	defer b.Close()
	m := surgetank.Message{Body: []byte("{}")}
	err := surgetank.SendAll(t.Context(), b, "q", m, m, m)
	if surgetank.CodeOf(err) != surgetank.CodeFull || !strings.HasPrefix(err.Error(), "2 of 3 messages were refused; the first is number 2:") {
		t.Error(err)
	}
	if err := surgetank.SendAll(t.Context(), b, "q"); err != nil {
		t.Error("nothing sent:", err)
	}
	err = surgetank.AckAll(t.Context(), b, surgetank.Delivery{})
	if err == nil || strings.Contains(err.Error(), "of 1") {
		t.Error("one ack:", err)
	}
}
