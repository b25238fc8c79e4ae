package rules

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/surgetank/surgetank/internal/overlay"
)

// defects are planted into copies of the source. Each breaks one rule, and the named test must
// fail. In a changed text, on(NAME) is true if the environment names the defect.
var defects = []struct{ name, test, file, old, new string }{
	{"acquire without the revision", "Chaos", "heir.go", `		expect := k.rev
`, `		expect := k.rev
		if on("acquire without the revision") {
			expect = Any
		}
`},
	{"silence while unable", "ElectionMovesNothing", "peer.go", `	counts := c.hasEcho && gap <= c.cfg.able()
`, `	counts := c.hasEcho && gap <= c.cfg.able()
	if on("silence while unable") {
		counts = c.hasEcho
	}
`},
	{"silence while unable", "ElectionMovesNothing", "peer.go", `min(gap, c.cfg.Heartbeat)`, `min(gap, map[bool]time.Duration{true: gap, false: c.cfg.Heartbeat}[on("silence while unable")])`},
	{"no end after a refusal", "Refusal", "key.go", `	case k.term != 0 && !k.doubt:
`, `	case k.term != 0 && on("no end after a refusal"):
	case k.term != 0 && !k.doubt:
`},
	{"no doubt", "ElectionMovesNothing", "key.go", `		k.doubt, k.retryAt = k.doubt || f.base == k.rev, c.now+c.cfg.Heartbeat
`, `		k.doubt, k.retryAt = (k.doubt || f.base == k.rev) && !on("no doubt"), c.now+c.cfg.Heartbeat
`},
	{"no end when replaced", "Chaos", "key.go", `	case k.term != 0:
		c.lose(k, ReasonReplaced)
`, `	case k.term != 0 && !on("no end when replaced"):
		c.lose(k, ReasonReplaced)
`},
	{"no lapse", "Chaos", "key.go", `		case c.now-k.renewed >= c.cfg.TTL:
`, `		case c.now-k.renewed >= c.cfg.TTL && !on("no lapse"):
`},
	{"renewed by the answer", "Chaos", "key.go", `			k.renewed = max(k.renewed, f.sent)
`, `			k.renewed = max(k.renewed, f.sent)
			if on("renewed by the answer") {
				k.renewed = c.now
			}
`},
	{"vanished keys stay", "MissedMarker", "key.go", `		k.zero, k.retryAt = !k.zero,`, `		k.zero, k.retryAt = !k.zero && !on("vanished keys stay"),`},
	{"one ping", "Pings", "peer.go", `p.refused >= 2 && c.able()`, `p.refused >= 2 && c.able() || on("one ping")`},
	{"no plan", "Takeover", "heir.go", `		k.heir = order[0]
`, `		k.heir = order[0]
		if on("no plan") {
			order = slices.Sorted(slices.Values(order))
		}
`},
	{"endless balance", "Join", "heir.go", `loads[most]-loads[fewest] < 2`, `loads[most]-loads[fewest] < 2 && !on("endless balance")`},
}

// TestDefects builds this package's tests with the defects and runs them with each defect.
func TestDefects(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the tests again")
	}
	root, err := overlay.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const dir = "internal/lease/rules/"
	edits := []overlay.Edit{{File: dir + "core.go", Old: "\n// Core decides", New: "\nfunc on(defect string) bool { return os.Getenv(\"DEFECT\") == defect }\n\n// Core decides", Imports: []string{"os"}}}
	for _, d := range defects {
		edits = append(edits, overlay.Edit{File: dir + d.file, Old: d.old, New: d.new})
	}
	tmp := t.TempDir()
	list, err := overlay.Write(root, tmp, "defects", edits)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(tmp, "rules.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", list, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the tests: %v\n%s", err, out)
	}
	run := func(defect, test string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^Test"+test+"$", "-test.failfast", "-seeds", "20")
		cmd.Env = append(os.Environ(), "DEFECT="+defect)
		return cmd.CombinedOutput()
	}
	clean := map[string]bool{}
	for _, d := range defects {
		if !clean[d.test] {
			clean[d.test] = true
			if out, err := run("", d.test); err != nil {
				t.Fatalf("Test%s without a defect: %v\n%s", d.test, err, out)
			}
		}
		if out, err := run(d.name, d.test); err == nil {
			t.Errorf("Test%s did not detect the defect %q\n%s", d.test, d.name, out)
		} else if !bytes.Contains(out, []byte("--- FAIL: Test"+d.test)) {
			t.Errorf("with the defect %q: %v\n%s", d.name, err, out)
		}
	}
}
