package queue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank/internal/door"
)

// dump writes the durable state of a machine in one canonical form. Two machines with equal dumps
// hand out the same messages for the same commands. Times that have passed are left out, so a
// machine that has not handled its timers yet equals a machine that has handled them.
func dump(m *Machine, now int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d next %d openings %v\n", m.epoch, m.nextQueue, m.openings)
	fmt.Fprintf(&b, "rested %v\n", m.rested)
	m.meta.each(func(ns, name string, v door.MetaValue) {
		fmt.Fprintf(&b, "meta %q %q %q version %d\n", ns, name, v.Value, v.Version)
	})
	fmt.Fprintf(&b, "metadata version %d\n", m.meta.version)
	for p := m.publishers.oldest; p != nil; p = p.newer {
		if p.used+int64(PublisherKeep) > now {
			fmt.Fprintf(&b, "publisher %q used %d last %d floor %d holes %v run %d+%d at %d-%d\n", p.id, p.used, p.last, p.floor, p.holes, p.first, p.count, p.queue, p.seq)
			for _, x := range p.before {
				fmt.Fprintf(&b, "  before %+v\n", x)
			}
		}
	}
	fmt.Fprintf(&b, "failures %d of %d bytes\n", m.failures.count, m.failures.bytes)
	for _, q := range m.sorted() {
		fmt.Fprintf(&b, "queue %d %q next %d created %d config %+v pause %+v\n", q.id, q.name, q.nextSeq, q.created, q.config, q.pauseNote())
		fmt.Fprintf(&b, "  spans %v origin %+v arriving %v frozen %v\n", q.spans, q.origin, q.arriving, q.frozen)
		if q.freshFrom > q.Floor() {
			fmt.Fprintf(&b, "  fresh from %d\n", q.freshFrom)
		}
		notBefore, expires := durableTimes(q)
		q.slots.ascend(0, func(seq uint64, s *slot) bool {
			if !s.live() {
				return true
			}
			fmt.Fprintf(&b, "  %d at %d size %d group %q prio %d time %d attempts %d again %v", seq, s.ref(), s.size,
				q.groupName(s.flow), s.priority, s.time, s.attempts, s.has(slotRedelivered))
			if s.has(slotLate) {
				b.WriteString(" late")
			}
			if f := q.failureOf(seq); f != "" {
				fmt.Fprintf(&b, " failed %q", f)
			}
			if at := notBefore[seq]; at > now {
				fmt.Fprintf(&b, " not before %d", at)
			}
			if at, ok := expires[seq]; ok {
				fmt.Fprintf(&b, " expires %d", at)
			}
			if n := q.notes[seq]; s.has(slotNoted) {
				fmt.Fprintf(&b, " from %q %v %d trail %q", n.from, n.reason, n.refs, n.trail.names())
			}
			if k := q.slots.key(seq); k != nil {
				fmt.Fprintf(&b, " key %x since %d place %d count %d dead %v", q.slots.keys.at(q.slots.keyRow(seq)).key[:4], k.since, k.place, k.count, k.dead)
				if k.due > now && !s.has(slotRedelivered) {
					fmt.Fprintf(&b, " due %d", k.due)
				}
			}
			b.WriteByte('\n')
			return true
		})
		var ids []string
		for line := q.dedup.line.clone(); line.len() > 0; line.pop() {
			x := line.first()
			if x.until > now {
				ids = append(ids, fmt.Sprintf("  id %x of %d until %d\n", x.key, x.seq, x.until))
			}
		}
		slices.Sort(ids)
		b.WriteString(strings.Join(ids, ""))
	}
	return b.String()
}

// durableTimes returns the not-before and expiry times of a queue's messages, from all heaps and
// maps that contain such times.
func durableTimes(q *Queue) (notBefore, expires map[uint64]int64) {
	notBefore, expires = maps.Clone(q.backing), map[uint64]int64{}
	if notBefore == nil {
		notBefore = map[uint64]int64{}
	}
	for _, x := range slices.Concat(q.delayed, q.retries) {
		if s := q.slots.get(x.key); s != nil && s.state() == slotDelayed {
			notBefore[x.key] = x.at
		}
	}
	for _, x := range q.ttl {
		if s := q.slots.get(x.key); s != nil && s.live() {
			expires[x.key] = x.at
		}
	}
	if q.arriving {
		notBefore, expires = maps.Clone(q.due), maps.Clone(q.expiry)
	}
	q.slots.ascend(0, func(seq uint64, s *slot) bool {
		if s.live() && s.marked(slotExpired) {
			expires[seq] = q.lapsed[seq]
		}
		return true
	})
	return notBefore, expires
}

// check verifies the invariants between two turns. Counts agree with the slots. Every message is in
// exactly one list or heap. Heaps are in order. Leases agree with consumers. The log's extents
// agree with the references to them.
func check(t tb, m *Machine) {
	t.Helper()
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("invariant: "+format, args...)
	}
	held, poolHeld := map[*consumer]int{}, map[*pool]int{}
	live := extents{list: slices.Clone(m.extents.list)}
	for i := range live.list {
		live.list[i].live, live.list[i].count = 0, 0
	}
	refer := func(q *Queue, seq uint64, s *slot) {
		if s.live() {
			if s.state() != slotLost { // the log does not contain its body
				live.add(s.ref(), int64(s.size)+messageCost)
			}
			if s.has(slotNoted) {
				for _, ref := range q.notes[seq].refs {
					live.add(ref, noteCost)
				}
			}
		}
	}
	for _, r := range m.remains {
		if !r.q.gone || m.byID[r.q.id] == r.q {
			bad("queue %s is swept and not gone", r.q.name)
		}
		r.q.slots.ascend(r.next, func(seq uint64, s *slot) bool { refer(r.q, seq, s); return true })
	}
	if !slices.IsSortedFunc(m.order, func(a, b *Queue) int { return cmp.Compare(a.id, b.id) }) || len(m.order) != len(m.byID) {
		bad("%d queues are known, and in order are %d", len(m.byID), len(m.order))
	}
	checkPublishers(bad, &m.publishers)
	for _, q := range m.sorted() {
		if !q.arriving {
			checkQueue(bad, q)
		}
		for seq, l := range q.leases {
			held[l.consumer]++
			if l.consumer.pool != nil {
				poolHeld[l.consumer.pool]++
			}
			if l.deadline != 0 && !slices.Contains(q.deadlines, timed{l.deadline, seq}) {
				bad("queue %s: lease on %d has no deadline entry", q.name, seq)
			}
		}
		q.slots.ascend(0, func(seq uint64, s *slot) bool {
			refer(q, seq, s)
			return true
		})
		exclusives, singles := 0, 0
		for c := range q.consumers.all {
			if c.opts.Exclusive {
				exclusives++
			}
			if c.opts.Single {
				singles++
			}
			if c.seat.q != q || c.seat.pool != c.pool || c.pool != nil && c.pool.seatOf[q] != c.seat {
				bad("queue %s: consumer %d has another's seat", q.name, c.id)
			}
			if m.consumers[c.id] != c || c.q != q {
				bad("queue %s: consumer %d is listed but not known", q.name, c.id)
			}
			if c.queued() && c.seat.line.heap[c.spot.at-1].of != &c.spot {
				bad("queue %s: consumer %d is not where it says", q.name, c.id)
			}
			if c.willing() && c.active() && !c.queued() {
				bad("queue %s: consumer %d wants a message and is not in line", q.name, c.id)
			}
			first := c.seat.line.front()
			if parked := c.seat.isParked.in != nil; parked && !c.seat.full() || (c.seat.spot.at > 0) != (first != nil && !parked) {
				bad("queue %s: the seat of consumer %d is parked=%v, in line=%v", q.name, c.id, parked, c.seat.spot.at > 0)
			} else if c.seat.spot.at > 0 {
				if at := q.line.heap[c.seat.spot.at-1]; at.of != &c.seat.spot || at.priority != first.priority || at.turn != first.turn {
					bad("queue %s: the seat of consumer %d has not the place of its first", q.name, c.id)
				}
			}
		}
		if exclusives != q.exclusives || singles != q.singles.n {
			bad("queue %s: %d exclusive and %d single consumers, counted %d and %d", q.name, q.exclusives, q.singles.n, exclusives, singles)
		}
	}
	for _, c := range m.left {
		if c.inQueue.in != nil || c.leases.n == 0 || m.consumers[c.id] != nil {
			bad("consumer %d is remembered and has not left with leases", c.id)
		}
	}
	for _, c := range m.consumers {
		if c.leases.n != held[c] {
			bad("consumer %d says it holds %d, there are %d", c.id, c.leases.n, held[c])
		}
		if c.q.gone && !slices.ContainsFunc(m.ending, func(e ending) bool { return e.q == c.q }) {
			bad("consumer %d of a queue that is gone", c.id)
		}
	}
	for id, p := range m.pools {
		if p.held != poolHeld[p] {
			bad("pool %d says it holds %d, there are %d", id, p.held, poolHeld[p])
		}
		if p.held == 0 && p.members.n == 0 {
			bad("pool %d is empty and still there", id)
		}
	}
	for i, e := range live.list {
		if g := m.extents.list[i]; g.live != e.live || g.count != e.count {
			bad("extent %d from entry %d: has %d bytes of %d things, counted %d of %d", i, e.first, g.live, g.count, e.live, e.count)
		}
	}
}

func checkPublishers(bad func(string, ...any), ps *publishers) {
	n, holes := 0, 0
	for p := ps.oldest; p != nil; p = p.newer {
		n, holes = n+1, holes+len(p.holes)
		if ps.byID[p.id] != p || p.newer == nil && ps.newest != p || p.newer != nil && (p.newer.older != p || p.newer.used < p.used) {
			bad("the publisher %q is not where it belongs in the order of use", p.id)
		}
		at := p.floor
		for _, x := range p.holes {
			if x.First <= at || x.Last < x.First || x.Last >= p.last {
				bad("the publisher %q has the holes %v above %d and below %d", p.id, p.holes, p.floor, p.last)
			}
			at = x.Last
		}
	}
	if n != len(ps.byID) || holes != ps.holes {
		bad("%d publishers with %d holes are listed, %d with %d are counted", n, holes, len(ps.byID), ps.holes)
	}
}

func checkQueue(bad func(string, ...any), q *Queue) {
	var waiting, delayed, leased, damaged, bytes, leasedBytes, retries, backs, oldest int64
	per := make([]flow, len(q.flows)) // the counts found in the slots
	used := map[uint64]uint16{}
	var lowest uint64
	inOrder := false // a message that was never delayed was seen waiting
	q.slots.ascend(0, func(seq uint64, s *slot) bool {
		used[seq/chunkSlots]++
		if seq >= q.nextSeq {
			bad("queue %s: message %d is not below next %d", q.name, seq, q.nextSeq)
		}
		if !s.live() {
			return true
		}
		if lowest == 0 {
			lowest = seq
		}
		bytes += int64(s.size)
		if q.flows[s.flow].free {
			bad("queue %s: message %d is of a free flow", q.name, seq)
		}
		f := &per[s.flow]
		switch s.state() {
		case slotWaiting:
			waiting++
			f.waiting++
			if q.backsOff(seq) {
				backs++
				f.backs++
				if !slices.Contains(q.retries, timed{q.backing[seq], seq}) {
					bad("queue %s: message %d backs off from nothing", q.name, seq)
				}
			} else if since := s.nanos(); s.has(slotLate) || !inOrder {
				// Among messages that were never delayed, the first one is the oldest. In a
				// snapshot that a fuzzer made, another one can be the oldest.
				inOrder = inOrder || !s.has(slotLate)
				if oldest == 0 || since < oldest {
					oldest = since
				}
			}
		case slotDelayed:
			delayed++
			f.delayed++
			if s.has(slotRedelivered) {
				retries++
			}
			heap := q.delayed
			if s.has(slotRedelivered) {
				heap = q.retries
			}
			if !slices.ContainsFunc(heap, func(x timed) bool { return x.key == seq }) {
				bad("queue %s: message %d is delayed by nothing", q.name, seq)
			}
		case slotBehind:
			waiting++
			f.delayed++
			if !q.follows(seq) || q.groupName(s.flow) != "" {
				bad("queue %s: message %d follows nothing", q.name, seq)
			}
		case slotHeld:
			damaged++
			leasedBytes += int64(s.size)
			f.inflight++
			if q.held[seq] == nil {
				bad("queue %s: message %d is held for nothing", q.name, seq)
			}
		case slotLost:
			damaged++
			leasedBytes += int64(s.size)
			f.delayed++
		case slotLeased:
			leased++
			leasedBytes += int64(s.size)
			f.inflight++
			if _, ok := q.leases[seq]; !ok {
				bad("queue %s: message %d is leased to nobody", q.name, seq)
			}
		}
		if s.has(slotNoted) != (q.notes[seq] != nil) {
			bad("queue %s: message %d noted=%v", q.name, seq, s.has(slotNoted))
		}
		return true
	})
	if damaged != q.damagedN || len(q.held) > int(damaged) {
		bad("queue %s: %d damaged (%d held), counted %d", q.name, q.damagedN, len(q.held), damaged)
	}
	for seq := range q.suspect {
		if s := q.slots.get(seq); s == nil || s.state() != slotWaiting && s.state() != slotDelayed && s.state() != slotBehind {
			bad("queue %s: message %d is suspect and in no line", q.name, seq)
		}
	}
	if waiting != q.waiting || delayed != q.delayedN || leased != q.leased || int(leased) != len(q.leases) || bytes != q.bytes || leasedBytes != q.leasedBytes {
		bad("queue %s: counts are waiting %d delayed %d leased %d (%d leases) bytes %d/%d, counted %d %d %d, %d/%d", q.name, q.waiting,
			q.delayedN, q.leased, len(q.leases), q.bytes, q.leasedBytes, waiting, delayed, leased, bytes, leasedBytes)
	}
	for i := range q.slots.chunks {
		index := q.slots.first + uint64(i)
		if c := q.slots.chunks[i]; c.used != used[index] || (c.slots == nil) != (c.used == 0) {
			bad("queue %s: chunk %d says %d used, counted %d", q.name, index, c.used, used[index])
		}
	}
	if retries != q.retriesN || backs != q.backsN {
		bad("queue %s: %d messages back off, and %d in lines; counted %d and %d", q.name, q.retriesN, q.backsN, retries, backs)
	}
	if want := time.Duration(max(0, q.m.now-oldest)); oldest != 0 && q.oldestAge() != want || oldest == 0 && q.oldestAge() != 0 {
		bad("queue %s: the oldest waits for %v, not %v", q.name, q.oldestAge(), want)
	}
	for seq := range q.failed {
		if s := q.slots.get(seq); s == nil || !s.live() {
			bad("queue %s: message %d failed and is gone", q.name, seq)
		}
	}
	checkChains(bad, q)
	floor := q.Floor()
	if lowest == 0 && floor != q.nextSeq || lowest != 0 && floor != lowest {
		bad("queue %s: floor %d, lowest %d, next %d", q.name, floor, lowest, q.nextSeq)
	}
	var ready int64
	for h := range q.flows {
		f, n := &q.flows[h], &per[h]
		if f.backs != n.backs || f.waiting != n.waiting || f.delayed != n.delayed || f.inflight != n.inflight {
			bad("queue %s: flow %q has waiting %d delayed %d inflight %d, counted %d %d %d", q.name, f.name, f.waiting, f.delayed,
				f.inflight, n.waiting, n.delayed, n.inflight)
		}
		ready += int64(f.open)
		checkLine(bad, q, uint32(h))
		if f.free {
			continue
		}
		if h != 0 && f.waiting+f.delayed+f.inflight == 0 && f.tat <= q.m.now && (q.sched == nil || f.place < 0) {
			bad("queue %s: flow %q is empty and still there", q.name, f.name)
		}
		if q.byGroup[f.name] != uint32(h) {
			bad("queue %s: flow %q is known as %d", q.name, f.name, q.byGroup[f.name])
		}
		checkPlace(bad, q, uint32(h))
		if q.sched != nil {
			continue
		}
		if (q.groupVerdict(uint32(h)) == mayGo) != (f.place >= 0) {
			bad("queue %s: flow %q may go: %v, its place is %d", q.name, f.name, q.groupVerdict(uint32(h)) == mayGo, f.place)
		}
		if f.place >= 0 && (int(f.place) >= len(q.ready) || q.ready[f.place] != uint32(h) || f.front != q.placeOf(q.frontOf(uint32(h)))) {
			bad("queue %s: flow %q is not where it thinks in the ready heap", q.name, f.name)
		}
	}
	if ready != q.ready_ {
		bad("queue %s: %d ready, counted %d", q.name, q.ready_, ready)
	}
	checkSched(bad, q)
	for i := 1; i < len(q.ready); i++ {
		if q.ready.less(q, i, (i-1)/2) {
			bad("queue %s: the ready heap is out of order at %d", q.name, i)
		}
	}
	for seq := range q.lapsed {
		if s := q.slots.get(seq); s == nil || !s.live() || !s.marked(slotExpired) {
			bad("queue %s: message %d expired and is not there, or does not know", q.name, seq)
		}
	}
	for seq := range q.backing {
		if s := q.slots.get(seq); s == nil || s.state() != slotWaiting && s.state() != slotHeld {
			bad("queue %s: message %d backs off and does not wait", q.name, seq)
		}
	}
	for seq := range q.notes {
		if s := q.slots.get(seq); s == nil || !s.live() {
			bad("queue %s: note of message %d, which is gone", q.name, seq)
		}
	}
}

// checkChains checks that the chains of coalescing keys contain each message with a key once, in
// order, and that only the first of each chain may be leased.
func checkChains(bad func(string, ...any), q *Queue) {
	t := &q.slots.keys
	newest, keyed := map[CoalesceKey]uint64{}, 0
	q.slots.ascend(0, func(seq uint64, s *slot) bool {
		k := q.slots.key(seq)
		if k == nil {
			return true
		}
		keyed++
		if k.seq != seq || !s.live() {
			bad("queue %s: message %d has the key of message %d, or is gone", q.name, seq, k.seq)
		}
		if k.dead || s.state() == slotLost {
			return true
		}
		key := CoalesceKey(t.at(q.slots.keyRow(seq)).key)
		ahead := newest[key]
		if k.ahead != ahead || ahead != 0 && q.slots.key(ahead).behind != seq {
			bad("queue %s: message %d follows %d in its chain, not %d", q.name, seq, ahead, k.ahead)
		}
		if ahead != 0 && (s.state() == slotLeased || s.state() == slotDelayed && q.groupName(s.flow) == "") {
			bad("queue %s: message %d follows %d and does not wait for it", q.name, seq, ahead)
		}
		newest[key] = seq
		return true
	})
	for key, seq := range newest {
		if q.newest(key) != seq {
			bad("queue %s: the newest message of a key is %d, counted %d", q.name, q.newest(key), seq)
		}
	}
	if t.used != keyed || t.found != len(newest) {
		bad("queue %s: %d rows and %d keys are stored, counted %d and %d", q.name, t.used, t.found, keyed, len(newest))
	}
}

// checkLine checks a flow's list and heap.
func checkLine(bad func(string, ...any), q *Queue, h uint32) {
	f := &q.flows[h]
	var live, last uint64
	for seq := f.head; seq != 0; {
		s := q.slots.get(seq)
		if s == nil || s.flow != h || seq <= last || s.marked(slotInHeap) || s.state() != slotWaiting && s.state() != slotDead {
			bad("queue %s: flow %q's list is broken at %d", q.name, f.name, seq)
			return
		}
		if s.live() {
			live++
		}
		last = seq
		switch s.next {
		case 0:
			seq = 0
		case farNext:
			seq = q.far[seq]
		default:
			seq += uint64(s.next)
		}
	}
	if last != f.tail && f.head != 0 {
		bad("queue %s: flow %q's list ends at %d, not %d", q.name, f.name, last, f.tail)
	}
	inHeap := uint32(0)
	if r := q.returned[h]; r != nil {
		for i, seq := range *r {
			s := q.slots.get(seq)
			if s == nil || !s.marked(slotInHeap) || s.flow != h {
				bad("queue %s: flow %q's heap holds %d, which is not there", q.name, f.name, seq)
				continue
			}
			if i > 0 && seq < (*r)[(i-1)/2] {
				bad("queue %s: flow %q's heap is out of order", q.name, f.name)
			}
			if s.live() {
				live++
			}
			inHeap++
		}
	}
	if uint64(f.waiting) != live || f.returned != inHeap {
		bad("queue %s: flow %q has %d waiting (%d in the heap), counted %d (%d)", q.name, f.name, f.waiting, f.returned, live, inHeap)
	}
}
