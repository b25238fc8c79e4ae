package sink_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// TestTwoManagers: a change of a sink through one Manager reaches the other over the same broker,
// and starts, changes and stops the sink there.
func TestTwoManagers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		one, two := w.open(t), w.open(t)
		defer func() { _, _ = one.Close(ctx), two.Close(ctx) }()
		put := func(m *sink.Manager, spec string) {
			t.Helper()
			if _, _, err := m.Put(ctx, "s", json.RawMessage(spec)); err != nil {
				t.Fatal(err)
			}
		}
		put(one, memorySpec)
		if err := one.Pause(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		if i := info(t, two); !i.Paused || i.State != sink.StatePaused {
			t.Errorf("in the other manager the sink is %+v", i)
		}
		put(two, strings.Replace(memorySpec, `"t"`, `"other"`, 1))
		if i := info(t, one); !strings.Contains(string(i.Spec), "other") || !i.Paused {
			t.Errorf("after a change through the other manager: %s, paused %v", i.Spec, i.Paused)
		}
		if err := two.Resume(ctx, "s", ""); err != nil {
			t.Fatal(err)
		}
		if i := info(t, one); i.Paused || i.State == sink.StatePaused {
			t.Errorf("in the other manager the resumed sink is %s", i.State)
		}
		if err := one.Delete(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := two.Info(ctx, "s"); surgetank.CodeOf(err) != surgetank.CodeNotFound {
			t.Errorf("the deleted sink: %v", err)
		}
	})
}

// TestManagersAtOnce: Managers change one sink at the same time. Each change keeps the changes of
// the other: a new instance or a lost choice would be a sink without its progress.
func TestManagersAtOnce(t *testing.T) {
	ctx := t.Context()
	b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	db := sinktest.NewMemory(1)
	factories := map[string]sink.Factory{"sqlite": func(s sink.Spec) (sink.Target, error) { return db.Target(s) }}
	var managers [2]*sink.Manager
	for i := range managers {
		if managers[i], err = sink.NewManager(ctx, b, factories, sink.Options{}); err != nil {
			t.Fatal(err)
		}
		defer managers[i].Close(ctx)
		if _, _, err := managers[i].Put(ctx, "s", json.RawMessage(memorySpec)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i, m := range managers {
		wg.Go(func() { // one sets the table, the other pauses and resumes
			for n := range 20 {
				if i == 0 {
					spec := strings.Replace(memorySpec, `"t"`, fmt.Sprintf(`"t%d"`, n), 1)
					if _, _, err := m.Put(ctx, "s", json.RawMessage(spec)); err != nil {
						t.Error(err)
					}
					continue
				}
				if err := m.Pause(ctx, "s"); err != nil {
					t.Error(err)
				}
				if n < 19 {
					if err := m.Resume(ctx, "s", ""); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, m := range managers {
		// A change without an effect waits until the manager follows the newest settings.
		if err := m.Pause(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		i, err := m.Info(ctx, "s")
		if err != nil || !strings.Contains(string(i.Spec), `"t19"`) || !i.Paused {
			t.Errorf("%s, paused %v, %v", i.Spec, i.Paused, err)
		}
	}
}
