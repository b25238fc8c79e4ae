//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/mutant"
	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/history"
)

// gone are the findings of power cuts and failing disks about a server that confirms too early.
var gone = []string{"lost", "unsettled", "redelivered", "life cycle", "id reused", "queue lost", "start", "counts", "dead letter lost", "stored twice", "order"}

// mutants are servers with one defect each, the scenarios that must find it, and the accepted
// findings.
var mutants = []struct {
	name      string
	defect    mutant.Defect
	change    change
	scenarios []string
	findings  []string
	test      string // instead of scenarios: a package and its test that must fail
}{
	{name: "confirm before the write", defect: mutant.EarlyRelease, scenarios: []string{"D8", "D9", "P2"},
		findings: []string{"lost", "unsettled", "confirmed after the error", "redelivered", "life cycle", "id reused"}},
	{name: "ack not logged", defect: mutant.AckNotLogged, scenarios: []string{"P1"}, findings: []string{"redelivered", "life cycle"}},
	{name: "leases end early", defect: mutant.EarlyDeadline, scenarios: []string{"P1", "N41"}, findings: []string{"two leases", "life cycle", "group in flight"}},
	{name: "groups overtaken", defect: mutant.StrictOvertaken, scenarios: []string{"P1", "A53"}, findings: []string{"order"}},
	{name: "poison dropped", defect: mutant.PoisonDropped, scenarios: []string{"A53"}, findings: []string{"unsettled", "poison"}},
	{name: "given back is acked", defect: mutant.GiveBackLost, scenarios: []string{"N40", "N41", "Q1"}, findings: []string{"lost", "unsettled"}},
	{name: "sync errors ignored", scenarios: []string{"D8"}, findings: []string{"went on", "confirmed after the error"},
		change: change{"internal/vfs/os_linux.go", "if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) {\n\t\t\t\treturn err", "if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) {\n\t\t\t\treturn nil"}},
	{name: "nothing is synced", scenarios: []string{"C19", "C21", "C20e"}, findings: gone,
		change: change{"internal/vfs/os_linux.go", "func (f osFile) Sync() error {\n", "func (f osFile) Sync() error {\n\treturn nil\n"}},
	{name: "directories are not synced", scenarios: []string{"C19", "C23"}, findings: gone,
		change: change{"internal/vfs/os_unix.go", "func (OS) SyncDir(dir string) error {\n", "func (OS) SyncDir(dir string) error {\n\treturn nil\n"}},
	{name: "the data directory's name is not synced", scenarios: []string{"C19"}, findings: gone,
		change: change{"internal/vfs/os.go", "\treturn o.SyncDir(filepath.Dir(dir))\n", "\treturn nil\n"}},
	{name: "a failed sync is repeated", scenarios: []string{"D8x"}, findings: append([]string{"met"}, gone...),
		change: change{"internal/vfs/os_linux.go", "unix.Fdatasync(fd); !errors.Is(err, unix.EINTR)", "unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EIO)"}},
	{name: "the tail is trusted after a restart", scenarios: []string{"D8x"}, findings: gone,
		change: change{"internal/disklog/open.go", "case !t.found.clean():", "case false:"}},
	{name: "the wall clock is believed", scenarios: []string{"T30"}, findings: []string{"delay", "expiry", "lease", "two leases", "life cycle", "group in flight"},
		change: change{"internal/clock/clock.go", "{ return time.Now() }", "{ return time.Now().Round(0) }"}},
	{name: "a sink's progress is committed apart from its rows", scenarios: []string{"S2"}, findings: []string{"row lost", "row doubled"},
		change: change{"sink/postgres/lane.go", "\t\t_, err := l.conn.CopyFrom(ctx, data, l.begin()+l.guard.moved(l.l.advance(&l.claim, l.number, p))+\"; \"+sql+after)\n",
			"\t\tif err := exec(ctx, l.conn.PgConn, l.begin()+l.guard.moved(l.l.advance(&l.claim, l.number, p))); err != nil {\n\t\t\treturn err\n\t\t}\n" +
				"\t\t_, err := l.conn.CopyFrom(ctx, data, l.begin()+sql+after)\n"}},
	{name: "a snapshot is trusted without its checksum", test: "internal/disklog TestSnapshotDamage",
		change: change{"internal/disklog/snapshots.go", "if crc32.Update(base, castagnoli, b) != sum {", "if false {"}},
	{name: "lock not taken", scenarios: []string{"B29"}, findings: []string{"two servers"},
		change: change{"internal/vfs/os_unix.go", "case errors.Is(err, unix.EWOULDBLOCK):\n\t\t\treturn false, nil", "case errors.Is(err, unix.EWOULDBLOCK):\n\t\t\treturn true, nil"}},
}

// If a defect's text is missing in the source, the mutant has no defect. So every run checks the
// texts.
func TestMutantsFitTheSource(t *testing.T) {
	root, err := build.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		if m.change.file == "" {
			continue
		}
		if _, err := build.Overlay(root, t.TempDir(), "defect", shared([]change{m.change})); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestMutantsAreCaught builds each server with its defect and lets the campaign look for it. It
// takes minutes, so it runs only with SURGETANK_FAULTS=mutants in the environment.
func TestMutantsAreCaught(t *testing.T) {
	if os.Getenv("SURGETANK_FAULTS") != "mutants" {
		t.Skip("runs with SURGETANK_FAULTS=mutants in the environment (make faults)")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			if m.test != "" {
				mustFail(t, m.test, m.change)
				return
			}
			c := campaign{say: t.Logf, binary: mutated(t, m.defect, m.change)}
			done, err := c.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			defer func() { _ = os.RemoveAll(c.dir) }() // its failures are expected
			said := ""
			for try := range 3 {
				for _, s := range scenarios {
					if !slices.Contains(m.scenarios, s.id) {
						continue
					}
					s.id = fmt.Sprintf("%s-%d", s.id, try)
					w := c.perform(t.Context(), s)
					if w.Skipped != "" {
						t.Skipf("SKIPPED: %s", w.Skipped)
					}
					for _, f := range w.Report.Findings {
						if slices.Contains(m.findings, f.Check) && w.verdict() != history.Pass {
							t.Logf("caught by %s: %s", s.id, f)
							return
						}
					}
					said += w.line() + w.details("")
				}
			}
			t.Errorf("not caught by name:\n%s", said)
		})
	}
}

// mutated makes a server with a defect.
func mutated(t *testing.T, d mutant.Defect, ch change) string {
	t.Helper()
	if d != mutant.None {
		ch = change{file: "internal/mutant/off.go", new: fmt.Sprintf("//go:build !mutants\n\npackage mutant\n\nfunc Is(d Defect) bool { return d == %q }\n", d)}
	}
	binary, err := buildServer(t.Context(), t.TempDir(), "surgetank", "", []change{ch})
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// mustFail runs a test of the project with a defect. That test itself must fail.
func mustFail(t *testing.T, test string, ch change) {
	t.Helper()
	pkg, name, _ := strings.Cut(test, " ")
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := overlay(root, t.TempDir(), "defect", []change{ch})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay", list, "-run", "^"+name+"$", "./"+pkg)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: "+name) {
		t.Fatalf("not caught by name: %v\n%s", err, out)
	}
	t.Logf("caught by %s: %.300s", name, out)
}
