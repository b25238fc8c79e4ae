package pgtest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestStandbyThatLags: a standby that was disconnected and then promoted lacks the changes after
// the disconnection.
func TestStandbyThatLags(t *testing.T) {
	bin, err := Find()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, nothing was tested: %v", err)
	}
	parent := t.TempDir()
	for p := parent; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil { // the user that runs the server must be able to enter the directory
			t.Fatal(err)
		}
	}
	if err := Template(bin, filepath.Join(parent, "template")); err != nil {
		t.Fatal(err)
	}
	s, err := NewFrom(bin, filepath.Join(parent, "template"), parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Exec(t, s.DSN("postgres"), "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	b, err := s.Standby()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.End)
	if err := b.StopFollowing(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, s.DSN("postgres"), "INSERT INTO t VALUES (2)")
	if err := s.TakeOver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if rows := s.Query(t, s.DSN("postgres"), "SELECT n FROM t"); len(rows) != 1 || rows[0][0] != "1" {
		t.Fatalf("rows %v; the promoted standby must not know the second", rows)
	}
}
