package queue

import (
	"maps"
	"slices"
)

// peaks are the largest sizes that Survey has seen. The maps do not shrink by themselves.
type peaks struct{ leases, notes, far, lapsed, backing, failed, groups, returned int }

const (
	// Compact makes a map smaller if its peak was at least compactFrom elements and its size is at
	// most its peak divided by compactBy.
	compactFrom = 1024
	compactBy   = 8
)

// Survey records the sizes of each queue's maps for Compact. It returns an estimate of the bytes of
// a snapshot. Call it between two turns.
func (m *Machine) Survey() (bytes int64) {
	const queueCost, slotCost, timeCost, idCost, keyCost = 256, 24, 16, 32, 36
	for _, q := range m.order {
		bytes += queueCost + slotCost*(q.waiting+q.delayedN+q.leased+q.damagedN) + timeCost*int64(len(q.delayed)+len(q.retries)+len(q.failed)+len(q.ttl)+len(q.flows)+len(q.notes)) +
			idCost*int64(q.dedup.line.len()) + keyCost*int64(q.slots.keys.used)
		p := &q.peaks
		p.leases, p.notes, p.far = max(p.leases, len(q.leases)), max(p.notes, len(q.notes)), max(p.far, len(q.far))
		p.lapsed, p.backing = max(p.lapsed, len(q.lapsed)), max(p.backing, len(q.backing))
		p.failed = max(p.failed, len(q.failed))
		p.groups, p.returned = max(p.groups, len(q.byGroup)), max(p.returned, len(q.returned))
	}
	bytes += publisherCost*int64(len(m.publishers.byID)) + holeCost*int64(m.publishers.holes)
	for _, names := range m.meta.spaces { // unordered: a sum
		for name, value := range names { // unordered: a sum
			bytes += int64(len(name) + len(value.Value))
		}
	}
	return bytes
}

// Compact frees the memory of maps and lists that have become much smaller than their peak. Call it
// between two turns, while there is little load.
func (m *Machine) Compact() {
	for _, q := range m.order {
		p := &q.peaks
		compactMap(&q.leases, &p.leases)
		compactMap(&q.notes, &p.notes)
		compactMap(&q.far, &p.far)
		compactMap(&q.lapsed, &p.lapsed)
		compactMap(&q.backing, &p.backing)
		compactMap(&q.failed, &p.failed)
		compactMap(&q.returned, &p.returned)
		q.dedup.expire(m.now)
		q.dedup.compact()
		compactMap(&q.byGroup, &p.groups)
		q.compactKeys()
		q.compactFlows()
	}
}

func compactMap[K comparable, V any](m *map[K]V, peak *int) {
	n := len(*m)
	if *peak < compactFrom || n > *peak/compactBy {
		return
	}
	*peak = n
	small := make(map[K]V, n)
	maps.Copy(small, *m)
	*m = small
}

// compactFlows removes the unused elements at the end of flows. New flows use the other unused
// elements.
func (q *Queue) compactFlows() {
	n := len(q.flows)
	for n > 1 && q.flows[n-1].free {
		n--
	}
	if cap(q.flows) < compactFrom || n > cap(q.flows)/compactBy {
		return
	}
	q.flows = slices.Clone(q.flows[:n])
	q.freeFlows = slices.Clone(slices.DeleteFunc(q.freeFlows, func(h uint32) bool { return int(h) >= n }))
	q.ready = slices.Clone(q.ready)
	if s := q.sched; s != nil {
		s.changed, s.joins = nil, nil
		for i := range s.sides {
			s.sides[i].heap = slices.Clone(s.sides[i].heap)
		}
	}
}
