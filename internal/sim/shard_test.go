package sim

import (
	"strings"
	"testing"
	"time"
)

// ShardSeeds runs the seeds with several shards only, from the first on.
func shardCampaign(first uint64, seeds int) (sum Counters, failed []Result, next uint64) {
	next = first
	for ; seeds > 0 && len(failed) < 3; next++ {
		if o := Draw(next); o.Shards > 1 {
			seeds--
			r := Play(o, Script(o), false)
			sum.Add(&r.Counters)
			if r.Violation != "" {
				failed = append(failed, r)
			}
		}
	}
	return sum, failed, next
}

func TestShards(t *testing.T) {
	start := time.Now()
	n := 40
	if *seedsFlag > 0 {
		n = *seedsFlag
	}
	sum, failed, next := shardCampaign(*firstFlag, n)
	for _, r := range failed {
		report(t, Shrink(r))
	}
	var table strings.Builder
	if err := sum.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("seeds up to %d, %v\n%s", next, time.Since(start), &table)
}
