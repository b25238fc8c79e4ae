package fenced

import (
	"cmp"
	"slices"
	"sync"
)

// known are the valid positions of the log, as runs: in each epoch the first blobs are valid, so a
// position and a number describe them. Positions up to base were not replayed and are not known.
type known struct {
	mu    sync.RWMutex
	first uint64 // the first position that is stored
	fence uint64 // position of the F record of this opening, at which the replay ends
	base  uint64
	state rule  // after base
	runs  []run // by ascending epoch
	ended bool  // the replay was read to its end
}

// run is one epoch: the positions epoch+1 to last are valid.
type run struct{ epoch, last uint64 }

// opened sets the first stored position and the end of the replay.
func (k *known) opened(first, fence uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.first, k.fence = first, fence
}

func (k *known) from() uint64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.first
}

// start begins a replay after base, in a state of the rule.
func (k *known) start(base uint64, r rule) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.base, k.state, k.runs, k.ended = base, r, nil, false
	if r.epoch > 0 {
		k.runs = []run{{r.epoch, r.epoch + r.n}}
	}
}

// end says that the replay was read to its end.
func (k *known) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
}

// begin records an F record.
func (k *known) begin(at uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.runs = append(k.runs, run{at, at})
}

// extend records a valid blob of an epoch.
func (k *known) extend(epoch, at uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.runs); n > 0 && k.runs[n-1].epoch == epoch {
		k.runs[n-1].last = at
		return
	}
	k.runs = append(k.runs, run{epoch, at}) // the replay was not read to its end
}

// has reports whether the record at a position can be valid, and whether that is sure.
func (k *known) has(at uint64) (possible, sure bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if at <= k.base || at <= k.fence && !k.ended {
		return at > 0, false
	}
	_, sure = k.find(at)
	return sure, sure
}

// find returns the run of a valid position. mu is locked.
func (k *known) find(at uint64) (run, bool) {
	i, _ := slices.BinarySearchFunc(k.runs, at, func(r run, at uint64) int { return cmp.Compare(r.epoch, at) })
	if i == 0 || at > k.runs[i-1].last { // an F record is not valid in this sense
		return run{}, false
	}
	return k.runs[i-1], true
}

// at returns the state of the rule after a valid position, or false if that is not known.
func (k *known) at(at uint64) (rule, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if at == k.base && k.state.epoch > 0 {
		return k.state, true
	}
	r, ok := k.find(at)
	if !ok || at <= k.fence && !k.ended {
		return rule{}, false
	}
	return rule{r.epoch, at - r.epoch}, true
}

// forget drops the positions before one. The state after the newest valid position before it stays
// known, because the next snapshot can be one of that position.
func (k *known) forget(before uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.first = max(k.first, before)
	i := 0
	for i+1 < len(k.runs) && k.runs[i].last+1 < before {
		i++
	}
	k.runs = slices.Delete(k.runs, 0, i)
}
