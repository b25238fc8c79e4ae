//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/surgetank/surgetank/test/targets/judge"
)

// backs are actions that put the target or the data directory back in time, or start a copy of the
// directory. Each saves a moment, lets messages flow, and restores the moment.
var backs = []*action{
	{name: "restore dump", side: target, run: func(w *world) error { return w.targetBack("dump") }},
	{name: "restore files", side: target, run: func(w *world) error { return w.targetBack("files") }},
	{name: "failover", side: target, on: "postgres", run: func(w *world) error { return w.targetBack("standby") }},
	{name: "progress dropped", side: target, run: func(w *world) error {
		w.causes |= judge.ProgressGone
		return w.db.exec("DROP TABLE IF EXISTS surgetank_progress")
	}},
	{name: "file deleted", side: target, on: "sqlite", run: func(w *world) error {
		w.causes |= judge.ProgressGone
		if err := w.lite().remove(); err != nil {
			return err
		}
		w.advance(40)
		w.pause(300 * time.Millisecond)
		if last := w.plan.actions[len(w.plan.actions)-1]; last.name == "file deleted" && w.plan.rng.IntN(2) == 0 {
			w.say("  the file stays away until the end")
			w.mend = append(w.mend, func() error { return w.db.create(w) })
			return nil
		}
		return w.db.create(w)
	}},
	{name: "restore directory", side: directory, run: func(w *world) error { return w.directoryBack(false) }},
	{name: "restore hot directory", side: directory, run: func(w *world) error { return w.directoryBack(true) }},
	{name: "copy beside", side: both, run: func(w *world) error { return w.beside(true) }},
	{name: "stopped copy beside", side: both, run: func(w *world) error { return w.beside(false) }},
}

// targetBack saves the target's current state and restores it later.
func (w *world) targetBack(how string) error {
	if w.plan.rng.IntN(2) == 0 { // a quiet moment: all sent messages are written and acked
		err := w.quiet(10 * time.Second)
		w.first().pub.release()
		if err != nil {
			return fmt.Errorf("before the target is saved: %w", err)
		}
	}
	s, err := w.db.save(w.fresh("target-saved"), how)
	if err != nil {
		return err
	}
	s.done, s.upto = maps.Clone(w.done), w.upto
	w.say("  saved: %s", how)
	w.advance(20 + w.plan.rng.IntN(120))
	if w.plan.rng.IntN(2) == 0 {
		_ = w.quiet(5 * time.Second) // if messages still wait, the test is valid, too
		w.first().pub.release()
	}
	w.causes |= judge.TargetBack
	if w.plan.rng.IntN(3) == 0 && how != "files" {
		w.first().Kill()
		defer func() { w.mend = append(w.mend, w.revived) }()
	}
	if err := w.db.restore(s); err != nil {
		return err
	}
	if err := w.revived(); err != nil {
		return err
	}
	if w.upto != s.upto { // create the partitions again that were made since the saved moment
		from := s.upto
		to := w.upto
		w.upto = from
		return w.morePartitions(to)
	}
	return nil
}

// revived starts the first server if it does not run.
func (w *world) revived() error {
	select {
	case <-w.first().Exited():
		return w.first().start()
	default:
		return nil
	}
}

// directoryBack saves the first server's data directory and restores it later. The copy is made
// from a stopped directory, or while the server runs.
func (w *world) directoryBack(hot bool) error {
	n := w.first()
	saved, err := n.snapshot(w.fresh("data-saved"), hot)
	if err != nil {
		return err
	}
	w.say("  saved: the directory, hot %v", hot)
	w.advance(20 + w.plan.rng.IntN(120))
	if w.plan.rng.IntN(3) == 0 { // with a paused sink, the target does not change
		_ = n.cli("sink", "pause", "rows")
		w.advance(20)
		w.mend = append(w.mend, func() error { return n.cli("sink", "resume", "rows") })
	}
	n.pub.hold()
	defer n.pub.release()
	n.Kill()
	if err := os.Rename(n.Data, n.Data+"-lost"); err != nil {
		return err
	}
	if err := copyLive(saved.path, n.Data); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		if !hot {
			return err
		}
		// A copy of a directory in use can be inconsistent. Then the server refuses the copy, and
		// the user keeps the current directory.
		w.notes = append(w.notes, "a hot copy was refused: "+n.Tail(200))
		if err := os.RemoveAll(n.Data); err != nil {
			return err
		}
		if err := os.Rename(n.Data+"-lost", n.Data); err != nil {
			return err
		}
		return n.start()
	}
	w.causes |= judge.DirectoryBack
	w.mu.Lock()
	n.holds = maps.Clone(saved.holds)
	w.mu.Unlock()
	_ = os.RemoveAll(n.Data + "-lost")
	return nil
}

// snapshot saves the data directory. The server is stopped for it unless hot is set.
func (n *node) snapshot(to string, hot bool) (*savedDirectory, error) {
	if hot {
		return n.save(to)
	}
	if err := n.stop(); err != nil {
		return nil, err
	}
	s, err := n.save(to)
	if err != nil {
		return nil, err
	}
	return s, n.start()
}

// beside starts a second server on a copy of the data directory, while the first one runs. Both
// have publishers.
func (w *world) beside(hot bool) error {
	if len(w.nodes) > 1 {
		return nil
	}
	saved, err := w.first().snapshot(w.fresh("data-copy"), hot)
	if err != nil {
		return err
	}
	if w.plan.rng.IntN(2) == 0 {
		w.advance(w.plan.rng.IntN(100))
	}
	n := w.newNode("b", saved.path)
	if err := n.start(); err != nil {
		w.nodes = w.nodes[:1]
		if !hot {
			return err
		}
		w.notes = append(w.notes, "a hot copy was refused: "+n.Tail(200))
		return nil
	}
	w.causes |= judge.Copied
	w.mu.Lock()
	n.holds = maps.Clone(saved.holds)
	w.mu.Unlock()
	n.pub = newPublisher(n)
	n.pub.advance(20, 2*time.Second)
	return nil
}
