//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/test/kit/server"
)

// The faults of this file damage a stopped data directory. If the damage exceeds its promises, the
// server may refuse to start, but it must never deliver wrong bytes or silently skip messages. Each
// trial starts the server on a damaged copy of one directory. The allowed results are:
//
//	refused   the server does not start, or ends when it reads the damage. Its exit code is not 0, and it names the file
//	reported  the server runs, returns an error instead of the damaged message, and names the file in its log
//	harmless  the server starts, everything confirmed is delivered, and no acked message is delivered again
//
// All other results are findings.

// sample is the data directory of a stopped server, and the calls that made it.
type sample struct {
	dir   string
	ops   []history.Op
	files []string // paths relative to the directory
}

// makeSample makes a directory with a backlog, acked messages, dead letters, several segments and a
// snapshot. Then it stops the server in order or kills it.
func (r *run) makeSample(ctx context.Context, kill bool) (*sample, error) {
	if err := r.begin(ctx, loadOptions{size: 12000, publishers: 4, pause: time.Millisecond}); err != nil {
		return nil, err
	}
	if !r.progress(ctx, int64(r.times(1200, 4000)), 30*time.Second) {
		return nil, errors.New("the sample could not be published")
	}
	r.load.abandonConsumers()
	r.progress(ctx, 60, 10*time.Second) // makes a backlog
	r.load.once.Do(func() { close(r.load.stop) })
	r.load.pubs.Wait()
	r.load = nil
	if kill {
		r.server.Kill()
	} else {
		r.server.Signal(syscall.SIGTERM)
		if code, err := r.server.Wait(ctx); err != nil || code != 0 {
			return nil, fmt.Errorf("stopping for the sample: exit code %d: %w", code, err)
		}
	}
	s := &sample{dir: r.server.Data, ops: slices.Clone(r.journal.Ops())}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, relErr := filepath.Rel(s.dir, path)
			err = relErr
			s.files = append(s.files, rel)
		}
		return err
	})
	return s, err
}

func (l *clients) abandonConsumers() {
	close(l.quit)
	l.cons.Wait()
}

// trial starts a server on a damaged copy and returns the result. If the result is allowed, there
// is no finding.
func (r *run) trial(ctx context.Context, s *sample, number int, what, file string, damage func(dir string) error) (end string, bad []history.Finding, err error) {
	dir := filepath.Join(r.dir, fmt.Sprintf("trial-%d", number))
	if err := copyTree(s.dir, dir); err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(dir)
	if err := damage(dir); err != nil {
		return "", nil, err
	}
	// This journal is only in memory. Its times continue after the times of the sample's calls.
	j, err := history.Create("", r.name, 0)
	if err != nil {
		return "", nil, err
	}
	last := s.ops[len(s.ops)-1].Return
	j.Shift(last + time.Second)
	sv := &server.Server{Binary: r.binary, Data: dir, Log: filepath.Join(r.dir, fmt.Sprintf("trial-%d.log", number)), Watcher: j, Wrap: r.trialWrap, Args: r.trialArgs}
	defer sv.Kill()
	named := func() bool { return strings.Contains(sv.Tail(8000), filepath.Base(file)) }
	report := func(format string, args ...any) {
		bad = append(bad, history.Finding{Check: "damage", Value: what, Detail: fmt.Sprintf(format, args...) + "; the server's words: " + oneLine(sv.Tail(500))})
	}
	begin, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := sv.Start(begin); err != nil {
		switch {
		case !errors.Is(err, server.ErrNotReady):
			report("it neither started nor refused: %v", err)
		case sv.Code() <= 0:
			report("it refused with exit code %d", sv.Code())
		case !named():
			report("it refused without naming the file")
		}
		return "refused", bad, ctx.Err()
	}
	if r.trialStarted != nil {
		problem, err := r.trialStarted(ctx, sv)
		if err != nil {
			return "", nil, err
		}
		if problem != "" {
			report("%s", problem)
			return "", bad, nil
		}
	}
	l := newLoad(loadOptions{publishers: 1, limit: 1, honest: true, size: 12000}, j, sv.URL, 1, r.say)
	l.cons.Go(func() { l.consumer(ctx, 0, grouped) })
	l.cons.Go(func() { l.consumer(ctx, 1, plain) })
	go l.giveUpOn(named) // otherwise an unreadable message makes the drain wait
	finished := make(chan error, 1)
	var drained bool
	finish, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		var err error
		drained, err = l.finish(finish, 15*time.Second)
		finished <- err
	}()
	select {
	case <-sv.Exited(): // the server read the damage and ended
		stop()
		<-finished
		switch {
		case sv.Code() <= 0:
			report("it met the damage and ended with exit code %d", sv.Code())
		case !named():
			report("it met the damage and ended without naming the file")
		}
		end = "refused"
	case err := <-finished:
		end = "harmless"
		if err != nil {
			end = "reported"
			if !named() {
				report("it started, could not be drained, and names no file: %v", err)
			}
		}
	}
	// Even if messages are missing, all deliveries must be right.
	h := &history.History{Ops: append(slices.Clone(s.ops), j.Ops()...), Queues: checked, Drained: drained && end == "harmless"}
	rep := history.Check(h, time.Minute)
	if len(rep.Findings) > 0 {
		report("it was %s, with %d findings, the first: %s", end, len(rep.Findings), rep.Findings[0])
	}
	return end, bad, nil
}

// giveUpOn ends the drain early if the server has named the damage and nothing has been acked for a
// while.
func (l *clients) giveUpOn(named func() bool) {
	for quiet := 0; quiet < 5; quiet++ {
		before := l.acked.Load()
		if !load.Sleep(l.quit, 400*time.Millisecond) {
			return
		}
		if !named() || l.acked.Load() > before {
			quiet = -1
		}
	}
	l.hopeless.Store(true)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// copyTree copies a directory. Holes in files become zeros.
func copyTree(from, to string) error { return os.CopyFS(to, os.DirFS(from)) }

// damages are the kinds of damage to a file.
var damages = []struct {
	name string
	do   func(r *run, path string) error
}{
	{"a bit flipped", func(r *run, path string) error {
		return patch(path, func(b []byte, used int) []byte {
			at := r.rng.IntN(used)
			b[at] ^= 1 << r.rng.IntN(8)
			return b
		})
	}},
	{"a page of zeros", func(r *run, path string) error {
		return patch(path, func(b []byte, used int) []byte {
			at := r.rng.IntN(used) / 4096 * 4096
			clear(b[at:min(at+4096, len(b))])
			return b
		})
	}},
	{"cut short", func(r *run, path string) error {
		return patch(path, func(b []byte, used int) []byte { return b[:r.rng.IntN(used)] })
	}},
	{"emptied", func(_ *run, path string) error { return os.Truncate(path, 0) }},
	{"missing", func(_ *run, path string) error { return os.Remove(path) }},
	{"two pages exchanged", func(r *run, path string) error {
		return patch(path, func(b []byte, used int) []byte {
			pages := used / 4096
			if pages < 2 {
				b[0] ^= 1
				return b
			}
			x := r.rng.IntN(pages)
			y := (x + 1 + r.rng.IntN(pages-1)) % pages
			px, py := b[x*4096:(x+1)*4096], b[y*4096:(y+1)*4096]
			tmp := slices.Clone(px)
			copy(px, py)
			copy(py, tmp)
			return b
		})
	}},
}

// patch changes a file's bytes. used is the length of the file without zeros at its end, and at
// least 1.
func patch(path string, change func(b []byte, used int) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	used := len(b)
	for used > 1 && b[used-1] == 0 {
		used--
	}
	if used == 0 {
		return nil
	}
	return os.WriteFile(path, change(b, used), 0o600)
}

// damageFiles makes trials: each kind of damage to files of each kind in turn.
func damageFiles(kill bool, kinds ...string) func(ctx context.Context, r *run) error {
	return func(ctx context.Context, r *run) error {
		s, err := r.makeSample(ctx, kill)
		if err != nil {
			return err
		}
		r.drained = true // the trials judge loss, not the sample's own calls
		r.beyond = true
		byExt := map[string][]string{}
		for _, f := range s.files {
			byExt[kindOf(f)] = append(byExt[kindOf(f)], f)
		}
		exts := make([]string, 0, len(byExt))
		for e := range byExt {
			exts = append(exts, e)
		}
		slices.Sort(exts)
		ends := map[string]int{}
		trials := r.times(len(exts)*len(kinds), 40*len(exts)*len(kinds))
		for n := range trials {
			ext := exts[n%len(exts)]
			kind := kinds[n/len(exts)%len(kinds)]
			file := byExt[ext][r.rng.IntN(len(byExt[ext]))]
			i := slices.IndexFunc(damages, func(d struct {
				name string
				do   func(r *run, path string) error
			}) bool {
				return d.name == kind
			})
			what := file + " " + kind
			r.inject(what)
			end, bad, err := r.trial(ctx, s, n, what, file, func(dir string) error { return damages[i].do(r, filepath.Join(dir, file)) })
			if err != nil {
				return err
			}
			ends[end]++
			r.wrong = append(r.wrong, bad...)
		}
		r.note("%d trials were refused by name, %d reported by name, %d harmless", ends["refused"], ends["reported"], ends["harmless"])
		return nil
	}
}

// kindOf returns a file's kind: its extension, or its name if it has none.
func kindOf(file string) string {
	if e := filepath.Ext(file); e != "" {
		return e
	}
	return filepath.Base(file)
}

// foreignFiles puts files into the directory that do not belong there: notes, copies, segments of
// another server.
func foreignFiles(ctx context.Context, r *run) error {
	s, err := r.makeSample(ctx, false)
	if err != nil {
		return err
	}
	r.drained, r.beyond = true, true
	segments := slices.DeleteFunc(slices.Clone(s.files), func(f string) bool { return filepath.Ext(f) != ".seg" })
	if len(segments) == 0 {
		return errors.New("the sample has no segment files")
	}
	slices.Sort(segments)
	newest := segments[len(segments)-1]
	sub := filepath.Dir(newest)
	for n, t := range []struct {
		what, file string
		do         func(dir string) error
	}{
		{"a note among the files", "README.txt", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, sub, "README.txt"), []byte("do not touch\n"), 0o600)
		}},
		{"a copy of a segment under another name", "copy.seg", func(dir string) error {
			return copyFile(filepath.Join(dir, newest), filepath.Join(dir, sub, "copy.seg"))
		}},
		{"a segment doubled under a higher number", ".seg", func(dir string) error {
			return copyFile(filepath.Join(dir, newest), filepath.Join(dir, sub, "0000000000009999.seg"))
		}},
		{"a segment over another one", segments[0], func(dir string) error {
			if len(segments) < 2 {
				return os.Truncate(filepath.Join(dir, segments[0]), 0)
			}
			return copyFile(filepath.Join(dir, newest), filepath.Join(dir, segments[0]))
		}},
		{"an unfinished temporary file", "0000000000000099.seg.tmp", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, sub, "0000000000000099.seg.tmp"), make([]byte, 5000), 0o600)
		}},
	} {
		r.inject(t.what)
		_, bad, err := r.trial(ctx, s, n, t.what, t.file, t.do)
		if err != nil {
			return err
		}
		r.wrong = append(r.wrong, bad...)
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// twoServers starts a second server on the directory of the first. The second must exit, and the
// first must not be affected.
func twoServers(ctx context.Context, r *run) error {
	if err := r.begin(ctx, loadOptions{}); err != nil {
		return err
	}
	for n := range r.times(2, 20) {
		second := &server.Server{Binary: r.binary, Data: r.server.Data, Log: filepath.Join(r.dir, fmt.Sprintf("second-%d.log", n))}
		r.inject("second server")
		err := second.Start(ctx)
		switch {
		case err == nil:
			r.fail("two servers", "a second server serves the same directory")
		case !errors.Is(err, server.ErrNotReady):
			return err
		case second.Code() <= 0:
			r.fail("two servers", "the second server left with exit code %d", second.Code())
		case !strings.Contains(second.Tail(4000), fmt.Sprint(r.server.PID())):
			r.fail("two servers", "the second server does not say which process holds the directory: %s", oneLine(second.Tail(400)))
		}
		second.Kill()
		if !r.progress(ctx, 20, 5*time.Second) {
			r.fail("two servers", "the first server stopped confirming")
		}
	}
	return r.end(ctx)
}
