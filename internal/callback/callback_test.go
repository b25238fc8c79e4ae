package callback

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestEachStepIsCalledOnceInOrder(t *testing.T) {
	for _, exits := range [][]int{nil, {0}, {4}, {0, 1, 2, 3, 4}, {2, 4}} {
		var got []int
		Each(5, func(i int) {
			got = append(got, i)
			if slices.Contains(exits, i) {
				runtime.Goexit()
			}
		})
		if !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("exits %v: %v", exits, got)
		}
	}
	Each(0, func(int) { t.Error("called") })
}

func TestFailuresAreLoggedAndCounted(t *testing.T) {
	var log bytes.Buffer
	c := &Calls{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if f := c.Do("F", func() {}); f != nil || c.Failures() != 0 {
		t.Fatal(f)
	}
	f := c.Do("F", func() { panic("boom") })
	if f == nil || f.Error() != "it panicked: boom" || c.Failures() != 1 || !strings.Contains(log.String(), "callback_test.go") || !strings.Contains(log.String(), "function=F") {
		t.Fatal(f, log.String())
	}
	for i, bad := range []func(){func() { panic(nil) }, func() { panic(fmt.Errorf("x")) }, runtime.Goexit, func() { var m map[string]int; m["a"] = 1 }} {
		if f := c.Apart("G", bad); f == nil || c.Failures() != int64(i+2) {
			t.Errorf("%d: %v", i, f)
		}
	}
}

// bad is a handler that fails in every method.
type bad struct{ fail func() }

func (b bad) Enabled(context.Context, slog.Level) bool  { b.fail(); return true }
func (b bad) Handle(context.Context, slog.Record) error { b.fail(); return nil }
func (b bad) WithAttrs([]slog.Attr) slog.Handler        { b.fail(); return b }
func (b bad) WithGroup(string) slog.Handler             { b.fail(); return b }

// later is a handler that fails only when a line is written.
type later struct{ bad }

func (later) Enabled(context.Context, slog.Level) bool { return true }

func TestLoggerThatFails(t *testing.T) {
	for _, fail := range []func(){func() { panic("boom") }, runtime.Goexit} {
		for _, h := range []slog.Handler{bad{fail}, later{bad{fail}}} {
			l := Logger(slog.New(h))
			l.Error("x")
			l.With("a", 1).WithGroup("g").Error("x")
			if Logger(l) != l {
				t.Error("a safe logger was wrapped again")
			}
		}
	}
	Logger(nil).Error("x")
	var out bytes.Buffer
	Logger(slog.New(slog.NewTextHandler(&out, nil))).With("a", 1).Info("fine")
	if !strings.Contains(out.String(), "fine a=1") {
		t.Error(out.String())
	}
}
