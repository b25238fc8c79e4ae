package client_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/client"
	"github.com/surgetank/surgetank/internal/httpapi"
)

// After client and server are closed, no goroutine is left, even with open or cancelled
// subscriptions.
func TestNothingIsLeftRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("work", func(t *testing.T) {
		c := dial(t, serve(t, httpapi.Limits{}, nil).url, client.Options{})
		if _, _, err := c.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Publish(t.Context(), one("x", "")); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			s, err := c.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1})
			if err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				err = s.Cancel()
			} else if i == 2 {
				err = s.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	goleak.VerifyNone(t, before)
}
