//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/surgetank/surgetank/test/kit/history"
)

// TestMain runs the tests in a mount namespace if possible.
func TestMain(m *testing.M) {
	_ = ownNamespace() // the scenarios that need a namespace are skipped without one
	os.Exit(m.Run())
}

// TestShort runs the quick scenarios of the campaign against a real server, with a few injections
// each. With SURGETANK_FAULTS=all in the environment it runs every scenario (about three minutes);
// with -short it runs only the first.
func TestShort(t *testing.T) {
	c := campaign{say: t.Logf}
	done, err := c.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	t.Logf("seed %d", c.seed)
	for i, s := range scenarios {
		if os.Getenv("SURGETANK_FAULTS") != "all" && !s.quick || testing.Short() && i > 0 {
			continue
		}
		t.Run(s.id, func(t *testing.T) {
			t.Parallel()
			w := c.perform(t.Context(), s)
			switch {
			case w.verdict() == history.Pass:
				t.Log(w.line() + w.details(""))
			case w.Skipped != "" && os.Getenv("CI") != "true":
				t.Skipf("SKIPPED: %s: %s", s.fault, w.Skipped)
			default:
				t.Errorf("seed %d\n%s", c.seed, w.line()+w.details(""))
			}
		})
	}
}
