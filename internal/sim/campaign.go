package sim

import (
	"runtime"
	"sync"
)

// Campaign runs many seeds, several at a time. Each seed is a run of its own, so the order in which
// they are done changes nothing.
type Campaign struct {
	First   uint64 // seed
	Seeds   int64  // how many
	States  int64  // enough crash states: no further seed is begun then; 0: all seeds
	Workers int    // 0: one a processor
	Most    int    // failures; then no further seed is begun; 0: 3
	// Done, if not nil, is called after every run with the sum so far and the number of runs that
	// failed, one call at a time. It returns false to end the campaign.
	Done func(sum *Counters, failed int) bool
}

// Run gives the sum of what was reached, the runs that failed, and the first seed that was not
// begun.
func (c Campaign) Run() (sum Counters, failed []Result, next uint64) {
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Most == 0 {
		c.Most = 3
	}
	next = c.First
	var mu sync.Mutex // guards everything that follows
	over := false
	var work sync.WaitGroup
	for range c.Workers {
		work.Go(func() {
			for {
				mu.Lock()
				if over || next-c.First >= uint64(c.Seeds) {
					mu.Unlock()
					return
				}
				s := next
				next++
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
