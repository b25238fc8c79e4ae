package sim

import (
	"runtime"
	"sync"
)

// Campaign runs many seeds, several at a time. Each seed is a separate run, so their order does not
// matter.
type Campaign struct {
	First   uint64 // the first seed
	Seeds   int64  // number of seeds
	States  int64  // after this many checked crash states no further seed starts; 0: all seeds run
	Workers int    // number of goroutines; 0: one for each processor
	Shards  bool   // only seeds with several shards run
	Most    int    // after this many failures no further seed starts; 0: 3
	// Done, if not nil, is called after every run with the sum so far and the number of failed
	// runs. Calls do not overlap. It returns false to end the campaign.
	Done func(sum *Counters, failed int) bool
}

// Run returns the sum of the counters, the failed runs, and the first seed that did not run.
func (c Campaign) Run() (sum Counters, failed []Result, next uint64) {
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Most == 0 {
		c.Most = 3
	}
	next = c.First
	var mu sync.Mutex // guards the variables below
	over, started := false, int64(0)
	var work sync.WaitGroup
	for range c.Workers {
		work.Go(func() {
			for {
				mu.Lock()
				if over || started >= c.Seeds {
					mu.Unlock()
					return
				}
				for c.Shards && Draw(next).Shards < 2 {
					next++
				}
				s := next
				next++
				started++
				mu.Unlock()
				r := Run(s)
				mu.Lock()
				sum.Add(&r.Counters)
				if r.Violation != "" {
					failed = append(failed, r)
				}
				over = over || len(failed) >= c.Most || c.States > 0 && sum.N[CrashStates] >= c.States || c.Done != nil && !c.Done(&sum, len(failed))
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return sum, failed, next
}
