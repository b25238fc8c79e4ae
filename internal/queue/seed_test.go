package queue

import "flag"

// The random scripts are the same in every run, so that a failure is due to the change under
// test. -rapid.seed=0 draws other scripts, for a long search with -rapid.checks.
func init() {
	if err := flag.Set("rapid.seed", "20261122"); err != nil {
		panic(err)
	}
}
