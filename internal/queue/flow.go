package queue

// flow is a group's line: its waiting messages in order, and what its limits need to know. Messages
// without a group share one flow a priority. The slab of flows has one small element a live group;
// a flow without messages and leases is freed and its handle used again.
//
//	front ─▶ the smaller of   head ─▶ s ─▶ s ─▶ … ─▶ tail     never handed out yet, linked through the slots
//	                          min of returned                 came back; a heap by seq, kept beside the queue
type flow struct {
	name       string
	head, tail uint64 // 0: the list is empty
	waiting    uint32 // in the list or the heap, dead slots not counted
	open       uint32 // of waiting: may be handed out as far as the group is concerned
	inflight   uint32 // leased or held
	delayed    uint32 // in the queue's delayed heap, or lost
	holder     uint64 // the consumer that has all leased ones; 0: several have
	returned   uint32 // in the heap, dead ones included
	place      int32  // in the queue's ready heap; -1: not there
	priority   uint8  // of the front message, while it is in the ready heap
	free       bool
	backs      uint32 // of waiting: back off
	wakeAt     int64  // the entry of queue.wake for its rate
	tat        int64  // group rate: when the next hand-out is due (see rate.go)
	served     uint64 // for fairness: above queue.turn as it was when last served, or equal to it when its line began
	front      uint64 // the front message, while it is in the ready heap
}

// seqHeap is a min-heap of sequence numbers.
type seqHeap []uint64

func (h *seqHeap) push(x uint64) {
	*h = append(*h, x)
	s := *h
	for i := len(s) - 1; i > 0 && s[i] < s[(i-1)/2]; i = (i - 1) / 2 {
		s[i], s[(i-1)/2] = s[(i-1)/2], s[i]
	}
}

func (h *seqHeap) pop() uint64 {
	s := *h
	top, n := s[0], len(s)-1
	s[0] = s[n]
	s = s[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && s[c+1] < s[c] {
			c++
		}
		if s[i] <= s[c] {
			break
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
	*h = s
	return top
}

// ungrouped is the map key of the flow for messages without a group, one a priority. No group's
// name can be equal: names hold no control characters.
func flowKey(group string, priority uint8) string {
	if group != "" {
		return group
	}
	if priority == 0 {
		return ""
	}
	return string([]byte{0, priority})
}

// flowOf gives the handle of a message's flow, making it if need be.
func (q *Queue) flowOf(group string, priority uint8) uint32 {
	if group == "" && priority == 0 && len(q.flows) > 0 {
		return 0 // the first flow is that of plain messages and is never freed
	}
	if len(q.flows) == 0 {
		q.flows = append(q.flows, flow{place: -1})
		q.byGroup = map[string]uint32{"": 0}
		q.unnamed = 1
		if group == "" && priority == 0 {
			return 0
		}
	}
	key := flowKey(group, priority)
	if h, ok := q.byGroup[key]; ok {
		return h
	}
	var h uint32
	if n := len(q.freeFlows); n > 0 {
		h = q.freeFlows[n-1]
		q.freeFlows = q.freeFlows[:n-1]
		q.flows[h] = flow{name: key, place: -1, served: q.turn}
	} else {
		h = uint32(len(q.flows))
		q.flows = append(q.flows, flow{name: key, place: -1, served: q.turn})
	}
	q.byGroup[key] = h
	if group == "" {
		q.unnamed++
	}
	return h
}

// groupName gives the group of a flow as users know it.
func (q *Queue) groupName(h uint32) string {
	if n := q.flows[h].name; n != "" && n[0] != 0 {
		return n
	}
	return ""
}

// idle frees a flow that has nothing left to remember.
func (q *Queue) idle(h uint32) {
	f := &q.flows[h]
	if h == 0 || f.free || f.waiting+f.inflight+f.delayed+f.returned > 0 || f.head != 0 {
		return
	}
	if f.tat > q.m.now { // its rate must not be forgotten yet: look again then
		q.wakeFlow(h, f.tat)
		return
	}
	q.unready(h)
	delete(q.byGroup, f.name)
	if q.groupName(h) == "" {
		q.unnamed--
	}
	*f = flow{place: -1, free: true}
	q.freeFlows = append(q.freeFlows, h)
}

// link puts a new message at the end of its flow's list. s is its slot.
func (q *Queue) link(h uint32, seq uint64, s *slot) {
	f := &q.flows[h]
	s.to(slotWaiting)
	s.clear(slotInHeap)
	s.next = 0
	if f.head == 0 {
		f.head = seq
	} else {
		last := q.slots.edit(f.tail)
		if d := seq - f.tail; d < farNext {
			last.next = uint32(d)
		} else {
			last.next = farNext
			if q.far == nil {
				q.far = map[uint64]uint64{}
			}
			q.far[f.tail] = seq
		}
	}
	f.tail = seq
	f.waiting++
	q.waits(seq, s)
}

// giveBack puts a message that was taken from its flow back into it, at its old place.
func (q *Queue) giveBack(h uint32, seq uint64, s *slot) {
	f := &q.flows[h]
	s.to(slotWaiting)
	s.set(slotInHeap)
	if q.returned == nil {
		q.returned = map[uint32]*seqHeap{}
	}
	r := q.returned[h]
	if r == nil {
		r = new(seqHeap)
		q.returned[h] = r
	}
	r.push(seq)
	f.returned++
	f.waiting++
	q.waits(seq, s)
}

// next gives the message behind seq in a list.
func (q *Queue) after(seq uint64, s *slot) uint64 {
	switch s.next {
	case 0:
		return 0
	case farNext:
		n := q.far[seq]
		delete(q.far, seq)
		return n
	}
	return seq + uint64(s.next)
}

// frontOf gives the message of a flow that is first in order, passing dead slots and freeing them;
// 0: none waits.
func (q *Queue) frontOf(h uint32) uint64 {
	f := &q.flows[h]
	for f.head != 0 {
		s := q.slots.get(f.head)
		if s.state() != slotDead {
			break
		}
		q.dropHead(f, s)
	}
	if f.returned == 0 {
		return f.head
	}
	r := q.returned[h]
	for len(*r) > 0 {
		seq := (*r)[0]
		if s := q.slots.get(seq); s.state() != slotDead {
			if f.head != 0 && f.head < seq {
				return f.head
			}
			return seq
		}
		r.pop()
		f.returned--
		q.slots.free(seq)
	}
	delete(q.returned, h)
	return f.head
}

// dropHead unlinks a flow's first message and frees its slot.
func (q *Queue) dropHead(f *flow, s *slot) {
	seq := f.head
	f.head = q.after(seq, s)
	if f.head == 0 {
		f.tail = 0
	}
	q.slots.free(seq)
}

// takeFront removes a flow's front message from its line; its slot stays, for the caller to give it
// a state.
func (q *Queue) takeFront(h uint32, seq uint64, s *slot) {
	f := &q.flows[h]
	if s.has(slotInHeap) {
		q.returned[h].pop()
		f.returned--
		if len(*q.returned[h]) == 0 {
			delete(q.returned, h)
		}
		s.clear(slotInHeap)
	} else {
		f.head = q.after(seq, s)
		if f.head == 0 {
			f.tail = 0
		}
		s.next = 0
	}
	if f.waiting--; f.waiting == 0 {
		q.frontOf(h) // frees the dead slots that were behind it
	}
}
