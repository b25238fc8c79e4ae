// Package shardstest runs the tests of a package with several shards. The environment variable
// SURGETANK_TEST_SHARDS sets the number, and tests pass N to the brokers that they open.
package shardstest

import (
	"os"
	"strconv"
)

// N is the number of shards of the tests' brokers.
var N = 1

func init() {
	if n, err := strconv.Atoi(os.Getenv("SURGETANK_TEST_SHARDS")); err == nil && n > 1 {
		N = n
	}
}

// One skips a test that is about a broker with one shard.
func One(t interface {
	Helper()
	Skipf(string, ...any)
}, why string) {
	t.Helper()
	if N > 1 {
		t.Skipf("with several shards: %s", why)
	}
}
