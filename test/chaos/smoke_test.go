package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/pgtest"
)

// TestSmoke is a small run: a few thousand lines and two kills each. `make chaos-main` starts the
// full run.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("a run of real processes; not under -short")
	}
	if _, err := pgtest.Find(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	sum, err := run(ctx, options{messages: 4000, kills: 2, lanes: 4, seed: 1, say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(sum)
	if !sum.ok() || sum.KilledServer != 2 || sum.KilledPostgres != 2 {
		t.Errorf("%+v", sum)
	}
}

// TestVerdict: the summary's verdict must fail for each kind of broken promise, because a check
// that cannot fail shows nothing.
func TestVerdict(t *testing.T) {
	good := summary{Messages: 5, Rows: 5}
	if !good.ok() {
		t.Error("a good run fails")
	}
	for name, bad := range map[string]summary{
		"lost": {Messages: 5, Rows: 5, Lost: 1}, "doubled": {Messages: 5, Rows: 5, Doubled: 1}, "damaged": {Messages: 5, Rows: 5, Damaged: 1},
		"order": {Messages: 5, Rows: 5, OutOfOrder: 1}, "parked": {Messages: 5, Rows: 5, Parked: 1}, "rows": {Messages: 5, Rows: 4},
	} {
		if bad.ok() {
			t.Errorf("%s: a bad run passes", name)
		}
	}
}

func TestWriteInput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in")
	base := [][]byte{[]byte(`{"payload":{"repository":{"full_name":"a/b"}}}`), []byte(`{}`)}
	e, err := writeInput(path, base, 3)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "{\"n\":1,\"payload\":{\"repository\":{\"full_name\":\"a/b\"}}}\n{\"n\":2}\n{\"n\":3,\"payload\":{\"repository\":{\"full_name\":\"a/b\"}}}\n"
	if string(got) != want || e.names[e.groups[0]] != "a/b" || e.names[e.groups[1]] != "" {
		t.Errorf("%s\n%v %v", got, e.names, e.groups)
	}
}
