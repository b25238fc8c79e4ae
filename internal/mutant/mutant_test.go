package mutant

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/overlay"
)

// TestDefectsFitTheSource: each text is in the source exactly once, and the code with all defects
// compiles. A defect whose text is missing would test nothing.
func TestDefectsFitTheSource(t *testing.T) {
	root, err := overlay.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := overlay.Write(root, t.TempDir(), "defects", Switchable())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "./internal/queue", "./internal/broker", "./internal/disklog", "./internal/shards")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the source with all defects: %v\n%s", err, out)
	}
	for _, p := range plants {
		if !strings.Contains(p.after, guard) {
			t.Errorf("%s: a text for %s does not contain %s", p.defect, p.file, guard)
		}
		if p.defect != TrimTooSoon && !slices.Contains(All, p.defect) && !slices.Contains(OfShards, p.defect) {
			t.Errorf("%q is in no list", p.defect)
		}
	}
	for _, d := range slices.Concat(All, OfShards) {
		edits := Edits(d)
		if len(edits) == 0 {
			t.Errorf("%q is planted nowhere", d)
		}
		if _, err := overlay.Apply(root, edits); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
}
