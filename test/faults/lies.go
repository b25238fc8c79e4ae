//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/faults/powerfs"
	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/server"
)

// canLoopOnFuse returns what is missing for a simulated block device.
func canLoopOnFuse() error { return errors.Join(canFuse(), canLoop()) }

// canBuildOnFuse returns what is missing for a special build on a simulated disk.
func canBuildOnFuse() error { return errors.Join(canFuse(), canBuild()) }

// entryMagic begins every entry in a segment (docs/format.md). A block that contains it belongs to
// the log and not to ext4's journal.
var entryMagic = []byte("SgE1")

// failingBlocks repeats the fault that made PostgreSQL panic on a failed sync. A block write of
// ext4 fails once, and the fdatasync that waited for the write fails. From then on the page cache
// treats data as clean that the disk lacks. In every second trial any block can fail, also one of
// ext4's journal. The server must end. After a restart on the same mount, the server must not trust
// the cached data. After the page cache is dropped, everything confirmed must be there.
func failingBlocks(ctx context.Context, r *run) error {
	p, err := r.powerDisk("disk")
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.ext4(); err != nil {
		return err
	}
	if err := r.endAtFailure(); err != nil {
		return err
	}
	if err := r.begin(ctx, loadOptions{size: 3000}); err != nil {
		return err
	}
	ends, missed, aborted := 0, 0, 0
	for i := range r.times(6, 100) {
		if !r.progress(ctx, 20, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s on a disk that is whole")
		}
		var left atomic.Int64
		left.Store(1 + r.rng.Int64N(6))
		p.disk.SetFault(func(op powerfs.Op) (o powerfs.Outcome) {
			if op.Kind == powerfs.Write && (i%2 == 1 || bytes.Contains(op.Data, entryMagic)) && left.Add(-1) == 0 {
				o.Err = syscall.EIO
			}
			return o
		})
		r.inject("a block write fails")
		limit, cancel := context.WithTimeout(ctx, 4*time.Second)
		code, err := r.server.Wait(limit)
		cancel()
		p.disk.SetFault(nil)
		switch {
		case err != nil: // the server lives: none of its syncs waited for the block
			missed++
			r.server.Kill()
		case code <= 0:
			r.fail("exit", "the server ended with exit code %d after a block could not be written: %s", code, oneLine(r.server.Tail(300)))
		default:
			ends++
		}
		// This start uses the same mount and page cache. If the block belonged to ext4's journal,
		// the mount may be read-only.
		if err := r.server.Start(ctx); errors.Is(err, server.ErrNotReady) {
			aborted++
		} else if err != nil {
			return err
		} else {
			r.progress(ctx, 20, 2*time.Second)
			r.server.Kill()
		}
		if err := p.remount(); err != nil {
			return err
		}
		if err := r.server.Start(ctx); err != nil {
			return r.noStart(err, "a block that could not be written")
		}
	}
	r.note("the server ended by itself %d times; %d times the block was none of its own; %d times ext4 took no writes until it was mounted again", ends, missed, aborted)
	if ends == 0 {
		r.fail("met", "no failed block was ever one that the server waited for")
	}
	return r.end(ctx)
}

// remount unmounts the file system, which drops the page cache, and mounts it again.
func (p *powerDisk) remount() error {
	image := filepath.Join(p.at, "image")
	if err := tool("umount", p.upon); err != nil {
		return err
	}
	// Exit code 1: fsck corrected errors, for example an aborted journal.
	if err := tool("sh", "-c", `fsck.ext4 -p "$0"; test $? -le 1`, image); err != nil {
		return err
	}
	return tool("mount", "-o", "loop", image, p.upon)
}

// lies are the kinds of syncs that a disk lies about.
var lies = []struct {
	name  string
	about func(powerfs.Kind) bool
}{
	{"all syncs", func(k powerfs.Kind) bool { return k == powerfs.Sync || k == powerfs.SyncName }},
	{"syncs of files", func(k powerfs.Kind) bool { return k == powerfs.Sync }},
	{"syncs of directories", func(k powerfs.Kind) bool { return k == powerfs.SyncName }},
}

// lyingDisk runs trials with a disk that confirms syncs, stores nothing, and then loses power. Such
// a loss breaks no promise, but the server must not hide it. The server may refuse to start, or
// name the damage. It may also start with everything up to some moment and nothing later;
// docs/format.md explains why no file can reveal that case. The server must never deliver a byte
// that was not published.
func lyingDisk(ctx context.Context, r *run) error {
	r.beyond, r.drained = true, true
	survivals := []powerfs.Survival{powerfs.Some, powerfs.Noise, powerfs.Torn, powerfs.Nothing, powerfs.Names}
	ends := map[string]int{}
	tails, calls, confirmed := 0, 0, 0
	r.extra = func(_ *history.History, rep *history.Report) { rep.Calls, rep.Confirmed = calls, confirmed }
	for n := range r.times(15, 400) {
		lie, s := lies[(n/len(survivals))%len(lies)], survivals[n%len(survivals)]
		t := trial{what: lie.name + ", " + s.String()}
		if err := r.lie(ctx, n, lie.about, s, &t); err != nil {
			return fmt.Errorf("trial %d (%s): %w", n, t.what, err)
		}
		ends[t.end]++
		tails, calls, confirmed = tails+t.Lost, calls+t.calls, confirmed+t.Confirmed
	}
	r.note("%d trials were refused by name, %d reported by name, %d whole, %d with the newest messages lost, all of them behind all that is there (%d messages)",
		ends["refused"], ends["reported"], ends["whole"], ends["cut"], tails)
	return nil
}

// trial is the result of one server on a lying disk.
type trial struct {
	what, end      string
	lied           time.Duration // time of the disk's first lie
	calls          int
	history.Totals // Lost counts confirmed messages
}

var logFile = regexp.MustCompile(`\d{16,}\.(seg|snap)|log\.state`)

// lie runs one trial.
func (r *run) lie(ctx context.Context, n int, about func(powerfs.Kind) bool, s powerfs.Survival, t *trial) error {
	p, err := r.powerDisk(fmt.Sprintf("disk-%d", n))
	if err != nil {
		return err
	}
	defer p.close()
	j, err := history.Create("", r.name, 0)
	if err != nil {
		return err
	}
	p.server = &server.Server{Binary: r.binary, Data: filepath.Join(p.at, "data"), Log: filepath.Join(r.dir, fmt.Sprintf("trial-%d.log", n)), Watcher: j}
	if err := p.server.Start(ctx); err != nil {
		return err
	}
	c := newCaller(98, p.server.URL, j, 5*time.Second)
	defer c.Close()
	for _, q := range []string{grouped, plain} {
		if err := c.Declare(ctx, q, queueSettings[q]); err != nil {
			return err
		}
	}
	// There are no consumers: after the cut the messages are exactly those that the disk has kept.
	l := newLoad(loadOptions{consumers: -1, size: 12000, pause: time.Millisecond}, j, p.server.URL, r.rng.Uint64(), r.say)
	l.start(ctx)
	defer l.abandon()
	honest := 100 + r.rng.Int64N(600)
	if !r.until(ctx, 20*time.Second, func() bool { return l.confirmed.Load() >= honest }) {
		return errors.New("nothing was published")
	}
	t.lied = j.Now()
	p.disk.SetFault(func(op powerfs.Op) powerfs.Outcome { return powerfs.Outcome{Lie: about(op.Kind)} })
	p.disk.CutAfter(20 + r.rng.Int64N(500))
	p.off(ctx, 20*time.Second)
	l.deadline.Store(0)
	l.once.Do(func() { close(l.stop) })
	if err := p.powerCut(s); err != nil {
		return err
	}
	l.abandon()
	return r.afterLie(ctx, p, t, j)
}

// afterLie starts the server on the disk's remaining data, and judges its behaviour.
func (r *run) afterLie(ctx context.Context, p *powerDisk, t *trial, j *history.Journal) error {
	sv := p.server
	named := func() bool { return logFile.MatchString(sv.Tail(8000)) }
	report := func(format string, args ...any) {
		r.wrong = append(r.wrong, history.Finding{Check: "lie", Value: t.what, Detail: fmt.Sprintf(format, args...) + "; the server's words: " + oneLine(sv.Tail(500))})
	}
	refused := func() {
		switch t.end = "refused"; {
		case sv.Code() <= 0:
			report("it ended with exit code %d", sv.Code())
		case !named():
			report("it ended without naming a file of the log")
		}
	}
	if _, err := p.start(ctx); err != nil {
		if !errors.Is(err, server.ErrNotReady) {
			return err
		}
		refused()
		t.calls = len(j.Ops())
		t.Totals, _ = history.TotalQueue(&history.History{Ops: j.Ops(), Queues: checked})
		return nil
	}
	// Publishers would publish the same values again, so this load has no publishers.
	l := newLoad(loadOptions{publishers: -1, consumers: 4, honest: true, size: 12000}, j, sv.URL, 1, r.say)
	l.start(ctx)
	go l.giveUpOn(named)
	drained, err := l.finish(ctx, 30*time.Second)
	h := &history.History{Ops: j.Ops(), Queues: checked, Drained: drained}
	t.calls = len(h.Ops)
	totals, bad := history.TotalQueue(h)
	t.Totals = totals
	_, disorder := history.GroupOrder(h)
	bad = append(slices.DeleteFunc(bad, func(f history.Finding) bool { return f.Check == "lost" }), disorder...)
	if len(bad) > 0 {
		report("%d findings, the first: %s", len(bad), bad[0])
	}
	switch {
	case !drained && !sv.Alive():
		refused()
		return nil
	case !drained:
		if t.end = "reported"; !named() {
			report("it started, could not be drained, and names no file: %v", err)
		}
		return nil
	}
	first, gap := gap(h.Ops)
	if gap != "" {
		report("%s, and nobody was told", gap)
	}
	if first != nil && first.Return < t.lied {
		report("%s was confirmed at %v, before the disk lied for the first time at %v, and is lost", first.Value, first.Return, t.lied)
	}
	t.end = "whole"
	if t.Lost > 0 {
		t.end = "cut"
	}
	return nil
}

// gap returns the earliest confirmed message that was never delivered, or nil. what is not empty if
// a later message was delivered: one whose publish began after that confirmation. Such a gap is not
// explained by a loss of only the newest messages.
func gap(ops []history.Op) (first *history.Op, what string) {
	out := map[string]bool{}
	for _, op := range ops {
		if op.Kind == history.Deliver {
			out[op.Value] = true
		}
	}
	for i := range ops {
		op := &ops[i]
		if op.Kind == history.Publish && op.Outcome == history.OK && !out[op.Value] && (first == nil || op.Return < first.Return) {
			first = op
		}
	}
	for _, op := range ops {
		if first != nil && op.Kind == history.Publish && out[op.Value] && op.Call > first.Return && !again(ops, op) {
			return first, fmt.Sprintf("%s was confirmed at %v and is lost, and %s, published at %v, is there", first.Value, first.Return, op.Value, op.Call)
		}
	}
	return first, ""
}

// again reports whether a value had been published before op.
func again(ops []history.Op, op history.Op) bool {
	return slices.ContainsFunc(ops, func(o history.Op) bool { return o.Kind == history.Publish && o.Value == op.Value && o.Call < op.Call })
}
