package broker

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/memlog"
)

// TestACleanStopRemembersWhatWasHandedOut: after a clean stop, only messages that were handed out
// are marked as redelivered, with or without a Close of the consumer.
func TestACleanStopRemembersWhatWasHandedOut(t *testing.T) {
	for _, closes := range []bool{true, false} {
		store := memlog.NewStore()
		ctx := t.Context()
		open := func() *Broker {
			b, err := Open(Options{OpenLog: func(from commitlog.Offset, _ LogHooks) (commitlog.Replay, commitlog.Log, error) {
				return store.Open(memlog.Options{From: from})
			}})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		receive := func(b *Broker, n int) (surgetank.Subscription, string) {
			sub, err := b.Subscribe(ctx, "q", surgetank.SubscribeOptions{Credit: n})
			if err != nil {
				t.Fatal(err)
			}
			var got []surgetank.Delivery
			for len(got) < n {
				if got, err = sub.Receive(ctx, got, n, 1<<20); err != nil {
					t.Fatal(err)
				}
			}
			s := ""
			for i := range got {
				s += fmt.Sprintf("%s %t ", got[i].Body, got[i].Redelivered)
			}
			return sub, s
		}
		b := open()
		if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			if _, err := b.Publish(ctx, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte{byte('a' + i)}}}}); err != nil {
				t.Fatal(err)
			}
		}
		sub, _ := receive(b, 2)
		if closes {
			if err := sub.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // a second stop must keep the marks
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = open()
		}
		if _, got := receive(b, 4); got != "a true b true c false d false " {
			t.Errorf("subscription closed %t: %s", closes, got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
