package topology

import (
	"flag"
)

// The random scripts are the same in every run, so a failure comes from the change under test. For
// a long search, -rapid.seed=0 draws others and -rapid.checks sets their number.
func init() {
	if err := flag.Set("rapid.seed", "20261122"); err != nil {
		panic(err)
	}
}
