package queue

// slotState is a message's state in its queue.
type slotState uint8

const (
	slotFree    slotState = iota // no message
	slotWaiting                  // in its flow's list or its heap of returned messages
	slotDelayed                  // in the queue's delayed heap; in no flow's list
	slotLeased                   // handed out; in no list
	slotDead                     // settled in the middle of a list; the slot is freed when it reaches the list's front
	slotHeld                     // cannot be read; in no list, and counts in its group (damage.go)
	slotLost                     // its body is lost for good; in no list, and blocks no message (damage.go)
	slotBehind                   // without a group, and follows a message with its coalescing key; in no list (coalesce.go)
)

// slotFact is a durable flag of a slot.
type slotFact uint8

// slotMark is a volatile flag of a slot. Facts and marks share one byte.
type slotMark uint8

const (
	slotRedelivered slotFact = 1 << 0 // the message was handed out before
	slotExpired     slotMark = 1 << 1 // the TTL passed while the message was leased or held, or its dead-letter queue was full
	slotNoted       slotFact = 1 << 2 // queue.notes has its dead-letter note
	slotInHeap      slotMark = 1 << 3 // in the flow's heap of returned messages, not in its list
	slotLate        slotFact = 1 << 4 // the publisher asked for a delay: slot.time is the end of the delay
)

// slot is the machine's memory of a waiting message: 28 bytes, no pointers. So a backlog adds
// little memory and little work for the garbage collector. A reference is stored as two halves
// because a 64-bit field would round the slot up to 32 bytes.
type slot struct {
	slotDurable
	slotVolatile
}

// slotDurable is the durable part of a slot. In bits, only the facts and the states dead and lost
// are durable. The methods to, mark and unmark change only the volatile bits.
type slotDurable struct {
	refLo, refHi uint32
	size         uint32 // bytes of the body
	flow         uint32 // handle of its group's flow
	time         uint32 // when it was confirmed or, if later, when its publisher's delay ends; seconds since slotEpoch
	attempts     uint16 // attempts that ended without an ack; saturates
	priority     uint8
	bits         uint8 // the state in the low 3 bits, flags above
}

// slotVolatile is the slot's link in a flow's list.
type slotVolatile struct {
	next uint32 // distance to the next message of the flow's list; 0: last; farNext: see queue.far
}

const (
	farNext   = 1<<32 - 1
	slotEpoch = 1_577_836_800 // 2020-01-01, so that 32 bits of seconds last until 2156
)

func (s *slot) ref() Ref         { return Ref(s.refHi)<<32 | Ref(s.refLo) }
func (s *slot) setRef(r Ref)     { s.refLo, s.refHi = uint32(r), uint32(r>>32) }
func (s *slot) state() slotState { return slotState(s.bits & 7) }
func (s *slot) nanos() int64     { return (int64(s.time) + slotEpoch) * 1e9 }

// moveTo changes the line of a message without a group, between the fresh line and the backlog
// line. The message's group and priority, which are the durable part of the handle, stay the same.
func (s *slot) moveTo(flow uint32) { s.flow = flow }
func (s *slot) live() bool         { st := s.state(); return st != slotFree && st != slotDead }
func (s *slot) setTime(now int64)  { s.time = uint32(max(0, now/1e9-slotEpoch)) }

func (s *slot) has(f slotFact) bool    { return s.bits&uint8(f<<3) != 0 }
func (s *slot) set(f slotFact)         { s.bits |= uint8(f << 3) }
func (s *slot) marked(f slotMark) bool { return s.bits&uint8(f<<3) != 0 }
func (s *slot) mark(f slotMark)        { s.bits |= uint8(f << 3) }
func (s *slot) unmark(f slotMark)      { s.bits &^= uint8(f << 3) }

// to sets a volatile state. kill and lose set the durable ones.
func (s *slot) to(st slotState) { s.bits = s.bits&^7 | uint8(st) }
func (s *slot) kill()           { s.to(slotDead) }
func (s *slot) lose()           { s.to(slotLost) }

// chunkSlots is the number of slots in one chunk: 1,792 bytes, one of the allocator's sizes.
const chunkSlots = 64

type chunk struct {
	slots *[chunkSlots]slot
	keys  *[chunkSlots]uint32 // for each message, its row in slots.keys; 0: no coalescing key; nil: no message has one
	used  uint16              // slots in use
	saved uint32              // generation of the newest snapshot that contains this chunk
}

// slots is a queue's messages by sequence number. It is a window of chunks that moves up as the
// oldest messages are settled.
type slots struct {
	queue  uint64 // the id of the queue, for snapshots
	chunks []chunk
	first  uint64    // index of chunks[0]: its lowest seq / chunkSlots
	lead   int       // chunks[:lead] are known to be empty
	snap   *snapshot // the snapshot under way; its method before is called before a chunk changes

	keys table[keyState] // the messages with a coalescing key; the index has the last message of each chain
}

// get returns the slot of seq for reading, or nil.
func (t *slots) get(seq uint64) *slot {
	i := seq/chunkSlots - t.first
	if seq/chunkSlots < t.first || i >= uint64(len(t.chunks)) || t.chunks[i].slots == nil {
		return nil
	}
	return &t.chunks[i].slots[seq%chunkSlots]
}

// edit returns the slot of seq for writing, or nil.
func (t *slots) edit(seq uint64) *slot {
	i := seq/chunkSlots - t.first
	if seq/chunkSlots < t.first || i >= uint64(len(t.chunks)) || t.chunks[i].slots == nil {
		return nil
	}
	c := &t.chunks[i]
	if t.snap != nil {
		t.snap.before(t, seq/chunkSlots, c)
	}
	return &c.slots[seq%chunkSlots]
}

// add creates the slot of seq, which must be free. New messages are added in ascending order,
// messages of a snapshot in any order.
func (t *slots) add(seq uint64) *slot {
	c := t.chunkAt(seq / chunkSlots)
	if t.snap != nil {
		t.snap.before(t, seq/chunkSlots, c)
	}
	if c.slots == nil {
		c.slots = new([chunkSlots]slot)
	}
	c.used++
	return &c.slots[seq%chunkSlots]
}

// chunkAt returns a chunk. It widens the window as needed.
func (t *slots) chunkAt(index uint64) *chunk {
	if len(t.chunks) == 0 {
		t.first = index
	}
	if index < t.first+uint64(t.lead) {
		t.lead = 0
	}
	if index < t.first {
		t.chunks = append(make([]chunk, t.first-index), t.chunks...)
		t.first = index
	}
	for index-t.first >= uint64(len(t.chunks)) {
		t.chunks = append(t.chunks, chunk{})
	}
	return &t.chunks[index-t.first]
}

// free empties the slot of a message that was removed. It frees the memory of an empty chunk.
func (t *slots) free(seq uint64) {
	i := seq/chunkSlots - t.first
	c := &t.chunks[i]
	if t.snap != nil {
		t.snap.before(t, seq/chunkSlots, c)
	}
	c.slots[seq%chunkSlots] = slot{}
	c.used--
	if c.used > 0 {
		return
	}
	c.slots, c.keys = nil, nil
	// The window's lower end moves up over empty chunks. The memory of the window is freed when
	// half of it is unused.
	for t.lead < len(t.chunks) && t.chunks[t.lead].slots == nil {
		t.lead++
	}
	switch n := t.lead; {
	case n == len(t.chunks):
		t.chunks, t.first, t.lead = t.chunks[:0], 0, 0
		if cap(t.chunks) > 64 {
			t.chunks = nil
		}
	case n > 64 && n > len(t.chunks)/2:
		t.chunks = append([]chunk(nil), t.chunks[n:]...)
		t.first += uint64(n)
		t.lead = 0
	}
}

// scan calls f as ascend does, for at most n slots. A free slot also counts, and an empty chunk
// counts as one slot. scan returns the number of slots that it looked at, and where to continue.
// next is 0 if scan reached the end or f returned false.
func (t *slots) scan(from uint64, n int, f func(seq uint64, s *slot) bool) (next uint64, looked int) {
	i := uint64(t.lead)
	if from/chunkSlots > t.first+i {
		i = from/chunkSlots - t.first
	}
	for ; i < uint64(len(t.chunks)); i++ {
		c := &t.chunks[i]
		seq := max(from, (t.first+i)*chunkSlots)
		for end := (t.first + i + 1) * chunkSlots; seq < end; seq++ {
			if looked >= n {
				return seq, looked
			}
			looked++
			if c.slots == nil {
				break
			}
			if s := &c.slots[seq%chunkSlots]; s.state() != slotFree && !f(seq, s) {
				return 0, looked
			}
		}
	}
	return 0, looked
}

// ascend calls f for every slot that is not free, from a seq on, in ascending order. It stops when
// f returns false.
func (t *slots) ascend(from uint64, f func(seq uint64, s *slot) bool) {
	i := uint64(t.lead)
	if from/chunkSlots > t.first+i {
		i = from/chunkSlots - t.first
	}
	for ; i < uint64(len(t.chunks)); i++ {
		c := &t.chunks[i]
		if c.slots == nil {
			continue
		}
		base := (t.first + i) * chunkSlots
		for j := range c.slots {
			if s := &c.slots[j]; s.state() != slotFree && base+uint64(j) >= from && !f(base+uint64(j), s) {
				return
			}
		}
	}
}
