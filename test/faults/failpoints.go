//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/failpoint"
	"github.com/surgetank/surgetank/test/kit/server"
)

// failpointServer builds a server that can end at named points of its code, with a log of small
// files. It returns the names of the points.
func (r *run) failpointServer(ctx context.Context) (names []string, err error) {
	binary, err := r.variant(ctx, "failpoints", slices.Concat(failpoint.Edits(), smallLog))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(os.Environ(), "SURGETANK_FAILPOINT=list")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the points: %w", err)
	}
	r.server.Binary = binary
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

// reachPoint starts the server with an armed point and lets it end there: during the start, under
// load, or during a requested stop. It reports whether the server ended there. The server is not
// restarted.
func (r *run) reachPoint(ctx context.Context, point string, n int, action string, within time.Duration) (bool, error) {
	r.server.Kill()
	r.server.Env = []string{fmt.Sprintf("SURGETANK_FAILPOINT=%s=%d=%s", point, n, action)}
	defer func() { r.server.Env = nil }()
	met := func() bool { return r.server.Code() != 0 } // the code is -1 after the kill, 2 after the panic
	switch err := r.server.Start(ctx); {
	case errors.Is(err, server.ErrNotReady):
		if !met() {
			return false, fmt.Errorf("the server ended with exit code 0 before it was ready, with the point %q armed", point)
		}
		r.inject(action + " at " + point)
		return true, nil
	case err != nil:
		return false, err
	}
	limit, cancel := context.WithTimeout(ctx, within)
	_, err := r.server.Wait(limit)
	cancel()
	if err != nil { // the server is alive: the point may be passed during a stop
		r.server.Signal(syscall.SIGTERM)
		if _, err := r.server.Wait(ctx); err != nil {
			return false, err
		}
	}
	if !met() {
		return false, nil
	}
	r.inject(action + " at " + point)
	return true, nil
}

// points ends the server at each point in turn, on one data directory. After each end the next
// start recovers with the next point armed, and sometimes with none. Points of a new log are
// reached in separate directories.
func (r *run) points(ctx context.Context, names []string, within time.Duration) error {
	reached := map[string]int{}
	rounds := r.times(1, 20)
	for round := range rounds {
		for k, point := range names {
			action := []string{"kill", "panic"}[(k+round)%2]
			n := 1
			if ofTail(point) { // this kill leaves a written but unmarked end of the log
				if _, err := r.reachPoint(ctx, "log: a batch is synced", 5+r.rng.IntN(20), "kill", within); err != nil {
					return err
				}
			}
			if often(point) && round%2 == 0 {
				n = 1 + r.rng.IntN(40)
			}
			met, err := r.reachPoint(ctx, point, n, action, within)
			if err == nil && !met && n > 1 {
				met, err = r.reachPoint(ctx, point, 1, action, within)
			}
			if err != nil {
				return err
			}
			if met {
				reached[point]++
			}
			if k%3 != 2 {
				continue
			}
			if err := r.server.Start(ctx); err != nil {
				return fmt.Errorf("starting after the server ended at %q: %w: %s", point, err, r.server.Tail(500))
			}
			if !r.progress(ctx, 10, 10*time.Second) {
				r.fail("progress", "nothing was confirmed for 10 s after the server ended at %q", point)
			}
		}
	}
	var missed []string
	for _, point := range names {
		if reached[point] == 0 {
			missed = append(missed, point)
		}
	}
	r.note("%d of %d points were reached", len(reached), len(names))
	if len(missed) > 0 {
		r.note("not reached: %s", strings.Join(missed, "; "))
	}
	if len(missed) > len(names)/10 {
		r.fail("points", "%d of %d points were not reached", len(missed), len(names))
	}
	if !r.server.Alive() {
		return r.server.Start(ctx)
	}
	return nil
}

// often reports whether a point is passed many times a second.
func often(point string) bool {
	return strings.HasPrefix(point, "turn:") || strings.HasPrefix(point, "log: a batch") || strings.HasPrefix(point, "log: a mark")
}

func ofSinks(point string) bool { return strings.HasPrefix(point, "sink:") }

func ofNewLog(point string) bool {
	return strings.Contains(point, "a new log") || strings.HasPrefix(point, "reserve:")
}

// ofTail reports whether a start passes a point only if the log's end was written but not marked as
// synced.
func ofTail(point string) bool {
	return strings.HasPrefix(point, "open: the") && (strings.Contains(point, "tail") || strings.Contains(point, "cut"))
}

// endAtPoints ends the server at the points of the log, the broker and the stop.
func endAtPoints(ctx context.Context, r *run) error {
	names, err := r.failpointServer(ctx)
	if err != nil {
		return err
	}
	for _, point := range names {
		if ofNewLog(point) {
			if err := r.endAtCreation(ctx, point); err != nil {
				return err
			}
		}
	}
	var chosen []string
	for _, point := range names {
		if !ofSinks(point) && !ofNewLog(point) {
			chosen = append(chosen, point)
		}
	}
	if err := r.begin(ctx, loadOptions{size: 24000, pause: 3 * time.Millisecond, publishers: 2, consumers: 6, amqp: 2}); err != nil {
		return err
	}
	if err := r.points(ctx, chosen, 1500*time.Millisecond); err != nil {
		return err
	}
	return r.end(ctx)
}

// endAtCreation ends the server while it creates its log. The next start must find no log or a
// complete one.
func (r *run) endAtCreation(ctx context.Context, point string) error {
	data := r.server.Data
	r.server.Data = filepath.Join(r.dir, "new-"+strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' {
			return c
		}
		return '-'
	}, point))
	defer func() { r.server.Data = data }()
	met, err := r.reachPoint(ctx, point, 1, "kill", time.Second)
	if err != nil {
		return err
	}
	if !met {
		r.fail("points", "the point %q was not reached by a new log", point)
	}
	if err := r.server.Start(ctx); err != nil {
		r.fail("starts", "after the server ended at %q the log could not be opened: %s", point, oneLine(r.server.Tail(400)))
	}
	r.server.Kill()
	return nil
}

// endSinkAtPoints ends the server at the points of sinks. Each row must be written once, whichever
// step the process ended after.
func endSinkAtPoints(ctx context.Context, r *run) error {
	names, err := r.failpointServer(ctx)
	if err != nil {
		return err
	}
	var chosen []string
	for _, point := range names {
		if ofSinks(point) {
			chosen = append(chosen, point)
		}
	}
	return r.withRows(ctx, func() error { return r.points(ctx, chosen, 3*time.Second) })
}
