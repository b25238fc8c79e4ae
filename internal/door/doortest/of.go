package doortest

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Of is door.Of for tests: an error ends the test.
func Of(t testing.TB, b surgetank.Broker) door.Broker {
	t.Helper()
	d, err := door.Of(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
