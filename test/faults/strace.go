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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/server"
)

// canTrace returns an error if strace cannot inject faults here.
var canTrace = sync.OnceValue(func() error {
	out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-qq", "-o", os.DevNull, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("needs strace and leave to trace (apt-get install strace): %w %s", err, out)
	}
	return nil
})

func canTraceAndBuild() error { return errors.Join(canTrace(), canBuild()) }

// The system calls that change or read the data directory. Sockets use write too, so a kill at
// write can come between a sync and the answer that depends on it.
var (
	writeCalls = []string{"pwrite64", "pwritev", "fdatasync"}
	dirCalls   = []string{"fsync", "renameat", "unlinkat", "fallocate", "ftruncate"}
)

// strace makes the next start run under strace. strace injects a fault at the n-th call of this
// kind in a thread. If paths are given, only calls on them count. Go moves work between threads, so
// n is not exact, but each injection hits a call of that kind. action is in strace's syntax:
// signal=SIGKILL, error=EIO, delay_enter=50000.
func (r *run) strace(call, action string, n int, paths ...string) (log string) {
	log = filepath.Join(r.dir, fmt.Sprintf("strace-%d", r.traced))
	r.traced++
	when := ""
	if n > 0 {
		when = fmt.Sprintf(":when=%d", n)
	}
	r.server.Wrap = func(argv []string) []string {
		trace := []string{"strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-y", "-o", log, "-e", "trace=" + call,
			"-e", "signal=none", "-e", "inject=" + call + ":" + action + when}
		for _, path := range paths {
			trace = append(trace, "-P", path)
		}
		if len(paths) > 0 || n > 1 { // strace's filter in the kernel neither checks paths nor counts
			trace = slices.DeleteFunc(trace, func(a string) bool { return a == "--seccomp-bpf" })
		}
		return append(trace, argv...)
	}
	return log
}

// attach traces the running server and injects like strace, for calls that happen only under load.
// detach ends the tracing; a live server continues.
func (r *run) attach(call, action string, n int) (log string, detach func(), err error) {
	log = filepath.Join(r.dir, fmt.Sprintf("strace-%d", r.traced))
	r.traced++
	cmd := exec.Command("strace", "-f", "-qq", "-ttt", "-y", "-o", log, "-e", "trace="+call, "-e", "signal=none",
		"-e", fmt.Sprintf("inject=%s:%s:when=%d", call, action, n), "-p", strconv.Itoa(r.server.PID()))
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	return log, func() {
		_ = cmd.Process.Signal(os.Interrupt) // strace may have ended with the server
		_ = cmd.Wait()                       // the error of a process ended by a signal does not matter
	}, nil
}

// injection reads a log of strace. It returns the time and the file of the first injected error, or
// false if there was none.
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

// rare are the calls that happen only when segments are created, renamed and removed: at the start,
// and under load about once per few megabytes.
var rare = map[string]bool{"fsync": true, "renameat": true, "unlinkat": true, "fallocate": true, "ftruncate": true}

// killAtCall kills the server at the start of the n-th call of each important kind. Every second
// round counts calls from the start, the other rounds from some moment under load. The process ends
// between two steps, which a kill at a random time rarely hits.
func killAtCall(ctx context.Context, r *run) error {
	calls := append(append([]string{"write"}, writeCalls...), dirCalls...)
	r.server.Env = []string{"GOMAXPROCS=1"} // strace counts per thread, so few threads must make the calls
	if err := r.begin(ctx, loadOptions{size: 24000, pause: time.Millisecond, amqp: 2}); err != nil {
		return err
	}
	missed, times := 0, r.times(2*len(calls), 500)
	for k := range times {
		call := calls[k/2%len(calls)]
		n := 1 + r.rng.IntN(r.times(5, 200))
		if rare[call] {
			n = 1 + r.rng.IntN(2)
		}
		met, err := r.killOnce(ctx, call, n, k%2 == 0)
		if err != nil {
			return err
		}
		if !met {
			missed++
		}
		r.server.Kill()
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting after a kill at %s %d: %w: %s", call, n, err, r.server.Tail(500))
		}
		r.progress(ctx, 1, time.Second)
	}
	if missed > 0 {
		r.note("%d of %d kills found no such call within their time", missed, times)
	}
	return r.end(ctx)
}

// killOnce kills the server at one call. It reports whether the call happened before the time
// limit.
func (r *run) killOnce(ctx context.Context, call string, n int, fromStart bool) (bool, error) {
	within := r.patience
	if within == 0 {
		within = time.Duration(r.times(1200, 3000)) * time.Millisecond
	}
	if fromStart {
		r.server.Kill()
		r.strace(call, "signal=SIGKILL", n)
		switch err := r.server.Start(ctx); {
		case errors.Is(err, server.ErrNotReady):
			r.inject(fmt.Sprintf("kill at %s %d of the start", call, n))
			return true, nil
		case err != nil:
			return false, err
		}
	} else {
		_, detach, err := r.attach(call, "signal=SIGKILL", n)
		if err != nil {
			return false, err
		}
		defer detach()
	}
	limit, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if _, err := r.server.Wait(limit); err != nil {
		return false, ctx.Err()
	}
	r.inject(fmt.Sprintf("kill at %s %d", call, n))
	return true, nil
}

// everyCall kills the server at the start of the n-th call of each kind since its start, including
// recovery. Then it kills the next recovery at a call of the same kind. The log has small files.
// With -long it uses every n up to a limit; otherwise it uses a sample.
func everyCall(ctx context.Context, r *run) error {
	binary, err := r.variant(ctx, "small", smallLog)
	if err != nil {
		return err
	}
	r.server.Binary = binary
	r.server.Env = []string{"GOMAXPROCS=1"} // strace counts per thread, so few threads must make the calls
	if err := r.begin(ctx, loadOptions{size: 16000, pause: time.Millisecond, amqp: 1}); err != nil {
		return err
	}
	calls := append(append([]string{"write", "pread64", "openat"}, writeCalls...), dirCalls...)
	const bound = 40 // a start makes fewer calls of each kind than this; later calls belong to the load
	defer func(d time.Duration) { r.patience = d }(r.patience)
	r.patience = 2 * time.Second
	type place struct {
		call string
		n    int
	}
	var all []place
	for _, call := range calls {
		for n := 1; n <= bound && !(rare[call] && n > 8); n++ {
			all = append(all, place{call, n})
		}
	}
	r.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	missed := 0
	chosen := all[:min(len(all), r.times(22, len(all)))]
	for _, p := range chosen {
		met, err := r.killOnce(ctx, p.call, p.n, true)
		if err != nil {
			return err
		}
		if !met {
			missed++
		}
		r.server.Kill()
		again := 1 + r.rng.IntN(8)
		r.strace(p.call, "signal=SIGKILL", again)
		switch err := r.server.Start(ctx); {
		case errors.Is(err, server.ErrNotReady):
			r.inject(fmt.Sprintf("kill at %s %d of the recovery", p.call, again))
		case err != nil:
			return err
		default:
			r.server.Kill()
		}
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting after kills at %s %d and %d: %w: %s", p.call, p.n, again, err, r.server.Tail(500))
		}
		if !r.progress(ctx, 1, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s after kills at %s %d and %d", p.call, p.n, again)
		}
	}
	r.note("%d of %d calls chosen, of %d kinds up to the %dth; %d did not come in time", len(chosen), len(all), len(calls), bound, missed)
	return r.end(ctx)
}

// killRecovery kills the server under load, then its recovery, then the recovery after that, and
// then lets it start.
func killRecovery(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{size: 3000, amqp: 2}); err != nil {
		return err
	}
	calls := []string{"pread64", "pwrite64", "fdatasync", "openat", "fsync", "renameat", "fallocate", "unlinkat"}
	for range r.times(4, 100) {
		if err := r.sleep(ctx, r.between(50*time.Millisecond, 400*time.Millisecond)); err != nil {
			return err
		}
		r.server.Kill()
		for range 2 {
			call := calls[r.rng.IntN(len(calls))]
			r.strace(call, "signal=SIGKILL", 1+r.rng.IntN(6))
			switch err := r.server.Start(ctx); {
			case errors.Is(err, server.ErrNotReady):
				r.inject("kill at " + call + " in recovery")
			case err != nil:
				return err
			default: // the recovery finished before its n-th call
				r.inject("kill after recovery")
				r.server.Kill()
			}
		}
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting after two recoveries that were killed: %w: %s", err, r.server.Tail(500))
		}
	}
	return r.end(ctx)
}

// failingCall makes one call fail with an error once, under load, and lets the next ones succeed,
// like a disk after a failed write. If the error is fatal, the server must confirm nothing
// afterwards, and end with an exit code that is not 0. After any error, a restarted server must
// have everything that was confirmed.
func failingCall(calls []string, codes []string, fatal bool) func(ctx context.Context, r *run) error {
	return func(ctx context.Context, r *run) error {
		if err := r.endAtFailure(); err != nil {
			return err
		}
		if err := r.begin(ctx, loadOptions{size: 24000, pause: time.Millisecond, amqp: 2}); err != nil {
			return err
		}
		missed, kinds := 0, len(calls)*len(codes)
		for k := range r.times(kinds, 20*kinds) {
			call, code := calls[k%len(calls)], codes[k/len(calls)%len(codes)]
			n := 1 + r.rng.IntN(10)
			if rare[call] {
				n = 1
			}
			if !r.progress(ctx, 20, 5*time.Second) {
				r.fail("progress", "nothing was confirmed for 5 s before the injection")
			}
			log, detach, err := r.attach(call, "error="+code, n)
			if err != nil {
				return err
			}
			var when time.Time
			var on string
			met := r.until(ctx, time.Duration(r.times(3, 10))*time.Second, func() (ok bool) {
				when, on, ok = injection(log)
				return ok
			})
			if met {
				r.inject(on)
				r.afterError(ctx, when, on, fatal)
			} else {
				missed++
			}
			detach()
			r.server.Kill()
			if err := r.server.Start(ctx); err != nil {
				return fmt.Errorf("starting after %s: %w: %s", on, err, r.server.Tail(500))
			}
		}
		if missed > 0 {
			r.note("%d calls did not come in time", missed)
		}
		return r.end(ctx)
	}
}

// afterError checks the server's behaviour after an injected error.
func (r *run) afterError(ctx context.Context, when time.Time, on string, fatal bool) {
	limit, cancel := context.WithTimeout(ctx, time.Duration(r.times(3, 5))*time.Second)
	defer cancel()
	if !fatal {
		limit, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
	}
	code, err := r.server.Wait(limit)
	switch {
	case err != nil && fatal:
		r.fail("went on", "%s, and the server still served seconds later", on)
	case err == nil && code <= 0:
		r.fail("exit", "the server ended with exit code %d after %s", code, on)
	}
	if fatal {
		r.mayNotConfirm(when, on)
	}
}

// mayNotConfirm records a finding if a publish or ack that began after the error, and returned
// before the server's end, was confirmed.
func (r *run) mayNotConfirm(when time.Time, on string) {
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

// slowDisk delays every sync. The server must continue, confirm at the disk's speed, and stay
// ready.
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
	defer c.Close()
	if !c.ready(ctx) {
		r.fail("ready", "a slow disk makes the server say that it is not ready")
	}
	return r.end(ctx)
}
