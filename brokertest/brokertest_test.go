package brokertest_test

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/brokertest"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func TestMemory(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) surgetank.Broker {
		b, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	})
}

func TestDisk(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) surgetank.Broker {
		b, err := embedded.Open(t.TempDir(), embedded.Options{Shards: shardstest.N, SegmentBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	})
}
