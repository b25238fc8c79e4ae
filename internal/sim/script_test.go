package sim

import (
	"os"
	"path/filepath"
	"testing"
)

// scripts calls each for every script in testdata, in the order of file names.
func scripts(t *testing.T, each func(t *testing.T, o Options, actions []Action, mutant string)) {
	names, err := filepath.Glob("testdata/*.sim")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts under testdata: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			o, actions, mutant, err := ParseScript(string(text))
			if err != nil {
				t.Fatal(err)
			}
			each(t, o, actions, mutant)
		})
	}
}

// TestScripts runs the scripts that once failed. They must not fail now.
func TestScripts(t *testing.T) {
	scripts(t, func(t *testing.T, o Options, actions []Action, _ string) {
		if r := Play(o, actions, true); r.Violation != "" {
			report(t, r)
		}
	})
}

// TestTextOfARun: a run that is written as a script, parsed and played must have the same result.
func TestTextOfARun(t *testing.T) {
	for seed := uint64(1); seed < 20; seed++ {
		first := Run(seed)
		o, actions, _, err := ParseScript(first.Text())
		if err != nil {
			t.Fatal(err)
		}
		if again := Play(o, actions, false); again.Counters != first.Counters || again.Violation != first.Violation {
			t.Errorf("seed %d: %+v, and from its text %+v", seed, first.Counters, again.Counters)
		}
	}
	if _, _, _, err := ParseScript("publish what"); err == nil {
		t.Error("a script with an unknown action was accepted")
	}
}
