package queue

import "slices"

// sketch estimates the delivery rate of each group of a queue, in bounded memory. It is the
// space-saving algorithm (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k
// Elements in Data Streams, ICDT 2005). Counts are halved every minute, so that they become rates.
// Waiting and in-flight messages need no sketch, because flows count them exactly.
type sketch struct {
	entries []counted
	index   map[string]uint8 // each group's index in entries
	began   int64            // start of the present minute; 0: no group was counted
	earlier float64          // seconds of the earlier minutes, halved as counts are
}

// counted is a group's count. over is the part of the count that possibly belongs to groups that
// this group replaced.
type counted struct {
	group       string
	count, over float64
}

const (
	sketchSize   = 256
	sketchMinute = 60e9
	sampledMost  = 512 // after this many counted deliveries in a second, half as many are counted
)

// sample counts a delivery of a flow. In a busy queue it counts one delivery in 2^sampling, chosen
// by a hash of the message's number.
func (q *Queue) sample(h uint32, seq uint64) {
	t := &q.meter
	if seq*0x9E3779B97F4A7C15>>(64-t.sampling) != 0 {
		return
	}
	group := q.groupName(h)
	if group == "" {
		return
	}
	q.rates.add(group, float64(uint64(1)<<t.sampling), q.m.now)
	if t.sampled++; t.sampled >= sampledMost {
		t.sampling++
		t.sampled = 0
	}
}

func (s *sketch) add(group string, n float64, now int64) {
	if s.began == 0 {
		s.began, s.index = now, map[string]uint8{}
	}
	if i, ok := s.index[group]; ok {
		s.entries[i].count += n
		return
	}
	if len(s.entries) < sketchSize {
		s.index[group] = uint8(len(s.entries))
		s.entries = append(s.entries, counted{group, n, 0})
		return
	}
	least := 0
	for i := range s.entries {
		if s.entries[i].count < s.entries[least].count {
			least = i
		}
	}
	e := &s.entries[least]
	delete(s.index, e.group)
	s.index[group] = uint8(least)
	*e = counted{group, e.count + n, e.count}
}

// decay halves the counts for each minute that has passed. It forgets groups without deliveries.
func (s *sketch) decay(now int64) {
	if s.began == 0 || now-s.began < sketchMinute {
		return
	}
	for ; now-s.began >= sketchMinute && len(s.entries) > 0; s.began += sketchMinute {
		s.earlier = (s.earlier + sketchMinute/1e9) / 2
		for i := range s.entries {
			s.entries[i].count /= 2
			s.entries[i].over /= 2
		}
		s.entries = slices.DeleteFunc(s.entries, func(e counted) bool { return e.count < 0.25 })
	}
	if len(s.entries) == 0 {
		*s = sketch{}
		return
	}
	clear(s.index)
	for i := range s.entries {
		s.index[s.entries[i].group] = uint8(i)
	}
}

// rate returns a group's deliveries per second, or 0 if the sketch does not contain the group.
func (s *sketch) rate(group string, now int64) float64 {
	i, ok := s.index[group]
	if !ok {
		return 0
	}
	e := &s.entries[i]
	return (e.count - e.over) / max(10, s.earlier+float64(now-s.began)/1e9)
}
