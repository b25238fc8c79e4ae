package broker

import (
	"context"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// openInPages opens a broker with a queue of n messages. Commands that search a whole queue visit
// 64 slots in a turn. driven is called while a call waits, before each run of the broker.
func openInPages(t *testing.T, n int, driven func(*byHand)) *byHand {
	t.Helper()
	h := &byHand{t: t, clock: clock.NewManual(start)}
	o := h.options(memlog.NewStore(), false)
	o.Limits.TurnScan = 64
	h.stepping.Drive = func() {
		driven(h)
		h.Tick()
		h.log.Pump()
	}
	if err := h.open(o); err != nil {
		t.Fatal(err)
	}
	h.send(&queue.Declare{Name: "q"})
	for range n {
		h.publish(surgetank.Message{Body: []byte("m")})
	}
	return h
}

// TestOthersAreServedBetweenPages: commands of other callers are done while a call still reads a
// whole queue.
func TestOthersAreServedBetweenPages(t *testing.T) {
	const n = 640
	calls := map[string]func(*byHand) (int, error){
		"peek": func(h *byHand) (int, error) {
			ds, err := h.Peek(t.Context(), "q", surgetank.PeekOptions{State: surgetank.StateLeased})
			return len(ds), err
		},
		"purge": func(h *byHand) (int, error) {
			purged, err := h.PurgeQueue(t.Context(), "q")
			return int(purged) - n, err
		},
		"drop damaged": func(h *byHand) (int, error) {
			dropped, err := h.DropDamaged(t.Context(), "q")
			return int(dropped), err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			begun, served := false, 0
			h := openInPages(t, n, func(h *byHand) {
				if !begun {
					return
				}
				p := surgetank.Publishing{Queues: []string{"q"}}
				c := &queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
				if err := h.Send(c, func(error) { served++ }); err != nil {
					t.Error(err)
				}
			})
			begun = true
			if got, err := call(h); got != 0 || err != nil {
				t.Errorf("%d, %v", got, err)
			}
			if served < n/64-2 {
				t.Errorf("%d messages were confirmed between the turns of %s; it has at least %d", served, name, n/64)
			}
		})
	}
}

// TestACancelledScanEnds: a call that searches for a missing message ends when its context ends,
// not at the end of the queue.
func TestACancelledScanEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	turns := 0
	h := openInPages(t, 6400, func(*byHand) {
		if turns++; turns == 3 {
			cancel()
		}
	})
	turns = 0
	_, err := h.Peek(ctx, "q", surgetank.PeekOptions{State: surgetank.StateLeased})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("the call ended with %v", err)
	}
	if turns > 4 {
		t.Errorf("the scan went on for %d turns", turns)
	}
}
