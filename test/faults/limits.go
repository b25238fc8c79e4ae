//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/server"
)

// canLimit returns an error if this machine lacks control groups for processors and processes.
func canLimit() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root for control groups")
	}
	for _, f := range []string{"/sys/fs/cgroup/cpuset/cpuset.cpus", "/sys/fs/cgroup/pids"} {
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("needs control groups v1: %w", err)
		}
	}
	return nil
}

// controlGroup makes a control group with settings, for the duration of the run.
func controlGroup(controller string, settings map[string]string) (dir string, remove func(), err error) {
	dir = filepath.Join("/sys/fs/cgroup", controller, fmt.Sprintf("surgetank-faults-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.Remove(dir) } // the group is empty by then; the kernel owns the directory
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			remove()
			return "", nil, err
		}
	}
	return dir, remove, nil
}

// oneProcessor limits the server to one processor, one running goroutine at a time, and few
// threads, and kills it sometimes. The server is slower but must be correct.
func oneProcessor(ctx context.Context, r *run) error {
	cpus, remove, err := controlGroup("cpuset", map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0"})
	if err != nil {
		return err
	}
	defer remove()
	pids, remove, err := controlGroup("pids", map[string]string{"pids.max": "40"})
	if err != nil {
		return err
	}
	defer remove()
	defer r.server.Kill() // the process must end before the groups are removed
	r.server.Env = []string{"GOMAXPROCS=1"}
	wrap := func(argv []string) []string {
		return append([]string{"sh", "-c", `echo $$ >"$0" && echo $$ >"$1" && shift && exec "$@"`, filepath.Join(cpus, "cgroup.procs"), filepath.Join(pids, "cgroup.procs")}, argv...)
	}
	r.server.Wrap = wrap
	if err := r.begin(ctx, loadOptions{amqp: 2}); err != nil {
		return err
	}
	for range r.times(3, 40) {
		if !r.progress(ctx, 60, 15*time.Second) {
			r.fail("progress", "on one processor no 60 messages were confirmed in 15 s")
		}
		r.inject("one processor, 40 threads")
		r.server.Kill()
		r.server.Wrap = wrap
		if err := r.server.Start(ctx); err != nil {
			return err
		}
	}
	return r.end(ctx)
}

// fileLimit limits the size of files below that of a segment. A longer write fails with EFBIG,
// which, unlike a full disk, stays until a restart. The server may end, or refuse publishes. After
// the limit is removed, everything confirmed must be there.
func fileLimit(ctx context.Context, r *run) error {
	for range r.times(2, 20) {
		r.server.Kill()
		r.server.Wrap = func(argv []string) []string { // the limit is in blocks of 512 bytes, as in Debian's sh
			return append([]string{"sh", "-c", `ulimit -f 40000 && exec "$@"`, "sh"}, argv...)
		}
		if r.load == nil {
			if err := r.begin(ctx, loadOptions{size: 40_000, batch: 12, pause: time.Millisecond, amqp: 1}); err != nil {
				return err
			}
		} else if err := r.server.Start(ctx); err != nil && !errors.Is(err, server.ErrNotReady) {
			return err
		}
		refused := r.load.full.Load()
		r.until(ctx, 8*time.Second, func() bool { return r.load.full.Load() > refused+20 || !r.server.Alive() })
		switch {
		case !r.server.Alive():
			r.inject("a file grew too large: the server ended")
			if r.server.Code() <= 0 {
				r.fail("exit", "for a file that may not grow the server ended with exit code %d", r.server.Code())
			}
		case r.load.full.Load() > refused:
			r.inject("a file grew too large: publishes were refused")
		default:
			r.note("no file met its limit in 8 s")
		}
		r.server.Kill()
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting without the limit: %w: %s", err, r.server.Tail(500))
		}
		if !r.progress(ctx, 50, 10*time.Second) {
			r.fail("recovers", "nothing was confirmed for 10 s after the limit was gone")
		}
	}
	return r.end(ctx)
}

// manyConnects opens and closes connections over HTTP and AMQP: in order, without a message, or
// after a request. Goroutines, descriptors and memory must fall back to their earlier values.
func manyConnects(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{amqp: 1, pause: 20 * time.Millisecond}); err != nil {
		return err
	}
	total := r.times(6000, 100_000)
	storm := func(n int) {
		var wait sync.WaitGroup
		var next atomic.Int64
		for range 8 {
			wait.Go(func() {
				for k := next.Add(1); k <= int64(n) && ctx.Err() == nil; k = next.Add(1) {
					r.connectOnce(int(k))
				}
			})
		}
		wait.Wait()
	}
	storm(400) // pools and buffers must have grown before the first measurement
	r.sleepQuiet(ctx)
	fds, routines, memory := r.server.FDs(), r.goroutines(), r.server.RSS()
	storm(total)
	r.injected = total
	ok := r.until(ctx, 20*time.Second, func() bool { return r.server.FDs() <= fds+8 && r.goroutines() <= routines+routines/20+16 })
	now := r.server.RSS()
	r.note("%d connects: descriptors %d → %d, goroutines %d → %d, memory %d → %d MiB", total, fds, r.server.FDs(), routines, r.goroutines(), memory>>20, now>>20)
	if !ok {
		r.fail("leak", "20 s after %d connects there are %d descriptors (%d before) and %d goroutines (%d before)", total, r.server.FDs(), fds, r.goroutines(), routines)
	}
	if now > memory+memory/4+32<<20 {
		r.fail("leak", "%d connects grew the server from %d to %d MiB", total, memory>>20, now>>20)
	}
	return r.end(ctx)
}

// sleepQuiet waits until the server's number of descriptors no longer changes.
func (r *run) sleepQuiet(ctx context.Context) {
	last := -1
	r.until(ctx, 5*time.Second, func() bool {
		n := r.server.FDs()
		same := n == last
		last = n
		return same
	})
}

// connectOnce opens and closes one connection.
func (r *run) connectOnce(k int) {
	switch k % 4 {
	case 0, 1: // AMQP: a full handshake, then an orderly close, or a close with an open channel
		conn, err := client.Connect(r.server.AMQP(), client.Options{Patience: 2 * time.Second})
		if err != nil {
			return
		}
		if k%8 < 2 {
			_, _ = conn.Channel() // the channel ends with its connection
		}
		_ = conn.Close() // the server cleans up its own side
	case 2: // HTTP: one request
		c, err := net.DialTimeout("tcp", r.server.HTTP(), 2*time.Second)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "GET /v1/queues/plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second)) // limits the wait for an answer
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	default: // a protocol header, then a reset
		c, err := net.DialTimeout("tcp", []string{r.server.HTTP(), r.server.AMQP()}[k/4%2], 2*time.Second)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "AMQP\x00\x00\x09\x01")
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}

// canBeOther returns an error if a server cannot run as another user here.
func canBeOther() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to be somebody else")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		return fmt.Errorf("needs setpriv: %w", err)
	}
	return nil
}

// wrongMode removes the access rights to a file from a server that is not root.
func wrongMode(ctx context.Context, r *run) error {
	s, err := r.makeSample(ctx, false)
	if err != nil {
		return err
	}
	r.drained, r.beyond = true, true
	const nobody = 65534
	for n, t := range []struct {
		what string
		file func() string
		mode os.FileMode
	}{
		{"a file that may not be read", func() string { return s.files[r.rng.IntN(len(s.files))] }, 0},
		{"a file that may not be written", func() string { return s.files[len(s.files)-1] }, 0o400},
		{"a directory that may not be written", func() string { return filepath.Dir(s.files[0]) }, 0o500},
	} {
		file := t.file()
		r.inject(t.what)
		r.trialWrap = func(argv []string) []string {
			return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, argv...)
		}
		_, bad, err := r.trial(ctx, s, n, t.what, file, func(dir string) error {
			err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
				return errors.Join(err, os.Chown(path, nobody, nobody))
			})
			for up := filepath.Dir(dir); err == nil && strings.HasPrefix(up, r.campaign.dir); up = filepath.Dir(up) {
				err = os.Chmod(up, 0o711) // the other user may pass the parent directories
			}
			return errors.Join(err, os.Chmod(filepath.Join(dir, file), t.mode))
		})
		if err != nil {
			return err
		}
		r.wrong = append(r.wrong, bad...)
	}
	return nil
}
