package sink_test

import (
	"testing"

	"github.com/surgetank/surgetank/sink/sinktest"
)

func TestMemoryTarget(t *testing.T) {
	sinktest.Run(t, sinktest.Config{
		New:       func(_ *testing.T, seed uint64) sinktest.Harness { return sinktest.NewMemory(seed) },
		Bubble:    true,
		Histories: 500,
		Judge:     true,
	})
}
