//go:build linux

package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// mutants are servers with one defect each, with the actions whose rounds must show the defect, and
// the accepted findings. Some defects have an effect only between two steps of a commit, for
// example ids that are dropped early. Package test/timelines tests these defects, because it ends
// processes at those steps.
var mutants = []struct {
	name   string
	with   []string
	kinds  []string
	change build.Change
}{
	{"a target that lacks rows is not noticed", []string{"restore dump", "restore files", "failover"}, []string{judge.Lost},
		build.Change{File: "sink/refusal.go", Old: "case r.TargetApplied < c.Written.Applied:", New: "case false:"}},
	{"a target without progress is taken for a new one", []string{"file deleted"}, []string{judge.Lost},
		build.Change{File: "sink/refusal.go", Old: "case old == nil && c.Written.Applied == 0:", New: "case old == nil:"}},
	{"a target's incarnation is not compared", []string{"restore directory", "copy beside"}, []string{judge.Lost, judge.Doubled},
		build.Change{File: "sink/refusal.go", Old: "case !contains(h, old.position()), old.Queue == h.Queue", New: "case old.Queue == h.Queue"}},
	{"an SQLite file's identity is not checked", []string{"file deleted", "restore dump"}, []string{judge.Lost},
		build.Change{File: "sink/sqlite/db.go", Old: "range [...]os.FileInfo{d.file, d.wal} {\n", New: "range []os.FileInfo{d.file, d.wal}[:0] {\n"}},
}

// If a defect's text is missing in the source, the mutant has no defect. So every run checks the
// texts.
func TestMutantsFitTheSource(t *testing.T) {
	root, err := build.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		if _, err := build.Overlay(root, t.TempDir(), "defect", []build.Change{m.change}); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestMutantsAreCaught builds each server with its defect and runs rounds until one shows the
// defect. It takes minutes, so it runs only with SURGETANK_TARGETS=mutants in the environment.
func TestMutantsAreCaught(t *testing.T) {
	if os.Getenv("SURGETANK_TARGETS") != "mutants" {
		t.Skip("runs with SURGETANK_TARGETS=mutants in the environment")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			binary, err := build.Server(t.Context(), t.TempDir(), "surgetank", "", []build.Change{m.change})
			if err != nil {
				t.Fatal(err)
			}
			c := &campaign{binary: binary, limit: 2 * time.Minute}
			done, err := c.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { done(); _ = os.RemoveAll(c.dir) }() // failed rounds are expected
			for _, with := range m.with {
				for _, p := range plans(1, 15, with) {
					for _, f := range c.one(t.Context(), p).findings {
						if slices.Contains(m.kinds, f.Kind) {
							t.Logf("caught by seed %d (%s): %s", p.seed, with, f)
							return
						}
					}
				}
			}
			t.Errorf("not caught by name in rounds with %q", m.with)
		})
	}
}
