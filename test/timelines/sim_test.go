package timelines

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank/test/targets/judge"
)

var (
	seedFlag  = flag.Uint64("one", 0, "run only this seed, and tell everything")
	seedsFlag = flag.Int("seeds", 2000, "run so many seeds")
	firstFlag = flag.Uint64("first", 1, "the first seed")
	allFlag   = flag.Bool("all", false, "go on after failures, and count them by kind")
)

// TestTwoHistories: whatever happens to the directory and the database, each message must be
// written once, or the sink must refuse its target and name the number of missing messages. Then
// the chosen way to continue may lose and double only the messages that it announces.
func TestTwoHistories(t *testing.T) {
	first, last := *firstFlag, *firstFlag+uint64(*seedsFlag)-1
	if testing.Short() {
		last = first + 199
	}
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	done := &counts{ops: map[string]int{}, kinds: map[string]int{}, ways: map[string]int{}}
	workers := uint64(runtime.GOMAXPROCS(0))
	t.Run("seeds", func(t *testing.T) {
		for worker := range workers {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for seed := first + worker; seed <= last && (*allFlag || !t.Failed()); seed += workers {
					synctest.Test(t, func(t *testing.T) { run(t, seed, done) })
				}
			})
		}
	})
	t.Logf("seeds %d to %d: %d messages, %d refused, ways on %v, operations %v, failures %v", first, last, done.messages, done.refused, done.ways, done.ops, done.kinds)
}

// counts add up the events of all runs.
type counts struct {
	mu                sync.Mutex
	messages, refused int
	ops, kinds, ways  map[string]int
}

func (c *counts) count(in map[string]int, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in[name]++
}

// run runs one seed.
func run(t *testing.T, seed uint64, done *counts) {
	w := newWorld(t, seed)
	defer func() {
		for _, d := range w.dirs {
			w.shut(d)
		}
	}()
	for range 4 + w.rng.IntN(20) {
		o := w.draw()
		w.say("%s", o.name)
		done.count(done.ops, o.name)
		o.do(w)
	}
	w.say("the end")
	w.faults.Stop()
	for _, d := range w.dirs {
		w.publish(d, 2)
		_ = d.m.Resume(context.Background(), "s", "") // the error of a sink that is not paused does not matter
	}
	w.drain()
	w.pass(time.Second) // acks in flight arrive meanwhile
	h := w.collect()
	r := judge.Check(h)
	list := r.Findings
	done.mu.Lock()
	done.messages += w.next
	if r.Refused {
		done.refused++
	}
	done.mu.Unlock()
	if len(list) == 0 && r.Refused {
		list = w.goOn(done)
	}
	if len(list) == 0 {
		return
	}
	for _, f := range list {
		kind := f.Kind
		if w.causes == 0 {
			kind += " in ordinary life"
		}
		done.count(done.kinds, kind)
	}
	say := t.Errorf
	if *allFlag {
		say = t.Logf
	}
	say("seed %d (go test ./test/timelines -one %d): lanes %d, groups %v, causes %s\n%s\n%s", seed, seed, w.lanes, w.grouped, w.causes, strings.Join(w.log, "\n"), text(list))
}

func text(list []judge.Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	return b.String()
}

// operation is an event. weight is its relative frequency.
type operation struct {
	name   string
	weight int
	can    func(w *world) bool
	do     func(w *world)
}

var operations = []operation{
	{"publish", 8, nil, func(w *world) { w.publish(w.any(), 1+w.rng.IntN(8)) }},
	{"time passes", 4, nil, func(w *world) { w.pass(time.Duration(w.rng.IntN(300)) * time.Millisecond) }},
	{"drain", 2, nil, func(w *world) { w.drain() }},
	{"crash", 3, nil, func(w *world) {
		d := w.any()
		w.crash(d)
		w.open(d)
	}},
	{"restart", 1, nil, func(w *world) {
		d := w.any()
		w.shut(d)
		w.open(d)
	}},
	{"connections are cut", 2, nil, func(w *world) { w.any().gate.cut() }},
	{"pause", 1, nil, func(w *world) { w.ask(w.any().m.Pause(context.Background(), "s")) }},
	{"resume", 2, unrefused, func(w *world) { w.ask(w.any().m.Resume(context.Background(), "s", "")) }},
	{"user truncates", 1, nil, func(w *world) { w.erased = append(w.erased, values(w.db.Truncate())...) }},
	{"save the target", 2, nil, func(w *world) { w.moment = &moment{w.db.Save(), slices.Clone(w.erased)} }},
	{"restore the target", 3, func(w *world) bool { return w.moment != nil }, func(w *world) { w.targetBack() }},
	{"promote a standby", 3, func(w *world) bool { return w.moment != nil }, func(w *world) {
		for _, d := range w.dirs {
			d.gate.cut()
		}
		w.targetBack()
	}},
	// Dropping the progress removes the database's knowledge of written messages. If the directory
	// has also lost its knowledge, or does not know the newest commits, no sink could detect the
	// loss.
	{"drop the progress", 1, func(w *world) bool { return rarely(w) && w.causes&(judge.DirectoryBack|judge.Copied) == 0 }, func(w *world) {
		_ = w.dirs[0].m.Resume(context.Background(), "s", "")
		w.drain()
		w.pass(time.Second)
		w.causes |= judge.ProgressGone
		w.db.DropProgress()
	}},
	{"save the directory", 2, nil, func(w *world) { w.saved = w.save(w.dirs[0]) }},
	{"restore the directory", 3, func(w *world) bool { return w.saved != nil && w.causes&judge.ProgressGone == 0 }, func(w *world) {
		d := w.dirs[0]
		w.crash(d)
		d.store, d.holds = w.saved.store.Copy(), maps.Clone(w.saved.holds)
		w.causes |= judge.DirectoryBack
		w.open(d)
	}},
	{"copy beside", 1, func(w *world) bool {
		return len(w.dirs) == 1 && w.rng.IntN(3) == 0 && w.causes&judge.ProgressGone == 0
	}, func(w *world) {
		s := w.save(w.dirs[0])
		d := &directory{name: "b", store: s.store, holds: s.holds}
		w.dirs = append(w.dirs, d)
		w.causes |= judge.Copied
		w.open(d)
	}},
}

// unrefused reports whether no sink has stopped. A stopped sink must not be resumed before the end
// of the run.
func unrefused(w *world) bool {
	for _, d := range w.dirs {
		if stopped(w.state(d).State) {
			return false
		}
	}
	return true
}

func rarely(w *world) bool { return w.rng.IntN(4) == 0 }

func (w *world) targetBack() {
	w.causes |= judge.TargetBack
	w.db.Restore(w.moment.at)
	w.erased = slices.Clone(w.moment.erased)
}

func (w *world) ask(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

// any returns a random directory.
func (w *world) any() *directory { return w.dirs[w.rng.IntN(len(w.dirs))] }

func (w *world) draw() operation {
	for {
		total := 0
		for _, o := range operations {
			total += o.weight
		}
		n := w.rng.IntN(total)
		for _, o := range operations {
			if n -= o.weight; n < 0 {
				if o.can == nil || o.can(w) {
					return o
				}
				break
			}
		}
	}
}
