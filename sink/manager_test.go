package sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/sinktest"
)

// world is a broker, a database and the factories over it.
type world struct {
	b        *doortest.Broker
	db       *sinktest.Memory
	checkErr error
	mu       sync.Mutex
	made     int
}

type checked struct {
	sink.Target
	w *world
}

func (c checked) Check(context.Context) error { return c.w.checkErr }

func (w *world) factories() map[string]sink.Factory {
	make := func(s sink.Spec) (sink.Target, error) {
		w.mu.Lock()
		w.made++
		w.mu.Unlock()
		t, err := w.db.Target(s)
		return checked{t, w}, err
	}
	return map[string]sink.Factory{"sqlite": make, "postgres": make}
}

func (w *world) open(t *testing.T) *sink.Manager {
	t.Helper()
	m, err := sink.NewManager(context.Background(), w.b, w.factories(), sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const memorySpec = `{"queue":"q","sqlite":{"path":"x.db","table":"t","columns":{"id":"message.id","grp":"message.group","v":"$.v"}}}`

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{b: doortest.NewBroker("q"), db: sinktest.NewMemory(1)}
		defer w.b.Close()
		f(t, w)
	})
}

func info(t *testing.T, m *sink.Manager) sink.Info {
	t.Helper()
	synctest.Wait()
	i, err := m.Info(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestManagerLife(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		m := w.open(t)
		rows := func(want int) {
			t.Helper()
			synctest.Wait()
			if err := w.b.Drained(ctx); err != nil {
				t.Fatal(err)
			}
			if got, _ := w.db.Rows(); len(got) != want {
				t.Fatalf("%d rows, want %d", len(got), want)
			}
		}
		if _, created, err := m.Put(ctx, "s", json.RawMessage(memorySpec)); err != nil || !created {
			t.Fatal(created, err)
		}
		w.b.Add(surgetank.Message{Body: []byte(`{"v":1}`)})
		rows(1)
		if i := info(t, m); i.State != sink.StateRunning || i.Applied != 1 || i.Queue != "q" || i.Waiting != 0 {
			t.Errorf("info %+v", i)
		}

		// If the settings are equal, Put changes nothing and does not check the target.
		w.checkErr = errors.New("the target is down")
		made := w.made
		if _, created, err := m.Put(ctx, "s", json.RawMessage(memorySpec)); err != nil || created || w.made != made {
			t.Errorf("the same settings: created %v, %v, targets made %d", created, err, w.made-made)
		}
		// Different settings are refused while the target cannot be checked, and the sink goes on.
		other := strings.Replace(memorySpec, `"queue"`, `"lanes":3,"queue"`, 1)
		if _, _, err := m.Put(ctx, "s", json.RawMessage(other)); err == nil {
			t.Error("settings were stored without a look at the target")
		}
		w.checkErr = nil
		w.b.Add(surgetank.Message{Body: []byte(`{"v":2}`)})
		rows(2)
		if _, created, err := m.Put(ctx, "s", json.RawMessage(other)); err != nil || created {
			t.Error(created, err)
		}
		w.b.Add(surgetank.Message{Body: []byte(`{"v":3}`)})
		rows(3)

		if err := m.Pause(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		w.b.Add(surgetank.Message{Body: []byte(`{"v":4}`)})
		if i := info(t, m); i.State != sink.StatePaused || !i.Paused || i.Waiting != 1 {
			t.Errorf("paused: %+v", i)
		}
		// After a restart the sink is still paused and has its settings.
		if err := m.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(ctx, "s"); !errors.Is(err, surgetank.ErrClosed) {
			t.Errorf("pause after close: %v", err)
		}
		m = w.open(t)
		if i := info(t, m); i.State != sink.StatePaused || !strings.Contains(string(i.Spec), `"lanes":3`) {
			t.Errorf("after a restart: %+v", i)
		}
		if err := m.Resume(ctx, "s", ""); err != nil {
			t.Fatal(err)
		}
		rows(4)
		if err := m.Delete(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Info(ctx, "s"); !errors.Is(err, surgetank.ErrNotFound) {
			t.Errorf("a deleted sink: %v", err)
		}
		if list, err := m.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("list %s, %v", list, err)
		}
		if err := m.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestManagerRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		m := w.open(t)
		defer func() { _ = m.Close(ctx) }()
		for spec, field := range map[string]string{
			strings.Replace(memorySpec, `"q"`, `"nope"`, 1):          "queue",
			strings.Replace(memorySpec, `"v":`, `"v":"$.x","v":`, 1): "sqlite.columns.v",
			`{"queue":"q","webhook":{}}`:                             "webhook",
		} {
			_, _, err := m.Put(ctx, "s", json.RawMessage(spec))
			var e *surgetank.Error
			if !errors.As(err, &e) || e.Field != field {
				t.Errorf("%s: %v, want field %s", spec, err, field)
			}
		}
		if _, _, err := m.Put(ctx, "bad\nname", json.RawMessage(memorySpec)); !errors.Is(err, surgetank.ErrInvalid) {
			t.Errorf("a bad name: %v", err)
		}
		for _, err := range []error{m.Delete(ctx, "s"), m.Pause(ctx, "s"), m.Resume(ctx, "s", "")} {
			if !errors.Is(err, surgetank.ErrNotFound) {
				t.Errorf("a sink that is not there: %v", err)
			}
		}
	})
}

func TestManagerKeepsPasswords(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		m := w.open(t)
		defer func() { _ = m.Close(ctx) }()
		spec := strings.Replace(memorySpec, `"sqlite":{"path":"x.db"`, `"postgres":{"dsn":"postgres://u:hunter2@h/db"`, 1)
		shown, _, err := m.Put(ctx, "s", json.RawMessage(spec))
		if err != nil {
			t.Fatal(err)
		}
		list, err := m.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, out := range append(list, shown) {
			if strings.Contains(string(out), "hunter2") || !strings.Contains(string(out), "u:***@h") {
				t.Errorf("shown: %s", out)
			}
		}
		var got struct{ Spec json.RawMessage }
		if err := json.Unmarshal(shown, &got); err != nil {
			t.Fatal(err)
		}
		// If a user sends the displayed settings back, the password stays the same.
		if _, created, err := m.Put(ctx, "s", got.Spec); err != nil || created {
			t.Errorf("sent back: %v, %v", created, err)
		}
		if _, _, err := m.Put(ctx, "s", json.RawMessage(strings.Replace(string(got.Spec), "@h/", "@other/", 1))); err == nil {
			t.Error("*** was taken for a password")
		}
		meta, err := w.b.Meta(ctx, sink.Namespace)
		if err != nil || !strings.Contains(string(meta.Values["s"].Value), "hunter2") {
			t.Errorf("stored: %s, %v", meta.Values["s"].Value, err)
		}
	})
}

func TestManagerListsWhatItCannotRun(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		for name, value := range map[string]string{"s": `{"version":9,"instance":"x","spec":{}}`, "t": `{`} {
			if err := w.b.SetMeta(ctx, sink.Namespace, name, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		m := w.open(t)
		defer func() { _ = m.Close(ctx) }()
		if i := info(t, m); i.State != sink.StateRefused || !strings.Contains(i.Error, "version") {
			t.Errorf("info %+v", i)
		}
		if err := m.Resume(ctx, "s", ""); !errors.Is(err, surgetank.ErrInvalid) {
			t.Errorf("resume: %v", err)
		}
		if err := m.Delete(ctx, "s"); err != nil {
			t.Error(err)
		}
	})
}

// The path is stored as an absolute path when the sink is created. If the same settings are applied
// from another directory, the sink keeps its file.
func TestRelativePathIsStoredAbsolute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		for i, dir := range []string{"/first", "/second"} {
			m, err := sink.NewManager(ctx, w.b, w.factories(), sink.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			_, created, err := m.Put(ctx, "s", json.RawMessage(memorySpec))
			if err != nil || created != (i == 0) {
				t.Fatalf("created %v, %v", created, err)
			}
			if i := info(t, m); !strings.Contains(string(i.Spec), `"path":"/first/x.db"`) {
				t.Errorf("from %s: %s", dir, i.Spec)
			}
			if err := m.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestManagerSaysWhyAQueueWaits: a queue's status shows the state of its sink. Resume lets a sink
// that the brake stopped park again.
func TestManagerSaysWhyAQueueWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		m := w.open(t)
		defer func() { _ = m.Close(ctx) }()
		spec := strings.Replace(memorySpec, `"queue"`, `"brake":3,"queue"`, 1)
		if _, _, err := m.Put(ctx, "s", json.RawMessage(spec)); err != nil {
			t.Fatal(err)
		}
		for range 9 {
			w.b.Add(surgetank.Message{Body: []byte(`a;b;c`)})
		}
		pass(time.Minute)
		list := m.OnQueue("q")
		if len(list) != 1 || list[0].Name != "s" || list[0].State != sink.StateWaiting || !strings.Contains(list[0].Reason, "brake") {
			t.Errorf("sinks of the queue: %+v", list)
		}
		if list := m.OnQueue("other"); list != nil {
			t.Errorf("sinks of another queue: %+v", list)
		}
		if infos, err := m.Infos(ctx); err != nil || len(infos) != 1 || infos[0].HeldBack+int(infos[0].Parked) != 9 || infos[0].Parked > 3 {
			t.Errorf("%+v, %v", infos, err)
		}
		if err := m.Resume(ctx, "s", ""); err != nil {
			t.Fatal(err)
		}
		if err := w.b.Drained(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(w.b.Dead()); n != 9 {
			t.Errorf("%d parked after resume, want 9", n)
		}
	})
}

// hangs is a target whose checks and commits last until their context ends.
type hangs struct{ sink.Target }

func (hangs) Check(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (h hangs) Open(ctx context.Context, c sink.Claim) (sink.State, []sink.Lane, error) {
	state, lanes, err := h.Target.Open(ctx, c)
	for i := range lanes {
		lanes[i] = hangingLane{lanes[i]}
	}
	return state, lanes, err
}

type hangingLane struct{ sink.Lane }

func (hangingLane) Commit(ctx context.Context, _ sink.Progress) error { <-ctx.Done(); return ctx.Err() }

// TestManagerCloseIsTrue: with or without time, Close ends every sink and a change in progress. Its
// error names the sinks that were interrupted.
func TestManagerCloseIsTrue(t *testing.T) {
	for _, tc := range []struct {
		name          string
		time          time.Duration
		commits, cuts bool
	}{
		{"time enough", time.Minute, false, false},
		{"no time", 0, false, false}, // it is not known whether the sink is interrupted
		{"a commit that hangs", time.Minute, true, true},
		{"a commit that hangs, and no time", 0, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				hang := false
				m, err := sink.NewManager(context.Background(), w.b, map[string]sink.Factory{"sqlite": func(s sink.Spec) (sink.Target, error) {
					target, err := w.db.Target(s)
					if hang {
						return hangs{target}, err
					}
					if tc.commits {
						return checked{hangs{target}, w}, err
					}
					return target, err
				}}, sink.Options{CommitTimeout: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := m.Put(context.Background(), "s", json.RawMessage(memorySpec)); err != nil {
					t.Fatal(err)
				}
				w.b.Add(surgetank.Message{Body: []byte(`{"v":1}`)})
				hang = true
				change := make(chan error, 1)
				go func() {
					_, _, err := m.Put(context.Background(), "other", json.RawMessage(memorySpec))
					change <- err
				}()
				for range 10 { // until the sink has gathered its batch
					synctest.Wait()
					<-time.After(10 * time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(context.Background(), tc.time)
				defer cancel()
				err = m.Close(ctx)
				if tc.cuts && (surgetank.CodeOf(err) != surgetank.CodeUncertain || !strings.Contains(err.Error(), "sink s was interrupted")) || tc.time > 0 && !tc.cuts && err != nil {
					t.Errorf("Close: %v", err)
				}
				if i := info(t, m); i.State != sink.StatePaused { // a paused sink has no runner
					t.Errorf("the sink is %s", i.State)
				}
				select {
				case err := <-change:
					if err == nil {
						t.Error("an interrupted check succeeded")
					}
				default:
					t.Error("a change runs on after Close")
				}
				if err := m.Pause(context.Background(), "s"); !errors.Is(err, surgetank.ErrClosed) {
					t.Errorf("a change after Close: %v", err)
				}
				if err := m.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
