//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/history"
)

// noDescriptors starts the server with few descriptors and uses them up with idle connections,
// while the load needs new segment files. The server may refuse connections. After the idle
// connections are closed, it must work again without a restart.
func noDescriptors(ctx context.Context, r *run) error {
	r.server.Wrap = func(argv []string) []string {
		return append([]string{"sh", "-c", `ulimit -n 64 && exec "$@"`, "sh"}, argv...)
	}
	if err := r.begin(ctx, loadOptions{size: 40_000, batch: 12, pause: time.Millisecond}); err != nil {
		return err
	}
	for range r.times(1, 20) {
		r.progress(ctx, 20, 10*time.Second)
		var conns []net.Conn
		for range 120 {
			c, err := net.DialTimeout("tcp", r.server.HTTP(), time.Second)
			if err != nil {
				break // the server's backlog is full
			}
			conns = append(conns, c)
		}
		r.inject(fmt.Sprintf("%d connections for 64 descriptors", len(conns)))
		confirmed := r.progress(ctx, 500, 5*time.Second) // about 15 MB, which need a new segment
		open := r.server.FDs()
		for _, c := range conns {
			_ = c.Close()
		}
		r.note("%d descriptors were open; connections that stood were served: %v", open, confirmed)
		if !r.server.Alive() {
			r.fail("descriptors", "the server ended for want of descriptors: %s", oneLine(r.server.Tail(400)))
			return nil
		}
		if !r.progress(ctx, 50, 20*time.Second) {
			r.fail("recovers", "nothing was confirmed for 20 s after descriptors were free again")
		}
	}
	return r.end(ctx)
}

const memoryGroup = "/sys/fs/cgroup/memory"

// canCap returns an error if this machine lacks control groups for memory.
func canCap() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root for a memory control group")
	}
	if _, err := os.Stat(filepath.Join(memoryGroup, "memory.limit_in_bytes")); err != nil {
		return fmt.Errorf("needs control groups v1: %w", err)
	}
	return nil
}

// memoryCap builds a backlog several times as large as the server's memory limit, which includes
// the page cache.
func memoryCap(ctx context.Context, r *run) error {
	limit := int64(96 << 20)
	group := filepath.Join(memoryGroup, fmt.Sprintf("surgetank-faults-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	defer func() {
		r.server.Kill()
		_ = os.Remove(group) // the group is empty now; the kernel owns the directory
	}()
	if err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte(strconv.FormatInt(limit, 10)), 0o644); err != nil {
		return err
	}
	r.server.Env = []string{"GOMEMLIMIT=" + strconv.FormatInt(limit*3/4, 10)}
	r.server.Wrap = func(argv []string) []string {
		return append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(group, "cgroup.procs")}, argv...)
	}
	o := loadOptions{size: 60_000, batch: 12, pause: time.Millisecond, hold: true, honest: true, lease: 20 * time.Second, timeout: 20 * time.Second}
	if err := r.begin(ctx, o); err != nil {
		return err
	}
	r.inject("memory cap of 96 MiB")
	want := limit * int64(r.times(2, 10)) / 45_000 // messages have 45,000 bytes on average
	if !r.progress(ctx, want, time.Duration(r.times(40, 300))*time.Second) {
		r.fail("memory", "under the cap only %d of %d messages were confirmed; the server lives: %v", r.load.confirmed.Load(), want, r.server.Alive())
	}
	if !r.server.Alive() {
		r.fail("memory", "the server was ended by the memory cap")
		return nil
	}
	return r.end(ctx)
}

// poisonMessages publishes some messages that no consumer can handle: they are nacked, or their
// consumer dies. Each must be tried max_attempts times, with pauses, and then be dead-lettered.
// Meanwhile the other messages must be delivered.
func poisonMessages(ctx context.Context, r *run) error {
	const attempts = 12 // the queues' max_attempts
	poisonous := func(v string) bool {
		_, n := history.SplitValue(v)
		return n%50 == 7
	}
	if err := r.begin(ctx, loadOptions{poison: poisonous, lease: 120 * time.Millisecond, limit: r.times(250, 5000), consumers: 6}); err != nil {
		return err
	}
	r.load.pubs.Wait()
	err := r.end(ctx)
	tried := map[string]int{}
	parked := map[string]bool{}
	for _, op := range r.journal.Ops() {
		switch {
		case op.Kind != history.Deliver || !poisonous(op.Value):
		case strings.HasSuffix(op.Queue, ".dead"):
			parked[op.Value] = true
		default:
			tried[op.Value]++
		}
	}
	for v, n := range tried {
		r.inject("poison " + v)
		if n > attempts {
			r.fail("poison", "%s was tried %d times, the queue allows %d", v, n, attempts)
		}
		if !parked[v] {
			r.fail("poison", "%s was tried %d times and is not among the dead letters", v, n)
		}
	}
	return err
}

// readErrors makes reads of old messages fail once with EIO. An unreadable message must not be
// delivered and must not be lost.
func readErrors(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{size: 40_000, batch: 12, pause: time.Millisecond, hold: true}); err != nil {
		return err
	}
	if !r.progress(ctx, 1200, 30*time.Second) { // more messages than are cached in memory
		return errors.New("the backlog could not be published")
	}
	close(r.load.release)
	missed := 0
	for range r.times(2, 40) {
		log, detach, err := r.attach("pread64", "error=EIO", 1+r.rng.IntN(3))
		if err != nil {
			return err
		}
		on := ""
		met := r.until(ctx, 3*time.Second, func() (ok bool) {
			_, on, ok = injection(log)
			return ok
		})
		if met {
			r.inject(on)
		} else {
			missed++
		}
		limit, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		code, err := r.server.Wait(limit)
		cancel()
		detach()
		if err != nil { // the server is alive
			continue
		}
		if code <= 0 {
			r.fail("exit", "the server ended with exit code %d after %s", code, on)
		}
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting after %s: %w: %s", on, err, r.server.Tail(500))
		}
	}
	if missed > 0 {
		r.note("%d reads did not come in time", missed)
	}
	r.server.Signal(syscall.SIGCONT) // strace may have left the server stopped
	return r.end(ctx)
}
