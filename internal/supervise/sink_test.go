package supervise_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/supervise"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// The log fails at each append in turn while a sink writes. The sink begins a new session in the next
// opening, and writes each row once.
func TestSinkWritesOnceThroughEachFailure(t *testing.T) {
	const messages = 6
	for failAt := 4; ; failAt++ {
		used := false
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, supervise.Options{})
			defer r.s.Close()
			r.declare("q", surgetank.QueueConfig{DedupWindow: time.Hour})
			m := sinktest.NewMemory(1)
			spec := m.Spec()
			spec.Batch.Max = 2
			target, err := m.Target(spec)
			if err != nil {
				t.Fatal(err)
			}
			runner, err := sink.NewRunner(r.s, target, "s", strings.Repeat("a", 32), spec, sink.Options{})
			if err != nil {
				t.Fatal(err)
			}
			runner.Start()
			r.mu.Lock()
			r.failAt = failAt
			r.mu.Unlock()
			for n := 0; n < messages; {
				res, err := r.s.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"},
					Message: surgetank.Message{Body: fmt.Appendf(nil, `{"v":%d}`, n), DedupID: fmt.Sprint(n)}}})
				if err == nil && res[0].Err == nil {
					n++
				} else if err == nil || !surgetank.Passing(err) {
					t.Fatal(res, err)
				}
				<-time.After(20 * time.Millisecond) // of the bubble: the sink writes meanwhile
			}
			for tries := 0; ; tries++ {
				if info, err := r.s.Queue(t.Context(), "q"); err != nil {
					t.Fatal(err)
				} else if info.Ready+info.Leased+info.Blocked+info.Delayed == 0 {
					break
				}
				if tries > 10_000 {
					t.Fatalf("failAt %d: the sink does not go on: %+v", failAt, runner.Status())
				}
				<-time.After(time.Second)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := runner.Stop(ctx); err != nil {
				t.Error(err)
			}
			rows, err := m.Rows()
			if err != nil {
				t.Fatal(err)
			}
			seen := map[int64]bool{}
			for _, row := range rows {
				seen[row.V] = true
			}
			if len(rows) != messages || len(seen) != messages {
				t.Errorf("failAt %d: %d rows, %d different: %v", failAt, len(rows), len(seen), rows)
			}
			r.mu.Lock()
			used = r.openings > 1
			r.mu.Unlock()
		})
		if !used || t.Failed() {
			if failAt < 10 {
				t.Fatalf("only %d appends could fail", failAt)
			}
			return
		}
	}
}
