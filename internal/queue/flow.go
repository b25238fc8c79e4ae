package queue

// flow is a group's line: its waiting messages in order, and the state of its limits. Messages
// without a group share one flow for each priority. The slice of flows has one small element for
// each live group. A flow without messages and leases is freed, and its handle is used again.
//
//	front ─▶ the smaller of   head ─▶ s ─▶ s ─▶ … ─▶ tail     never handed out, linked through the slots
//	                          min of returned                 returned; a heap by seq in queue.returned
type flow struct {
	name       string
	head, tail uint64 // 0: the list is empty
	waiting    uint32 // in the list or the heap; dead slots are not counted
	open       uint32 // number of waiting messages that the group's limits let be handed out now
	inflight   uint32 // number of messages that are leased or held
	delayed    uint32 // number of messages in the queue's delayed heap, or lost
	holder     uint64 // the consumer that has all leases; 0: several consumers have leases
	returned   uint32 // number of messages in the heap of returned ones; dead slots are counted
	place      int32  // index in its ready heap, or the flow before it in its ring; -1: in neither
	priority   uint8  // of the front message, while it is in a heap or ring
	free       bool
	weight     uint16 // from group.weights; 0: the weight of other groups
	backs      uint32 // number of waiting messages that back off
	wakeAt     int64  // the time of its entry in queue.wake
	tat        int64  // group rate: when the next hand-out is due (see rate.go)
	front      uint64 // the front message, while the flow is in a heap or ring; without a sched its rank (placeOf)
	after      uint32 // the flow after it in its ring; in a heap, the front message's slot.time
	deficit    uint16 // hand-outs that are left of its turn (see ring.go)
	flags      uint8  // see sched.go
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

// flowKey returns the key of a flow in byGroup. Messages without a group have one flow for each
// priority. No group has such a key, because group names contain no control characters.
func flowKey(group string, priority uint8) string {
	if group != "" {
		return group
	}
	if priority == 0 {
		return ""
	}
	return string([]byte{0, priority})
}

// flowOf returns the handle of a message's flow. It creates the flow if there is none.
func (q *Queue) flowOf(group string, priority uint8) uint32 {
	if group == "" && priority == 0 && len(q.flows) > 0 {
		return 0 // the first flow is the one for messages without group and priority; it is never freed
	}
	if len(q.flows) == 0 {
		q.flows = append(q.flows, flow{place: -1})
		q.byGroup = map[string]uint32{"": 0}
		q.unnamed = 1
		if group == "" && priority == 0 {
			return 0
		}
	}
	return q.flowNamed(flowKey(group, priority), group)
}

// flowNamed returns the handle of the flow with a key. It creates the flow if there is none.
func (q *Queue) flowNamed(key, group string) uint32 {
	if h, ok := q.byGroup[key]; ok {
		return h
	}
	var h uint32
	if n := len(q.freeFlows); n > 0 {
		h = q.freeFlows[n-1]
		q.freeFlows = q.freeFlows[:n-1]
		q.flows[h] = flow{name: key, place: -1}
	} else {
		h = uint32(len(q.flows))
		q.flows = append(q.flows, flow{name: key, place: -1})
	}
	if w := q.config.Group.Weights; w != nil && group != "" {
		q.flows[h].weight = uint16(w[group])
	}
	q.byGroup[key] = h
	if group == "" {
		q.unnamed++
	}
	return h
}

// groupName returns the group of a flow as users know it; "" if it has none.
func (q *Queue) groupName(h uint32) string {
	if n := q.flows[h].name; n != "" && n[0] != 0 {
		return n
	}
	return ""
}

// idle frees a flow that has no state left.
func (q *Queue) idle(h uint32) {
	f := &q.flows[h]
	if h == 0 || f.free || f.waiting+f.inflight+f.delayed+f.returned > 0 || f.head != 0 {
		return
	}
	if f.tat > q.m.now { // the flow's rate limit still counts a hand-out: check again at the time tat
		q.wakeFlow(h, f.tat)
		return
	}
	if q.sched == nil {
		q.unready(h)
	} else if f.place >= 0 {
		return // the flow is freed when its turn comes
	}
	delete(q.byGroup, f.name)
	if q.groupName(h) == "" {
		q.unnamed--
	}
	*f = flow{place: -1, free: true}
	q.freeFlows = append(q.freeFlows, h)
}

// link appends a new message to its flow's list. s is its slot.
func (q *Queue) link(h uint32, seq uint64, s *slot) {
	f := &q.flows[h]
	s.to(slotWaiting)
	s.unmark(slotInHeap)
	s.next = 0
	if f.head == 0 {
		f.head = seq
	} else {
		q.setNext(f.tail, seq)
	}
	if k := q.slots.key(seq); k != nil {
		k.before = f.tail
	}
	f.tail = seq
	f.waiting++
	q.linedUp(seq, s)
}

// setNext sets the message after seq in a list; 0: none.
func (q *Queue) setNext(of, seq uint64) {
	s := q.slots.edit(of)
	if s.next == farNext {
		delete(q.far, of)
	}
	switch d := seq - of; {
	case seq == 0:
		s.next = 0
	case d < farNext:
		s.next = uint32(d)
	default:
		s.next = farNext
		if q.far == nil {
			q.far = map[uint64]uint64{}
		}
		q.far[of] = seq
	}
}

// giveBack puts a message that was removed from its flow back to its old position in the order.
func (q *Queue) giveBack(h uint32, seq uint64, s *slot) {
	f := &q.flows[h]
	s.to(slotWaiting)
	s.mark(slotInHeap)
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
	q.linedUp(seq, s)
}

// after returns the message after seq in a list.
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

// frontOf returns the first message of a flow, or 0 if none waits. It removes dead slots on the way
// and frees them.
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

// takeFront removes a flow's front message from its line. The message's slot stays, and the caller
// sets its next state.
func (q *Queue) takeFront(h uint32, seq uint64, s *slot) {
	f := &q.flows[h]
	if s.marked(slotInHeap) {
		q.returned[h].pop()
		f.returned--
		if len(*q.returned[h]) == 0 {
			delete(q.returned, h)
		}
		s.unmark(slotInHeap)
	} else {
		f.head = q.after(seq, s)
		if f.head == 0 {
			f.tail = 0
		}
		s.next = 0
	}
	if f.waiting--; f.waiting == 0 {
		q.frontOf(h) // frees the dead slots in front of the first live one
	}
}
