package sim

import (
	"flag"
	"os"
	"os/exec"
	"testing"

	"github.com/surgetank/surgetank/internal/mutant"
	"github.com/surgetank/surgetank/internal/overlay"
)

var writeFlag = flag.Bool("write", false, "write the smallest run that shows a defect of TestMutants to testdata")

// TestMutants builds this package's tests with all defects of package mutant and runs the tests of
// planted_test.go. It takes minutes, so it runs only with SURGETANK_SIM=mutants in the environment.
//
//	SURGETANK_SIM=mutants go test ./internal/sim -run Mutants -v
func TestMutants(t *testing.T) {
	if os.Getenv("SURGETANK_SIM") != "mutants" {
		t.Skip("runs with SURGETANK_SIM=mutants in the environment")
	}
	root, err := overlay.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := overlay.Write(root, t.TempDir(), "defects", mutant.Switchable())
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{"test", "-count=1", "-v", "-overlay", list, "-tags", "mutants", "-timeout", "0", "-run", "^TestPlanted", "."}
	if *writeFlag {
		argv = append(argv, "-write")
	}
	cmd := exec.CommandContext(t.Context(), "go", argv...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
