package brokertest_test

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/brokertest"
	"github.com/surgetank/surgetank/embedded"
)

// counting is a Broker that wraps another.
type counting struct{ surgetank.Broker }

// A program with a Broker of its own tests it in a function such as TestBroker(t *testing.T).
func ExampleRun() {
	testBroker := func(t *testing.T) {
		brokertest.Run(t, func(t *testing.T) surgetank.Broker {
			b, err := embedded.Memory(embedded.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return counting{b}
		})
	}
	_ = testBroker
}
