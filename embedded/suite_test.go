package embedded

import (
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/brokertest"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// timed is a broker whose clock the suite moves.
type timed struct {
	surgetank.Broker
	clock *clock.Manual
}

func (t timed) Advance(d time.Duration) { t.clock.Advance(d) }

// TestSuite runs the suite for every Broker on a directory. Segments are small, so that the log
// needs several.
func TestSuite(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) surgetank.Broker {
		c := clock.NewManual(time.Now())
		b, err := Open(t.TempDir(), Options{Shards: shardstest.N, clock: c, SegmentBytes: 64 << 10, SnapshotBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return timed{b, c}
	})
}
