//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/history"
)

// tmpfs puts the run's data on a small file system of its own.
func (r *run) tmpfs(options string) error {
	at := filepath.Join(r.dir, "disk")
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("surgetank-faults", at, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	r.server.Data = filepath.Join(at, "data")
	r.unmount = append(r.unmount, at)
	return nil
}

// ext4 puts the run's data on a file system on a loop device.
func (r *run) ext4(size int64) error {
	image, at := filepath.Join(r.dir, "image"), filepath.Join(r.dir, "disk")
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w %s", argv[0], err, out)
		}
	}
	r.server.Data = filepath.Join(at, "data")
	r.unmount = append(r.unmount, at)
	return nil
}

// canLoop returns an error if this machine cannot mount a file system on a loop device.
func canLoop() error {
	if err := canMount(); err != nil {
		return err
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "fsfreeze"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s: %w", tool, err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("needs loop devices: %w", err)
	}
	return nil
}

// ballast fills the data's file system with one file until leave bytes are free, and returns the
// file's name.
func (r *run) ballast(leave int64) (string, error) {
	var s syscall.Statfs_t
	at := filepath.Dir(r.server.Data)
	if err := syscall.Statfs(at, &s); err != nil {
		return "", err
	}
	name := filepath.Join(at, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	size := int64(s.Bavail)*s.Bsize - leave
	if size > 0 {
		err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	}
	return name, errors.Join(err, f.Close())
}

// fullDisk fills the disk under load. Publishers must be refused with full. Acks must work until
// the queues are empty. When the disk has room again, publishing must work again without a restart.
func fullDisk(ctx context.Context, r *run) error {
	if err := r.tmpfs("size=224m"); err != nil {
		return err
	}
	if err := r.begin(ctx, loadOptions{size: 16000, hold: true, pause: time.Millisecond}); err != nil {
		return err
	}
	if !r.progress(ctx, 200, 20*time.Second) {
		return errors.New("nothing was published on the empty disk")
	}
	for round := range r.times(1, 10) {
		name, err := r.ballast(64 << 10)
		if err != nil {
			return err
		}
		r.inject("disk full")
		refused := r.load.full.Load()
		if !r.until(ctx, 40*time.Second, func() bool { return r.load.full.Load() > refused+20 || !r.server.Alive() }) {
			r.fail("full", "the disk is full for 40 s, and publishes are not refused with full")
		}
		if !r.server.Alive() {
			r.fail("full", "the server ended because the disk is full: %s", r.server.Tail(400))
			if err := os.Remove(name); err != nil {
				return err
			}
			if err := r.server.Start(ctx); err != nil {
				return err
			}
			continue
		}
		if round == 0 {
			close(r.load.release)
		}
		r.note("%d publishes were refused with full", r.load.full.Load()-refused)
		acked := r.load.acked.Load()
		if !r.until(ctx, 20*time.Second, func() bool { return r.load.acked.Load() >= acked+100 }) {
			r.fail("acks on a full disk", "only %d acks were confirmed in 20 s on a full disk", r.load.acked.Load()-acked)
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		if !r.progress(ctx, 50, 20*time.Second) {
			r.fail("recovers", "publishing did not come back within 20 s after space was made")
		}
	}
	return r.end(ctx)
}

// noInodes makes it impossible to create files. The server may refuse requests or end, but must
// lose nothing. When inodes are free again, it must work again.
func noInodes(ctx context.Context, r *run) error {
	if err := r.tmpfs("size=512m,nr_inodes=64"); err != nil {
		return err
	}
	if err := r.begin(ctx, loadOptions{size: 24000, pause: time.Millisecond}); err != nil {
		return err
	}
	var made []string
	for i := 0; ; i++ {
		name := filepath.Join(filepath.Dir(r.server.Data), fmt.Sprintf("ballast%d", i))
		f, err := os.Create(name)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			return err
		}
		made = append(made, name)
		if err := f.Close(); err != nil {
			return err
		}
	}
	r.inject("no inodes")
	refused := r.load.full.Load()
	r.until(ctx, time.Duration(r.times(6, 60))*time.Second, func() bool { return r.load.full.Load() > refused+20 || !r.server.Alive() })
	if r.load.full.Load() == refused && r.server.Alive() {
		r.note("no segment had to be made within the time")
	} else {
		r.note("publishes refused with full: %d; the server lived: %v", r.load.full.Load()-refused, r.server.Alive())
	}
	for _, name := range made {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	if !r.server.Alive() {
		r.fail("no inodes", "the server ended because no file could be made: %s", r.server.Tail(400))
		if err := r.server.Start(ctx); err != nil {
			return err
		}
	}
	if !r.progress(ctx, 50, 20*time.Second) {
		r.fail("recovers", "publishing did not come back within 20 s after there were inodes again")
	}
	return r.end(ctx)
}

// readOnlyFlip makes the file system read-only under load, as ext4 does on an error. The server
// must refuse publishes, or end with an exit code that is not 0. After the disk is corrected,
// everything confirmed must be there.
func readOnlyFlip(ctx context.Context, r *run) error {
	if err := r.ext4(192 << 20); err != nil {
		return err
	}
	if err := r.endAtFailure(); err != nil {
		return err
	}
	if err := r.begin(ctx, loadOptions{}); err != nil {
		return err
	}
	at := filepath.Dir(r.server.Data)
	for range r.times(1, 20) {
		if err := r.sleep(ctx, r.between(100*time.Millisecond, 400*time.Millisecond)); err != nil {
			return err
		}
		r.inject("read-only")
		if out, err := exec.CommandContext(ctx, "mount", "-o", "remount,abort", at).CombinedOutput(); err != nil {
			return fmt.Errorf("flipping the file system: %w %s", err, out)
		}
		flipped := r.journal.Now()
		limit, cancel := context.WithTimeout(ctx, 5*time.Second)
		code, err := r.server.Wait(limit)
		cancel()
		if err == nil && code == 0 {
			r.fail("exit", "the server ended with exit code 0 on a read-only disk")
		}
		for _, op := range r.journal.Ops() {
			if op.Kind == history.Publish && op.Outcome == history.OK && !op.Duplicate && op.Call > flipped {
				r.fail("confirmed after the error", "%s was confirmed on a disk that was read-only before its publish began", op.Value)
				break
			}
		}
		r.server.Kill()
		// The next mount replays an aborted journal, as after a restart of the machine.
		for _, argv := range [][]string{{"umount", at}, {"fsck.ext4", "-p", filepath.Join(r.dir, "image")}, {"mount", "-o", "loop", filepath.Join(r.dir, "image"), at}} {
			out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
			var e *exec.ExitError
			if err != nil && !(argv[0] == "fsck.ext4" && errors.As(err, &e) && e.ExitCode() == 1) { // exit code 1: errors were corrected
				return fmt.Errorf("%s: %w %s", argv[0], err, out)
			}
		}
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting on the mended disk: %w: %s", err, r.server.Tail(500))
		}
	}
	return r.end(ctx)
}

// hangingDisk freezes the file system: writes block until it is thawed. Nothing may be confirmed
// meanwhile. The server must report within 5 s that it is not ready, and continue afterwards.
func hangingDisk(ctx context.Context, r *run) error {
	if err := r.ext4(192 << 20); err != nil {
		return err
	}
	if err := r.begin(ctx, loadOptions{timeout: 12 * time.Second}); err != nil {
		return err
	}
	at := filepath.Dir(r.server.Data)
	c := r.client()
	c.Timeout = time.Second
	defer c.Close()
	for range r.times(1, 20) {
		if !r.progress(ctx, 20, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s")
		}
		if out, err := exec.CommandContext(ctx, "fsfreeze", "-f", at).CombinedOutput(); err != nil {
			return fmt.Errorf("freezing: %w %s", err, out)
		}
		frozen := r.journal.Now()
		r.inject("freeze")
		told := r.until(ctx, 6*time.Second, func() bool { return !c.ready(ctx) })
		until := r.journal.Now()
		if out, err := exec.Command("fsfreeze", "-u", at).CombinedOutput(); err != nil {
			return fmt.Errorf("thawing: %w %s", err, out)
		}
		if !told {
			r.fail("ready", "the disk hung for 6 s, and the server said that it was ready")
		}
		for _, op := range r.journal.Ops() {
			if op.Kind == history.Publish && op.Outcome == history.OK && !op.Duplicate && op.Call > frozen && op.Return < until {
				r.fail("confirmed after the error", "%s was confirmed while the disk hung", op.Value)
				break
			}
		}
	}
	return r.end(ctx)
}
