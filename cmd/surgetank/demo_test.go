package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/pgtest"
)

// TestDemoIntoPostgres drains the demo into a real PostgreSQL, and kills the server once on the
// way.
func TestDemoIntoPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("a run of real processes; not under -short")
	}
	pg := pgtest.Start(t)
	binary := filepath.Join(t.TempDir(), "surgetank")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, "demo", "-n", "6000", "--rate", "6000/s", "--crash", "--sink", pg.DSN("postgres"))
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	if !strings.HasSuffix(stdout.String(), "\npublished 6000  applied 6000  lost 0  doubled 0\n") {
		t.Errorf("output:\n%s", stdout.String())
	}
	if left := pg.Query(t, pg.DSN("postgres"), "SELECT tablename FROM pg_tables WHERE tablename LIKE 'surgetank_demo%'"); len(left) != 0 {
		t.Errorf("tables were left behind: %v", left)
	}
}
