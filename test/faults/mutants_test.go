//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/failpoint"
	"github.com/surgetank/surgetank/internal/mutant"
	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/history"
)

// gone are the findings that reveal a server that confirms too early, under power cuts and failing
// disks.
var gone = []string{"lost", "unsettled", "redelivered", "life cycle", "id reused", "queue lost", "start", "counts", "dead letter lost", "stored twice", "order"}

// planted is a server with one defect, the scenarios that must find it, and the accepted findings.
// The defect comes from package mutant, or is a change in this file.
type planted struct {
	name      string
	defect    mutant.Defect
	change    change
	scenarios []string
	findings  []string
	test      string // used instead of scenarios: a package and its test that must fail
}

func (p planted) changes() []change {
	if p.defect != mutant.None {
		return mutant.Edits(p.defect)
	}
	return []change{p.change}
}

var mutants = []planted{
	{name: "confirm before the write", defect: mutant.EarlyRelease, scenarios: []string{"D8", "D9", "P2"},
		findings: []string{"lost", "unsettled", "confirmed after the error", "redelivered", "life cycle", "id reused"}},
	{name: "ack not logged", defect: mutant.AckNotLogged, scenarios: []string{"P1"}, findings: []string{"redelivered", "life cycle"}},
	{name: "leases end early", defect: mutant.EarlyDeadline, scenarios: []string{"P1", "N41"}, findings: []string{"two leases", "life cycle", "group in flight"}},
	{name: "groups overtaken", defect: mutant.StrictOvertaken, scenarios: []string{"P1", "A53"}, findings: []string{"order"}},
	{name: "poison dropped", defect: mutant.PoisonDropped, scenarios: []string{"A53"}, findings: []string{"unsettled", "poison"}},
	{name: "given back is acked", defect: mutant.GiveBackLost, scenarios: []string{"N40", "N41", "Q1"}, findings: []string{"lost", "unsettled"}},
	{name: "sync errors ignored", scenarios: []string{"D8"}, findings: []string{"went on", "confirmed after the error"},
		change: change{File: "internal/vfs/os_linux.go", Old: "if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) {\n\t\t\t\treturn err", New: "if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) {\n\t\t\t\treturn nil"}},
	{name: "nothing is synced", scenarios: []string{"C19", "C21", "C20e"}, findings: gone,
		change: change{File: "internal/vfs/os_linux.go", Old: "func (f osFile) Sync() error {\n", New: "func (f osFile) Sync() error {\n\treturn nil\n"}},
	{name: "directories are not synced", scenarios: []string{"C19", "C23"}, findings: gone,
		change: change{File: "internal/vfs/os_unix.go", Old: "func (OS) SyncDir(dir string) error {\n", New: "func (OS) SyncDir(dir string) error {\n\treturn nil\n"}},
	{name: "the data directory's name is not synced", scenarios: []string{"C19"}, findings: gone,
		change: change{File: "internal/vfs/os.go", Old: "\treturn o.SyncDir(filepath.Dir(dir))\n", New: "\treturn nil\n"}},
	{name: "a failed sync is repeated", scenarios: []string{"D8x"}, findings: append([]string{"met"}, gone...),
		change: change{File: "internal/vfs/os_linux.go", Old: "unix.Fdatasync(fd); !errors.Is(err, unix.EINTR)", New: "unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EIO)"}},
	{name: "the tail is trusted after a restart", scenarios: []string{"D8x"}, findings: gone,
		change: change{File: "internal/disklog/open.go", Old: "case !t.found.clean():", New: "case false:"}},
	{name: "the wall clock is believed", scenarios: []string{"T30"}, findings: []string{"delay", "expiry", "lease", "two leases", "life cycle", "group in flight"},
		change: change{File: "internal/clock/clock.go", Old: "{ return time.Now() }", New: "{ return time.Now().Round(0) }"}},
	{name: "a sink's progress is committed apart from its rows", scenarios: []string{"S2"}, findings: []string{"row lost", "row doubled"},
		change: change{File: "sink/postgres/lane.go", Old: "\t\t_, err := l.conn.CopyFrom(ctx, data, l.begin()+l.guard.moved(l.l.advance(&l.claim, l.number, p))+\"; \"+sql+after)\n",
			New: "\t\tif err := exec(ctx, l.conn.PgConn, l.begin()+l.guard.moved(l.l.advance(&l.claim, l.number, p))); err != nil {\n\t\t\treturn err\n\t\t}\n" +
				"\t\t_, err := l.conn.CopyFrom(ctx, data, l.begin()+sql+after)\n"}},
	{name: "a snapshot is trusted without its checksum", test: "internal/disklog TestSnapshotDamage",
		change: change{File: "internal/disklog/snapshots.go", Old: "if crc32.Update(base, castagnoli, b) != sum {", New: "if false {"}},
	{name: "lock not taken", scenarios: []string{"B29"}, findings: []string{"two servers"},
		change: change{File: "internal/vfs/os_unix.go", Old: "case errors.Is(err, unix.EWOULDBLOCK):\n\t\t\treturn false, nil", New: "case errors.Is(err, unix.EWOULDBLOCK):\n\t\t\treturn true, nil"}},
}

// If a defect's text is missing in the source, the mutant has no defect. So every run checks these
// texts, and the texts of the campaign's other special builds.
func TestMutantsFitTheSource(t *testing.T) {
	root, err := build.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		if _, err := build.Overlay(root, t.TempDir(), "defect", m.changes()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	for _, changes := range [][]change{slices.Concat(failpoint.Edits(), smallLog), nextFormat} {
		if _, err := build.Overlay(root, t.TempDir(), "build", changes); err != nil {
			t.Error(err)
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
				mustFail(t, m.test, m.changes())
				return
			}
			c := campaign{say: t.Logf, binary: mutated(t, m.changes())}
			done, err := c.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			defer func() { _ = os.RemoveAll(c.dir) }() // kept files are not needed: the failures are expected
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
func mutated(t *testing.T, changes []change) string {
	t.Helper()
	binary, err := buildServer(t.Context(), t.TempDir(), "surgetank", changes)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// mustFail runs a test of the project on the source with a defect. The test must fail by name.
func mustFail(t *testing.T, test string, changes []change) {
	t.Helper()
	pkg, name, _ := strings.Cut(test, " ")
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := build.Overlay(root, t.TempDir(), "defect", changes)
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
