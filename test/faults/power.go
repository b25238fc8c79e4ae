//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/faults/powerfs"
	"github.com/surgetank/surgetank/test/kit/server"
)

// canFuse returns an error if this machine cannot mount a FUSE file system.
func canFuse() error {
	if err := canMount(); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("needs FUSE (modprobe fuse): %w", err)
	}
	return nil
}

// powerDisk is the disk of a run whose power can be cut. Only the scenario's goroutine uses its
// methods.
type powerDisk struct {
	r       *run
	server  *server.Server // the server that uses the disk and dies with its power
	at      string
	disk    *powerfs.Disk
	mounted *powerfs.Mounted
	upon    string // mount point of a file system on a loop device whose image is on the disk; empty: none
}

// powerDisk puts the run's data on an empty disk whose power can be cut. The caller must close it
// before the run is cleaned up.
func (r *run) powerDisk(name string) (*powerDisk, error) {
	at := filepath.Join(r.dir, name)
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	p := &powerDisk{r: r, server: r.server, at: at, disk: powerfs.New()}
	var err error
	if p.mounted, err = p.disk.Mount(at); err != nil {
		return nil, err
	}
	return p, nil
}

// close releases all waiting callers of the disk and unmounts it. A second call has no effect.
func (p *powerDisk) close() {
	p.disk.SetFault(nil)
	p.disk.CutNow()
	p.disk.Release()
	p.server.Kill()
	if p.upon != "" {
		_ = syscall.Unmount(p.upon, syscall.MNT_DETACH) // after an error the namespace unmounts it
	}
	if p.mounted != nil {
		_ = p.mounted.Unmount() // after an error the namespace unmounts it
		p.mounted = nil
	}
}

// powerCut cuts the power of the disk and the server at once, so later actions have no effect. Then
// it mounts the surviving data.
func (p *powerDisk) powerCut(s powerfs.Survival) error {
	p.r.inject("power cut: " + s.String())
	p.disk.CutNow()
	next := p.disk.After(s, p.r.rng)
	p.disk.SetFault(nil)
	if p.server.Alive() {
		p.server.KillSoon() // the process ends when the disk releases its waiting calls
	}
	p.disk.Release()
	p.server.Kill()
	if p.upon != "" {
		if err := tool("umount", p.upon); err != nil {
			return err
		}
	}
	if err := p.mounted.Unmount(); err != nil {
		return err
	}
	p.disk, p.mounted = next, nil
	var err error
	if p.mounted, err = next.Mount(p.at); err != nil || p.upon == "" {
		return err
	}
	return tool("mount", "-o", "loop", filepath.Join(p.at, "image"), p.upon)
}

// ext4 makes an ext4 file system for the server's data on a loop device whose image is on the disk.
// Only other processes use its files, for the reason at powerfs.Disk.Mount.
func (p *powerDisk) ext4() error {
	image, upon := filepath.Join(p.at, "image"), filepath.Join(p.r.dir, "ext4")
	if err := os.Mkdir(upon, 0o700); err != nil {
		return err
	}
	for _, argv := range [][]string{{"truncate", "-s", "1G", image}, {"mkfs.ext4", "-q", "-F", image}, {"sync", image, p.at}, {"mount", "-o", "loop", image, upon}} {
		if err := tool(argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	p.upon = upon
	p.server.Data = filepath.Join(upon, "data")
	return nil
}

// tool runs a system program to its end.
func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// start starts the server. It returns cut if the power was cut meanwhile, and an error if the
// server did not start for another reason.
func (p *powerDisk) start(ctx context.Context) (cut bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	started := make(chan struct{})
	defer close(started)
	disk := p.disk
	watching.Go(func() {
		select {
		case <-disk.Off():
			cancel()
			disk.Release() // the server's later actions have no effect
		case <-started:
		}
	})
	err = p.server.Start(ctx)
	select {
	case <-disk.Off():
		return true, nil
	default:
		return false, err
	}
}

// startAgain starts the server after a power cut. In one case of three, the power is cut once or
// twice more during the recovery.
func (p *powerDisk) startAgain(ctx context.Context, s powerfs.Survival) error {
	again := max(0, p.r.rng.IntN(6)-3)
	for range again {
		p.disk.CutAfter(1 + p.r.rng.Int64N(25))
		cut, err := p.start(ctx)
		if err != nil {
			return err
		}
		if !cut && !p.off(ctx, 5*time.Second) {
			return errors.New("a server under load did nothing to its disk for 5 s")
		}
		if err := p.powerCut(s); err != nil {
			return err
		}
	}
	_, err := p.start(ctx)
	return err
}

// off waits for the prepared power cut.
func (p *powerDisk) off(ctx context.Context, within time.Duration) bool {
	select {
	case <-p.disk.Off():
		return true
	case <-time.After(within):
	case <-ctx.Done():
	}
	return false
}

// subject is the server whose power is cut.
type subject int

const (
	asReleased subject = iota // the released server, directly on the disk
	underExt4                 // the same, on ext4 on the disk as a block device
	smallFiles                // a build with small files and a snapshot per MiB, directly on the disk
)

// powerCuts cuts the power under load at a random operation of the disk, with each kind of survival
// in turn, and continues with the surviving data. Everything confirmed must be there every time.
func powerCuts(of subject, short int, kinds ...powerfs.Survival) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		p, err := r.powerDisk("disk")
		if err != nil {
			return err
		}
		defer p.close()
		r.server.Data = filepath.Join(p.at, "data")
		load, most := loadOptions{size: 6000, amqp: 2}, int64(250)
		switch of {
		case underExt4:
			err = p.ext4()
		case smallFiles:
			load, most = loadOptions{size: 16000, amqp: 2}, 600
			r.server.Binary, err = r.variant(ctx, "small", smallLog)
		}
		if err != nil {
			return err
		}
		if err := r.begin(ctx, load); err != nil {
			return err
		}
		for i := range r.times(short, 200) {
			s := kinds[i%len(kinds)]
			p.disk.CutAfter(1 + r.rng.Int64N(most))
			if !p.off(ctx, 20*time.Second) {
				r.fail("progress", "under load the disk was asked for fewer than %d operations in 20 s: %s", most, oneLine(r.server.Tail(300)))
			}
			if err := p.powerCut(s); err != nil {
				return err
			}
			if err := p.startAgain(ctx, s); err != nil {
				return r.noStart(err, "a power cut with "+s.String())
			}
			if there, err := r.queuesThere(ctx); !there {
				return err
			}
		}
		return r.end(ctx)
	}
}

// queuesThere reports whether the queues exist. Without the queues the run ends early; otherwise
// each message would be a finding.
func (r *run) queuesThere(ctx context.Context) (bool, error) {
	c := r.client()
	c.Timeout = 15 * time.Second
	defer c.Close()
	for _, q := range []string{grouped, plain} {
		s, err := c.Queue(ctx, q)
		if err != nil {
			return false, err
		}
		if s == nil {
			r.fail("queue lost", "the queue %s was declared, and is gone", q)
			return false, nil
		}
	}
	return true, nil
}

// noStart records that the server did not start, which is a finding unless the run is over.
func (r *run) noStart(err error, after string) error {
	if !errors.Is(err, server.ErrNotReady) {
		return fmt.Errorf("starting after %s: %w: %s", after, err, r.server.Tail(500))
	}
	r.fail("start", "after %s the server did not start: %s", after, oneLine(r.server.Tail(700)))
	return nil
}

// shortWrites makes the disk accept only a part of many writes, without an error, and cuts the
// power from time to time. Records must be whole or absent.
func shortWrites(ctx context.Context, r *run) error {
	p, err := r.powerDisk("disk")
	if err != nil {
		return err
	}
	defer p.close()
	r.server.Data = filepath.Join(p.at, "data")
	var mu sync.Mutex
	short, rng := 0, rand.New(rand.NewPCG(r.rng.Uint64(), 1))
	fault := func(op powerfs.Op) (o powerfs.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == powerfs.Write && rng.IntN(3) == 0 {
			short++
			o.Short = 1 + rng.IntN(5000)
		}
		return o
	}
	p.disk.SetFault(fault)
	if err := r.begin(ctx, loadOptions{size: 3000}); err != nil {
		return err
	}
	for range r.times(3, 100) {
		before := r.load.confirmed.Load()
		if !r.progress(ctx, 150, 20*time.Second) {
			r.fail("progress", "with short writes only %d messages were confirmed in 20 s", r.load.confirmed.Load()-before)
		}
		p.disk.CutNow()
		if err := p.powerCut(powerfs.Torn); err != nil {
			return err
		}
		p.disk.SetFault(fault)
		if _, err := p.start(ctx); err != nil {
			return r.noStart(err, "short writes and a power cut")
		}
	}
	err = r.end(ctx)
	mu.Lock()
	defer mu.Unlock()
	r.injected += short
	r.note("%d writes were short", short)
	return err
}

// stalls makes the disk delay single operations, and later all of them for seconds. Nothing may be
// confirmed meanwhile. The server must report within 5 s that it is not ready, and continue
// afterwards.
func stalls(ctx context.Context, r *run) error {
	p, err := r.powerDisk("disk")
	if err != nil {
		return err
	}
	defer p.close()
	r.server.Data = filepath.Join(p.at, "data")
	if err := r.begin(ctx, loadOptions{timeout: 12 * time.Second}); err != nil {
		return err
	}
	c := r.client()
	c.Timeout = time.Second
	defer c.Close()
	for i := range r.times(2, 20) {
		if !r.progress(ctx, 20, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s")
		}
		stall := powerfs.Sync
		if i%2 == 1 {
			stall = powerfs.Write
		}
		free := make(chan struct{})
		var once sync.Once
		let := func() { once.Do(func() { close(free) }) }
		defer let()
		p.disk.SetFault(func(op powerfs.Op) powerfs.Outcome {
			if op.Kind == stall {
				<-free
			}
			return powerfs.Outcome{}
		})
		hung := r.journal.Now()
		r.inject("every " + string(stall) + " hangs")
		told := r.until(ctx, 6*time.Second, func() bool { return !c.ready(ctx) })
		until := r.journal.Now()
		p.disk.SetFault(nil)
		let()
		if !told {
			r.fail("ready", "every %s hung for 6 s, and the server said that it was ready", stall)
		}
		r.noneConfirmed(hung, until, "while the disk hung")
	}
	return r.end(ctx)
}

// noneConfirmed checks that no publish that began and ended in a time span was confirmed as newly
// stored. A publish that began before the span is not checked.
func (r *run) noneConfirmed(from, to time.Duration, when string) {
	for _, op := range r.journal.Ops() {
		if op.Kind == "pub" && op.Outcome == "ok" && !op.Duplicate && op.Call > from && op.Return < to {
			r.fail("confirmed after the error", "%s was confirmed %s", op.Value, when)
			return
		}
	}
}
