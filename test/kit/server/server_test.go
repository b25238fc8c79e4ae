//go:build linux

package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// script acts like `surgetank serve`. MODE selects the way in which the process ends.
const script = `#!/bin/sh
ready='{"ready":true,"http":"http://127.0.0.1:1","amqp":"amqp://127.0.0.1:2","pid":'$$'}'
case $MODE in
early) echo no room >&2; exit 3;;
alone) echo "$ready"; exit 4;;
esac
trap 'kill $!; exit 0' TERM
sleep 600 >/dev/null &
echo "$ready"
wait
`

// lives records what a watcher is told.
type lives []string

func (l *lives) Up(time.Time) { *l = append(*l, "up") }
func (l *lives) Down(killed time.Time, err error) {
	*l = append(*l, fmt.Sprintf("down, killed %v: %v", !killed.IsZero(), err))
}

func TestLives(t *testing.T) {
	dir := t.TempDir()
	s := &Server{Binary: filepath.Join(dir, "surgetank"), Log: filepath.Join(dir, "log"), Data: dir}
	if err := os.WriteFile(s.Binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode string
		end  func()
		code int
		want lives
	}{
		{"", s.Kill, -1, lives{"up", "down, killed true: signal: killed"}},
		{"", func() {
			if err := s.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}, 0, lives{"up", "down, killed true: <nil>"}},
		{"alone", func() { _, _ = s.Wait(t.Context()) }, 4, lives{"up", "down, killed false: exit status 4"}},
		{"early", nil, 3, lives{"down, killed false: exit status 3"}},
	} {
		var got lives
		s.Watcher, s.Env = &got, []string{"MODE=" + c.mode}
		s.Wrap = func(argv []string) []string { return append([]string{"sh"}, argv...) }
		s.Listen("", AnyPort)
		err := s.Start(t.Context())
		if (c.end == nil) != errors.Is(err, ErrNotReady) {
			t.Fatalf("%s: %v", c.mode, err)
		}
		if c.end != nil {
			if s.URL() != "http://127.0.0.1:1" || s.AMQP() != "127.0.0.1:2" || s.PID() == 0 {
				t.Errorf("%s: %s %s %d", c.mode, s.URL(), s.AMQP(), s.PID())
			}
			c.end()
		}
		if s.Alive() || s.Code() != c.code || !slices.Equal(got, c.want) || s.Wrap != nil {
			t.Errorf("%q: alive %v, exit code %d, %q; want %d, %q", c.mode, s.Alive(), s.Code(), got, c.code, c.want)
		}
	}
	if words := s.Tail(8); !strings.HasSuffix(words, "room\n") || len(words) != 8 {
		t.Errorf("the log ends with %q", words)
	}
}

// TestNeverReady: a start that does not get ready in time leaves no process behind.
func TestNeverReady(t *testing.T) {
	dir := t.TempDir()
	s := &Server{Binary: "sleep", Log: filepath.Join(dir, "log"), Data: dir, Wrap: func([]string) []string { return []string{"sh", "-c", "sleep 600; true"} }}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Start(ctx); !errors.Is(err, context.DeadlineExceeded) || s.Alive() {
		t.Errorf("%v, alive %v", err, s.Alive())
	}
}
