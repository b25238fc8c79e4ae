package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"runtime"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
)

// failing is a slog handler that calls fail in every method.
type failing struct{ fail func() }

func (f failing) Enabled(context.Context, slog.Level) bool  { return true }
func (f failing) Handle(context.Context, slog.Record) error { f.fail(); return nil }
func (f failing) WithAttrs([]slog.Attr) slog.Handler        { f.fail(); return f }
func (f failing) WithGroup(string) slog.Handler             { f.fail(); return f }

// A logger and a callback fail together. The broker continues and counts the failures. Stored
// messages are there after reopening.
func TestFunctionsThatFail(t *testing.T) {
	for name, fail := range map[string]func(){"panics": func() { panic("a careless function") }, "ends its goroutine": runtime.Goexit} {
		dir := t.TempDir()
		logger := slog.New(failing{fail})
		for round := range int64(3) {
			b, err := embedded.Open(dir, embedded.Options{Logger: logger})
			if err != nil {
				t.Fatal(name, err)
			}
			if _, _, err := b.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
				t.Fatal(name, err)
			}
			const each = 20
			for range each {
				if err := b.PublishAsync(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("x")}}},
					func([]surgetank.PublishResult, error) { fail() }); err != nil {
					t.Fatal(name, err)
				}
			}
			if i, err := b.Queue(t.Context(), "q"); err != nil || i.Ready != each*(round+1) {
				t.Fatalf("%s: %d messages, %v", name, i.Ready, err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(name, err)
			}
			if n := b.Health().CallbackFailures; n != each {
				t.Errorf("%s: %d failures were counted, want %d", name, n, each)
			}
		}
	}
}

// No method of a broker that Open did not make panics, with zero values as arguments. Each error
// has CodeClosed or CodeInvalid.
func TestEveryMethodOfNoBroker(t *testing.T) {
	for name, b := range map[string]*embedded.Broker{"nil": nil, "zero": {}} {
		v := reflect.ValueOf(b)
		for i := range v.NumMethod() {
			method := v.Type().Method(i).Name
			var in []reflect.Value
			for k := range v.Method(i).Type().NumIn() - min(1, btoi(v.Method(i).Type().IsVariadic())) {
				in = append(in, reflect.Zero(v.Method(i).Type().In(k)))
			}
			out := v.Method(i).Call(in)
			last := out[len(out)-1].Interface()
			if err, is := last.(error); is && method != "Close" && surgetank.CodeOf(err) != surgetank.CodeClosed && surgetank.CodeOf(err) != surgetank.CodeInvalid {
				t.Errorf("%s %s: %v", name, method, err)
			}
		}
		if h := b.Health(); surgetank.CodeOf(h.Err) != surgetank.CodeClosed {
			t.Errorf("%s: %+v", name, h)
		}
		<-b.Done()
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A zero Broker behaves like a closed one.
func TestZeroBroker(t *testing.T) {
	ctx := t.Context()
	var b embedded.Broker
	x := []surgetank.Publishing{{Queues: []string{"q"}}}
	errs := map[string]error{
		"PublishAsync": b.PublishAsync(ctx, x, func([]surgetank.PublishResult, error) {}),
		"SettleAsync":  b.SettleAsync(ctx, nil, nil),
		"PauseQueue":   b.PauseQueue(ctx, "q", 0),
		"ResumeQueue":  b.ResumeQueue(ctx, "q"),
	}
	_, errs["Publish"] = b.Publish(ctx, x)
	_, errs["Settle"] = b.Settle(ctx, nil)
	_, errs["Transact"] = b.Transact(ctx, x, nil)
	_, errs["Subscribe"] = b.Subscribe(ctx, "q", surgetank.SubscribeOptions{})
	_, errs["Receive"] = b.Receive(ctx, "q", surgetank.ReceiveOptions{})
	_, errs["Peek"] = b.Peek(ctx, "q", surgetank.PeekOptions{})
	_, _, errs["DeclareQueue"] = b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew)
	_, errs["DeleteQueue"] = b.DeleteQueue(ctx, "q", surgetank.DeleteOptions{})
	_, errs["PurgeQueue"] = b.PurgeQueue(ctx, "q")
	_, errs["DropDamaged"] = b.DropDamaged(ctx, "q")
	_, errs["Redrive"] = b.Redrive(ctx, "q", surgetank.RedriveOptions{})
	_, errs["Queue"] = b.Queue(ctx, "q")
	_, errs["Queues"] = b.Queues(ctx)
	for name, err := range errs {
		if !errors.Is(err, surgetank.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := embedded.Memory(embedded.Options{MaxMessage: -1}); !errors.Is(err, surgetank.ErrInvalid) {
		t.Error(err)
	}
	for _, o := range []embedded.Options{{MaxQueues: -1}, {CacheBytes: -1}, {SegmentBytes: -1}, {SnapshotBytes: -1}, {ScrubRate: -1}, {ScrubEvery: -1}} {
		b, err := embedded.Open(t.TempDir(), o)
		if err != nil {
			if surgetank.CodeOf(err) != surgetank.CodeInvalid {
				t.Errorf("%+v: %v", o, err)
			}
			continue
		}
		if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); surgetank.CodeOf(err) == surgetank.CodeInternal {
			t.Errorf("%+v: %v", o, err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
