// Package shardstest runs the tests of a package with several shards. A test file imports it, and
// the environment variable SURGETANK_TEST_SHARDS then sets the number of shards of every broker
// whose options set none.
package shardstest

import (
	"os"
	"strconv"

	"github.com/surgetank/surgetank/internal/shards"
)

// N is the number of shards of the tests.
var N = 1

func init() {
	if n, err := strconv.Atoi(os.Getenv("SURGETANK_TEST_SHARDS")); err == nil && n > 1 {
		N = n
		shards.SetTestShards(n)
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
