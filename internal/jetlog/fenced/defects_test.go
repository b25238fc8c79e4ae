package fenced_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/overlay"
)

// defects are planted into copies of the source. Each breaks one rule of the protocol, and
// TestTakeovers must fail. In a changed text, on(NAME) is true if the environment names the defect.
var defects = []struct{ name, file, old, new string }{
	{"no fence", "log.go",
		`	err = l.retry(ctx, "opening", func() (err error) {`,
		`	if on("no fence") {
		b, err := l.s.Bounds(ctx)
		return b.Last, err
	}
	err = l.retry(ctx, "opening", func() (err error) {`},
	{"conditional fence", "log.go",
		`		at, err = l.s.Append(ctx, Any, record)`,
		`		after := Any
		if on("conditional fence") {
			b, err := l.s.Bounds(ctx)
			if err != nil {
				return err
			}
			after = b.Last
		}
		at, err = l.s.Append(ctx, after, record)`},
	{"no prefix", "writer.go",
		`	for w.acked[w.done+1] {`,
		`	for n := w.done + 1; on("no prefix") && n <= w.sent; n++ {
		if w.acked[n] {
			w.acked[w.done+1] = true
		}
	}
	for w.acked[w.done+1] {`},
	{"resend", "resync.go",
		`	b, err := l.s.Bounds(l.ctx)`,
		`	if on("resend") {
		b, err := l.s.Bounds(l.ctx)
		if err != nil {
			return err
		}
		w.begin(w.epoch)
		w.scanned = b.Last
		return nil
	}
	b, err := l.s.Bounds(l.ctx)`},
	{"any number", "rule.go", `case h.Epoch == r.epoch && h.N == r.n+1 && r.epoch != 0:`,
		`case h.Epoch == r.epoch && (h.N == r.n+1 || on("any number")) && r.epoch != 0:`},
	{"any epoch", "rule.go", `		r.epoch, r.n = at, 0
		return begins`, `		r.epoch, r.n = at, 0
		return begins
	case on("any epoch") && h.Epoch != r.epoch:
		return valid`},
	{"early trim", "read.go", `	if l.cover == 0 || before <= l.known.from() {`,
		`	if on("early trim") {
		before = l.wanted
	}
	if l.cover == 0 && !on("early trim") || before <= l.known.from() {`},
}

// TestDefects builds this package's tests with the defects and runs TestTakeovers with each of
// them.
func TestDefects(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the tests again")
	}
	root, err := overlay.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const dir = "internal/jetlog/fenced/"
	edits := []overlay.Edit{{File: dir + "errors.go", Old: "\nvar errClosed", New: "\nfunc on(defect string) bool { return os.Getenv(\"DEFECT\") == defect }\n\nvar errClosed", Imports: []string{"os"}}}
	for _, d := range defects {
		edits = append(edits, overlay.Edit{File: dir + d.file, Old: d.old, New: d.new})
	}
	tmp := t.TempDir()
	list, err := overlay.Write(root, tmp, "defects", edits)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(tmp, "defects.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", list, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range append([]string{""}, names()...) {
		t.Run(strings.ReplaceAll("defect "+name, " ", "-"), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program, "-test.run", "^(TestTakeovers|TestOneFenceIsEnough)$", "-test.timeout", "60s", "-test.failfast", "-seeds", "600")
			cmd.Env = append(os.Environ(), "DEFECT="+name)
			out, err := cmd.CombinedOutput()
			switch {
			case name == "" && err != nil:
				t.Fatalf("without a defect: %v\n%s", err, out)
			case name != "" && err == nil:
				t.Fatal("no test failed")
			case name != "":
				t.Log(firstLine(string(out)))
			}
		})
	}
}

func names() (list []string) {
	for _, d := range defects {
		list = append(list, d.name)
	}
	return list
}

func firstLine(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "_test.go:") {
			return strings.TrimSpace(line)
		}
	}
	return out
}
