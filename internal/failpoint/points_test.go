package failpoint

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/overlay"
)

// TestEveryPointIsReachedSomewhere: the text of each point is in the source exactly once, and the
// server with all points compiles. A crash test of a point that no code reaches would test nothing.
func TestEveryPointIsReachedSomewhere(t *testing.T) {
	if len(points) < 40 {
		t.Errorf("there are %d points; at least 40 are wanted", len(points))
	}
	seen := map[Point]bool{}
	for _, p := range All() {
		if seen[p] || strings.Contains(string(p), "=") {
			t.Errorf("%q is twice in the list, or has a = in it", p)
		}
		seen[p] = true
	}
	root, err := overlay.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	texts, err := overlay.Apply(root, Edits())
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, text := range texts {
		calls += strings.Count(text, "failpoint.Reach(")
	}
	if calls != len(points) {
		t.Errorf("the changed source calls Reach in %d places, and there are %d points", calls, len(points))
	}
	list, err := overlay.Write(root, t.TempDir(), "points", Edits())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "./internal/disklog", "./internal/broker", "./sink/...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the source with all points: %v\n%s", err, out)
	}
}
