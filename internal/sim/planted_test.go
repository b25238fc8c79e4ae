//go:build mutants

package sim

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/surgetank/surgetank/internal/mutant"
)

// clientsBlind are the defects that clients alone do not notice in a few thousand runs.
// HeldOvertaken shows only if one read fails and the next read of the same group succeeds. With
// SupersededRetried, clients see an order that is legal. The checks with the model detect these
// defects. accept.rate promises nothing about a message that is accepted. The order of transfers
// shows at crash points, where no consumer has removed messages from the line.
var clientsBlind = map[mutant.Defect]bool{mutant.HeldOvertaken: true, mutant.SupersededRetried: true, mutant.AcceptIgnored: true, mutant.TransferOvertaken: true}

// figures are the defects that are visible only in statistics or in the order between groups.
// Clients see nothing wrong.
var figures = map[mutant.Defect]bool{mutant.ReasonsForgotten: true, mutant.DelayAges: true, mutant.BackOffBlocked: true,
	mutant.WeightsIgnored: true, mutant.AlwaysNew: true, mutant.FreshStarved: true, mutant.PrioritiesDoNotAge: true, mutant.ReasonsAlike: true,
	mutant.AttemptLostDown: true, mutant.ProbeIgnored: true, mutant.AdaptiveIgnored: true, mutant.ReportIgnored: true}

// rare are the defects that show in about one of ten thousand runs, or of some hundred runs with
// several shards. testdata has a script for each, and TestPlantedScripts demands that the script
// shows the defect.
var rare = map[mutant.Defect]bool{mutant.AckUnrepaired: true, mutant.ArrivedHighest: true, mutant.TimelineIgnored: true, mutant.OutboxOvertaken: true, mutant.OutboxShared: true}

// needPlanted ends a test if this build has no defects, because only TestMutants makes such a
// build.
func needPlanted(t *testing.T) {
	t.Helper()
	if !mutant.Planted {
		t.Fatal("this build has no defects; run TestMutants with SURGETANK_SIM=mutants")
	}
}

// TestPlantedDefects breaks one promise after another on purpose. Each defect must be detected
// twice: once by the clients' checkers alone, without the model and without probes at crash points,
// and once by all checkers together.
func TestPlantedDefects(t *testing.T) {
	needPlanted(t)
	defer mutant.Set(mutant.None)
	for _, d := range mutant.All {
		if rare[d] {
			continue
		}
		mutant.Set(d)
		for _, alone := range []bool{false, true} {
			if alone && figures[d] {
				continue
			}
			var caught Result
			seed := uint64(1)
			for ; seed <= 3000 && caught.Violation == ""; seed++ {
				o := Draw(seed)
				if alone {
					o.Model, o.Probe = false, 0
				}
				caught = Play(o, Script(o), false)
			}
			who := map[bool]string{false: "all checkers", true: "clients alone"}[alone]
			switch {
			case caught.Violation != "":
				t.Logf("%s: %s: seed %d: %.160s", d, who, seed-1, caught.Violation)
			case alone && clientsBlind[d]:
				t.Logf("%s: %s cannot see it", d, who)
			default:
				t.Errorf("%s: %s: nothing noticed in %d seeds", d, who, seed-1)
			}
			if *writeFlag && !alone && d == mutant.TrimTooFar {
				text := "# mutant: " + string(d) + "\n" + Shrink(caught).Text()
				if err := os.WriteFile(filepath.Join("testdata", "trimmed-too-far.sim"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestPlantedShardDefects is TestPlantedDefects for the defects that only several shards show.
func TestPlantedShardDefects(t *testing.T) {
	needPlanted(t)
	defer mutant.Set(mutant.None)
	for _, d := range mutant.OfShards {
		if rare[d] {
			continue
		}
		for _, alone := range []bool{false, true} {
			if alone && clientsBlind[d] {
				continue
			}
			who := map[bool]string{false: "all checkers", true: "clients alone"}[alone]
			t.Run(string(d)+"/"+who, func(t *testing.T) {
				mutant.Set(d)
				var caught Result
				runs := 0
				for seed := uint64(1); runs < 1000 && caught.Violation == ""; seed++ {
					o := Draw(seed)
					if o.Shards < 2 {
						continue
					}
					if alone {
						o.Probe = 0
					}
					runs++
					caught = Play(o, Script(o), false)
				}
				switch {
				case caught.Violation != "":
					t.Logf("run %d, seed %d: %.160s", runs, caught.Options.Seed, caught.Violation)
				default:
					t.Errorf("nothing noticed in %d runs", runs)
				}
			})
		}
	}
}

// TestPlantedScripts: a script that names a defect must fail in a build with this defect.
func TestPlantedScripts(t *testing.T) {
	needPlanted(t)
	defer mutant.Set(mutant.None)
	shown := map[mutant.Defect]bool{}
	scripts(t, func(t *testing.T, o Options, actions []Action, d string) {
		if d == "" {
			t.Skip("the script names no defect")
		}
		shown[mutant.Defect(d)] = true
		if mutant.Set(mutant.Defect(d)); Play(o, actions, false).Violation == "" {
			t.Errorf("the defect %q is not noticed any more", d)
		}
	})
	for d := range rare {
		if !shown[d] {
			t.Errorf("no script shows the defect %q", d)
		}
	}
}
