package timelines

import (
	"cmp"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/test/build"
)

// mutants are sinks with one defect each. The simulation must report at least one of the listed
// kinds of findings.
var mutants = []struct {
	name   string
	kinds  []string
	change build.Change
	seeds  string // number of seeds; "": 2000
}{
	{"a target's incarnation is not compared", []string{"lost", "doubled"},
		build.Change{File: "sink/refusal.go", Old: "case !contains(h, old.position()), old.Queue == h.Queue", New: "case old.Queue == h.Queue"}, ""},
	{"a target that lacks rows is not noticed", []string{"lost"},
		build.Change{File: "sink/refusal.go", Old: "case r.TargetApplied < c.Written.Applied:", New: "case false:"}, ""},
	{"a target without progress is taken for a new one", []string{"lost", "doubled"},
		build.Change{File: "sink/refusal.go", Old: "case old == nil && c.Written.Applied == 0:", New: "case old == nil:"}, ""},
	{"ids leave the progress before the floor has passed them", []string{"doubled"},
		build.Change{File: "sink/ledger.go", Old: "p.IDs = appendIDs(nil, ll.next)\n", New: "p.IDs = appendIDs(nil, added)\n"}, ""},
	{"the batch is compared only when the target is opened", []string{"doubled", "lost"},
		build.Change{File: "sink/sinktest/memory.go", Old: " || st.Lanes[l.number].Batch != p.Batch {", New: " {"}, "12000"},
	{"message numbers are compared without their incarnations", []string{"words"},
		build.Change{File: "sink/known.go", Old: "\t\tif same {\n", New: "\t\tif same || true {\n"}, ""},
	{"the data directory does not note what was written", []string{"lost"},
		build.Change{File: "sink/ledger.go", Old: "m := mark{epoch: l.epoch, applied: ll.applied}", New: "m := mark{epoch: l.epoch}"}, ""},
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

// TestMutantsAreCaught builds each defect with a compiler overlay. It takes minutes, so it runs
// only with SURGETANK_TIMELINES=mutants in the environment.
func TestMutantsAreCaught(t *testing.T) {
	if os.Getenv("SURGETANK_TIMELINES") != "mutants" {
		t.Skip("runs with SURGETANK_TIMELINES=mutants in the environment")
	}
	root, err := build.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			list, err := build.Overlay(root, t.TempDir(), "defect", []build.Change{m.change})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay", list, "-run", "^TestTwoHistories$", ".", "-seeds", cmp.Or(m.seeds, "2000"), "-all", "-v")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out) // with -all, findings do not fail the test
			}
			for _, k := range m.kinds {
				if strings.Contains(string(out), "- "+k+": ") {
					t.Logf("seen as %s; %s", k, out[strings.LastIndex(string(out), "failures map"):])
					return
				}
			}
			t.Fatalf("no seed reported a finding of the kinds %v:\n%s", m.kinds, out)
		})
	}
}
