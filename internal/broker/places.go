package broker

import (
	"slices"
	"sort"
	"sync"

	"github.com/surgetank/surgetank/internal/commitlog"
)

// places maps entry numbers to log offsets. Numbers have no gaps, but offsets can have gaps.
// Consecutive entries mostly have consecutive offsets, so the map is a short list of runs.
type places struct {
	mu   sync.RWMutex
	runs []placeRun
	last uint64
}

type placeRun struct {
	number uint64
	offset commitlog.Offset
}

func (p *places) add(number uint64, at commitlog.Offset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = number
	if n := len(p.runs); n > 0 {
		if r := p.runs[n-1]; uint64(at-r.offset) == number-r.number {
			return
		}
	}
	p.runs = append(p.runs, placeRun{number, at})
}

// offset returns the offset of an entry. It returns false if the offset is not known or the entry
// is not durable.
func (p *places) offset(number uint64) (commitlog.Offset, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	i := sort.Search(len(p.runs), func(i int) bool { return p.runs[i].number > number }) - 1
	if i < 0 || number > p.last {
		return 0, false
	}
	return p.runs[i].offset + commitlog.Offset(number-p.runs[i].number), true
}

// number returns the number of the entry at an offset. It returns false if the number is not known.
func (p *places) number(at commitlog.Offset) (uint64, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	i := sort.Search(len(p.runs), func(i int) bool { return p.runs[i].offset > at }) - 1
	if i < 0 {
		return 0, false
	}
	n := p.runs[i].number + uint64(at-p.runs[i].offset)
	return n, n <= p.last && (i+1 == len(p.runs) || n < p.runs[i+1].number)
}

// trim removes runs that are completely before an entry.
func (p *places) trim(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.runs) > 1 && p.runs[1].number <= number {
		p.runs = p.runs[1:]
	}
}

// copy returns the runs up to an entry, for a snapshot up to that entry.
func (p *places) copy(number uint64) []placeRun {
	p.mu.RLock()
	defer p.mu.RUnlock()
	i := sort.Search(len(p.runs), func(i int) bool { return p.runs[i].number > number })
	return slices.Clone(p.runs[:i])
}
