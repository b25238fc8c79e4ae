//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/faults/history"
)

// canTrace says whether strace can inject here.
var canTrace = sync.OnceValue(func() error {
	out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-qq", "-o", os.DevNull, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("needs strace and leave to trace (apt-get install strace): %w %s", err, out)
	}
	return nil
})

// The system calls that change or read the data directory. Sockets are written with write, so that a kill there falls between
// a sync and the answer that rests on it.
var (
	writeCalls = []string{"pwrite64", "pwritev", "fdatasync"}
	dirCalls   = []string{"fsync", "renameat", "unlinkat", "fallocate", "ftruncate"}
)

// inject makes the next start of the server one under strace, which injects at the n-th such call of a thread: Go moves
// its work between threads, so n is not exact, but each injection falls on a call of that kind. action is
// strace's: signal=SIGKILL, error=EIO, delay_enter=50000.
func (r *run) strace(call, action string, n int) (log string) {
	log = filepath.Join(r.dir, fmt.Sprintf("strace-%d", r.injected))
	when := ""
	if n > 0 {
		when = fmt.Sprintf(":when=%d", n)
	}
	r.server.wrap = func(argv []string) []string {
		return append([]string{"strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-y", "-o", log, "-e", "trace=" + call,
			"-e", "signal=none", "-e", "inject=" + call + ":" + action + when}, argv...)
	}
	return log
}

// injection reads a log of strace and gives the time of the first injected error, and on what; false when there was none.
func injection(log string) (at time.Time, on string, ok bool) {
	f, err := os.Open(log)
	if err != nil {
		return at, "", false
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if !strings.Contains(in.Text(), "(INJECTED)") {
			continue
		}
		fields := strings.Fields(in.Text()) // pid, seconds since 1970, the call
		if len(fields) < 3 {
			continue
		}
		secs, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			continue
		}
		return time.UnixMicro(int64(secs * 1e6)), strings.Join(fields[2:], " "), true
	}
	return at, "", false
}

// killAtCall kills the server as it enters the n-th call of each kind that matters, from its first moments on.
func killAtCall(ctx context.Context, r *run) error {
	calls := append(append([]string{"write"}, writeCalls...), dirCalls...)
	return r.sweep(ctx, calls, func() int { return 1 + r.rng.IntN(r.times(25, 400)) }, r.times(9, 500))
}

// sweep restarts the server so many times, each time to be killed at a call of one of these kinds.
func (r *run) sweep(ctx context.Context, calls []string, n func() int, times int) error {
	if err := r.begin(ctx, loadOptions{size: 6000}); err != nil {
		return err
	}
	missed := 0
	for k := range times {
		r.server.kill()
		call, nth := calls[k%len(calls)], n()
		if call == "renameat" || call == "unlinkat" || call == "ftruncate" || call == "fallocate" || call == "fsync" {
			nth = 1 + nth%3 // rare calls
		}
		r.strace(call, "signal=SIGKILL", nth)
		err := r.server.start(ctx)
		if err == nil { // it serves: the call comes under load, or not at all
			limit, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
			_, err = r.server.wait(limit)
			cancel()
			if err != nil {
				missed++
			} else {
				r.inject("kill at " + call + " " + strconv.Itoa(nth))
			}
		} else if errors.Is(err, errNotReady) {
			r.inject("kill at " + call + " " + strconv.Itoa(nth) + " while starting")
		} else {
			return err
		}
		r.server.kill()
		if err := r.server.start(ctx); err != nil {
			return fmt.Errorf("starting after a kill at %s %d: %w: %s", call, nth, err, r.server.words(500))
		}
		r.progress(ctx, 1, time.Second)
	}
	if missed > 0 {
		r.note("%d of %d kills found no such call within their time", missed, times)
	}
	return r.end(ctx)
}

// killRecovery kills the server under load, then its recovery, then the recovery from that, then lets it start.
func killRecovery(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{size: 3000}); err != nil {
		return err
	}
	calls := []string{"pread64", "pwrite64", "fdatasync", "openat", "fsync", "renameat", "fallocate", "unlinkat"}
	for range r.times(4, 100) {
		if err := r.sleep(ctx, r.between(50*time.Millisecond, 400*time.Millisecond)); err != nil {
			return err
		}
		r.server.kill()
		for range 2 {
			call := calls[r.rng.IntN(len(calls))]
			r.strace(call, "signal=SIGKILL", 1+r.rng.IntN(6))
			switch err := r.server.start(ctx); {
			case errors.Is(err, errNotReady):
				r.inject("kill at " + call + " in recovery")
			case err != nil:
				return err
			default: // it came through before its n-th call
				r.inject("kill after recovery")
				r.server.kill()
			}
		}
		if err := r.server.start(ctx); err != nil {
			return fmt.Errorf("starting after two recoveries that were killed: %w: %s", err, r.server.words(500))
		}
	}
	return r.end(ctx)
}

// failingCall makes one call fail with an error once, under load, and lets the next ones succeed: what a disk does that the
// kernel gave up on. The server must say no more yes after the error, and end with an exit code that is not 0.
func failingCall(calls []string, code string, fatal bool) func(ctx context.Context, r *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.server.start(ctx); err != nil {
			return err
		}
		if err := r.declare(ctx); err != nil {
			return err
		}
		r.server.kill()
		first := true
		missed := 0
		for k := range r.times(len(calls), 20*len(calls)) {
			call := calls[k%len(calls)]
			n := 2 + r.rng.IntN(25)
			if !fatal {
				n = 1 + r.rng.IntN(3)
			}
			log := r.strace(call, "error="+code, n)
			err := r.server.start(ctx)
			if first {
				first = false
				r.startLoad(ctx, loadOptions{size: 6000}, r.server.url)
			}
			if err != nil && !errors.Is(err, errNotReady) {
				return err
			}
			exit, ended := 0, false
			limit, cancel := context.WithTimeout(ctx, 2500*time.Millisecond)
			if exit, err = r.server.wait(limit); err == nil {
				ended = true
			}
			cancel()
			when, on, happened := injection(log)
			switch {
			case !happened:
				missed++
			default:
				r.inject(call + " " + code)
				r.mayNotConfirm(when, on, fatal && ended)
				if fatal && !ended {
					r.fail("went on", "%s failed and the server still served 2.5 s later", on)
				}
				if ended && exit == 0 {
					r.fail("exit", "the server ended with exit code 0 after %s", on)
				}
			}
			r.server.kill()
			if err := r.server.start(ctx); err != nil {
				return fmt.Errorf("starting after %s: %w: %s", on, err, r.server.words(500))
			}
			r.progress(ctx, 5, 2*time.Second)
			if k < r.times(len(calls), 20*len(calls))-1 {
				r.server.kill()
			}
		}
		if missed > 0 {
			r.note("%d calls did not come", missed)
		}
		return r.end(ctx)
	}
}

// mayNotConfirm looks for a publish or ack that began after the error and before the server's end, and was confirmed.
func (r *run) mayNotConfirm(when time.Time, on string, ended bool) {
	if !ended {
		return
	}
	from := r.journal.Wall(when) + 2*time.Millisecond
	until := history.Never
	ops := r.journal.Ops()
	for i := range ops {
		if op := &ops[i]; op.Kind == history.Down && op.Return >= from {
			until = min(until, op.Return)
		}
	}
	for i := range ops {
		op := &ops[i]
		if (op.Kind == history.Publish || op.Kind == history.Ack) && op.Outcome == history.OK && !op.Duplicate && op.Call > from && op.Return < until {
			r.fail("confirmed after the error", "%s of %s began %v after %s, and was confirmed", op.Kind, op.Value, op.Call-from, on)
			return
		}
	}
}

// slowDisk delays every sync. The server must go on, confirm at the disk's pace, and stay ready.
func slowDisk(ctx context.Context, r *run) error {
	r.strace("fdatasync", "delay_enter=40000", 0)
	if err := r.begin(ctx, loadOptions{}); err != nil {
		return err
	}
	r.inject("every fdatasync 40 ms slower")
	if !r.progress(ctx, int64(r.times(100, 2000)), 20*time.Second) {
		r.fail("progress", "with syncs of 40 ms only %d messages were confirmed in 20 s", r.load.confirmed.Load())
	}
	c := r.client()
	defer c.close()
	if !c.ready(ctx) {
		r.fail("ready", "a slow disk makes the server say that it is not ready")
	}
	return r.end(ctx)
}
