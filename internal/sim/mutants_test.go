//go:build mutants

package sim

import (
	"testing"

	"github.com/surgetank/surgetank/internal/mutant"
)

// TestMutants breaks one promise after the other on purpose and wants a checker to notice each time.
//
//	go test -tags mutants ./internal/sim -run Mutants -v
func TestMutants(t *testing.T) {
	defer mutant.Set(mutant.None)
	for _, d := range mutant.All {
		mutant.Set(d)
		caught := ""
		var seed uint64
		for seed = 1; seed <= 3000 && caught == ""; seed++ {
			caught = Run(seed).Violation
		}
		if caught == "" {
			t.Errorf("%s: no checker noticed in %d seeds", d, seed-1)
			continue
		}
		t.Logf("%s: seed %d: %.160s", d, seed-1, caught)
	}
}
