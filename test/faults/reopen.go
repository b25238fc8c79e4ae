//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// endAtFailure makes the server end at the first failure of its log. Rows that test the recovery by
// a restart use it. Call it before the server starts.
func (r *run) endAtFailure() error {
	name := filepath.Join(r.dir, "end-at-failure.yaml")
	if err := os.WriteFile(name, []byte("server: {disk: {reopen_for: off}}\n"), 0o600); err != nil {
		return err
	}
	r.server.Args = append(r.server.Args, "--config", name)
	return nil
}

// openings counts the openings of the log after a failure that the server has reported.
func (r *run) openings() int {
	b, err := os.ReadFile(r.server.Log)
	if err != nil {
		return 0
	}
	return bytes.Count(b, []byte("msg=broker state=serving"))
}

// reopened waits until the server has opened its log again, and records that every lease from before
// the failure has ended. The process must stay the same.
func (r *run) reopened(ctx context.Context, before, pid int, when time.Time, within time.Duration) {
	if !r.until(ctx, within, func() bool { return r.openings() > before || !r.server.Alive() }) {
		r.fail("opens again", "the log was not opened again within %v: %s", within, r.server.Tail(300))
		return
	}
	if !r.server.Alive() || r.server.PID() != pid {
		r.fail("lives", "the server ended: %s", r.server.Tail(300))
		return
	}
	r.journal.Down(when, nil)
	r.journal.Up(when)
	if !r.progress(ctx, 20, 20*time.Second) {
		r.fail("progress", "nothing was confirmed for 20 s after the log was opened again")
	}
}

// failuresThatPass makes a sync or a write fail once, again and again. The server must live, open its
// log again and continue with the same clients.
func failuresThatPass(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{size: 3000, pause: time.Millisecond, amqp: 2}); err != nil {
		return err
	}
	pid := r.server.PID()
	calls, codes := []string{"fdatasync", "pwritev"}, []string{"EIO", "ENOSPC"}
	missed := 0
	for k := range r.times(4, 60) {
		if !r.progress(ctx, 20, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s before the injection")
		}
		before := r.openings()
		log, detach, err := r.attach(calls[k%2], "error="+codes[k/2%2], 1+r.rng.IntN(10))
		if err != nil {
			return err
		}
		var when time.Time
		var on string
		met := r.until(ctx, 3*time.Second, func() (ok bool) {
			when, on, ok = injection(log)
			return ok
		})
		detach()
		if !met {
			missed++
			continue
		}
		r.inject(on)
		r.reopened(ctx, before, pid, when, 20*time.Second)
	}
	if missed > 0 {
		r.note("%d calls did not come in time", missed)
	}
	return r.end(ctx)
}

// lostMount moves the mount of the data directory away under load, and back. Meanwhile the directory
// below the mount point is visible, and must stay empty.
func lostMount(ctx context.Context, r *run) error {
	if err := r.tmpfs("size=256m"); err != nil {
		return err
	}
	if err := r.begin(ctx, loadOptions{size: 1000, amqp: 2}); err != nil {
		return err
	}
	pid, at, away := r.server.PID(), filepath.Dir(r.server.Data), filepath.Join(r.dir, "away")
	if err := os.Mkdir(away, 0o700); err != nil {
		return err
	}
	move := func(from, to string) error {
		if err := syscall.Mount(from, to, "", syscall.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving the mount %s to %s: %w", from, to, err)
		}
		return nil
	}
	for range r.times(2, 20) {
		if !r.progress(ctx, 20, 20*time.Second) {
			r.fail("progress", "nothing was confirmed for 20 s")
		}
		before, when := r.openings(), time.Now()
		if err := move(at, away); err != nil {
			return err
		}
		r.inject("the mount was moved away")
		if err := r.sleep(ctx, r.between(200*time.Millisecond, 2*time.Second)); err != nil {
			return err
		}
		if list, err := os.ReadDir(at); err != nil || len(list) > 0 {
			r.fail("leaves other files alone", "the server made %v below its mount point (%v)", list, err)
		}
		if err := move(away, at); err != nil {
			return err
		}
		r.reopened(ctx, before, pid, when, 30*time.Second)
	}
	return r.end(ctx)
}
