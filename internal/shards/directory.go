package shards

import (
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// directory knows the shard of each queue. It is a copy of facts in the shards' logs.
type directory struct {
	mu    sync.RWMutex
	shard map[string]int
	// refs has for each queue the shards with queues that use it as their dead-letter queue, as
	// bits. Bits are not removed.
	refs map[string]uint64
	// strays has the shard of each queue whose number belongs to another shard, because it moved.
	strays  map[uint64]int
	strayOf map[string]uint64 // numbers of these queues
	moved   atomic.Int32      // number of strays
	shards  int
	known   uint64 // the shards whose queues were read, as bits
}

func (d *directory) init(shards int) {
	d.shard, d.refs, d.shards = map[string]int{}, map[string]uint64{}, shards
	d.strays, d.strayOf = map[uint64]int{}, map[string]uint64{}
}

// add enters a queue.
func (d *directory) add(name string, shard int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shard[name] = shard
}

// entry is a queue as the directory reads it from its shard.
type entry struct {
	id   uint64
	dead string // its dead-letter queue
}

// load replaces the queues of a shard. It leaves the queues that move unchanged. It changes nothing
// and returns false if another shard has one of the queues.
func (d *directory) load(shard int, queues map[string]entry, moves func(name string) bool) (name string, other int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range queues {
		if at, has := d.shard[name]; has && at != shard {
			return name, at, false
		}
	}
	for name, at := range d.shard {
		if _, has := queues[name]; at == shard && !has && !moves(name) {
			delete(d.shard, name)
			d.unstray(name)
		}
	}
	for name, q := range queues {
		d.relocateLocked(name, q.id, shard)
		d.referLocked(shard, name, q.dead)
	}
	d.known |= 1 << shard
	return "", 0, true
}

func (d *directory) remove(name string) {
	d.mu.Lock()
	delete(d.shard, name)
	d.unstray(name)
	d.mu.Unlock()
}

// drop removes a queue if it is in a shard.
func (d *directory) drop(name string, shard int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.shard[name]; ok && at == shard {
		delete(d.shard, name)
		d.unstray(name)
	}
}

// relocate enters the shard of a queue that exists.
func (d *directory) relocate(name string, id uint64, shard int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.relocateLocked(name, id, shard)
}

func (d *directory) relocateLocked(name string, id uint64, shard int) {
	d.shard[name] = shard
	d.unstray(name)
	if int(id>>surgetank.ShardBits) != shard {
		d.strays[id], d.strayOf[name] = shard, id
		d.moved.Store(int32(len(d.strays)))
	}
}

func (d *directory) unstray(name string) {
	if id, ok := d.strayOf[name]; ok {
		delete(d.strays, id)
		delete(d.strayOf, name)
		d.moved.Store(int32(len(d.strays)))
	}
}

// numbered returns the shard of the queue with a number.
func (d *directory) numbered(id uint64) int {
	if d.moved.Load() > 0 {
		d.mu.RLock()
		at, ok := d.strays[id]
		d.mu.RUnlock()
		if ok {
			return at
		}
	}
	return int(id >> surgetank.ShardBits)
}

// highest returns, for each shard, the highest number of its own among the queues that moved.
func (d *directory) highest() []uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	top := make([]uint64, d.shards)
	for id := range d.strays { // unordered: maxima
		if home := int(id >> surgetank.ShardBits); home < d.shards {
			top[home] = max(top[home], id)
		}
	}
	return top
}

// empty notes that a shard has no queues, because its directory was never made.
func (d *directory) empty(shard int) {
	d.mu.Lock()
	d.known |= 1 << shard
	d.mu.Unlock()
}

func (d *directory) count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.shard)
}

// find returns the shard of a queue.
func (d *directory) find(name string) (shard int, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	shard, ok = d.shard[name]
	return shard, ok
}

// refer notes that a queue of a shard uses a dead-letter queue. It returns the dead-letter queue if
// the shard needs an outbox for it, and otherwise "".
func (d *directory) refer(shard int, name, dead string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.referLocked(shard, name, dead)
}

func (d *directory) referLocked(shard int, name, dead string) string {
	if dead == "" || dead == name || dead == surgetank.DeadLetterDrop || door.OwnDeadLetters(dead) == name {
		return ""
	}
	d.refs[dead] |= 1 << shard
	if at, ok := d.shard[dead]; ok && at == shard {
		return ""
	}
	return dead
}

// referrers returns the shards other than shard that need an outbox for a queue in shard.
func (d *directory) referrers(name string, shard int) (others []int) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for i := range d.shards {
		if i != shard && d.refs[name]&(1<<i) != 0 {
			others = append(others, i)
		}
	}
	return others
}

// all returns the queues that need an outbox in a shard.
func (d *directory) outboxes(shard int) (names []string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for name, bits := range d.refs {
		if at, ok := d.shard[name]; bits&(1<<shard) != 0 && (!ok || at != shard) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// locate returns the shard of a queue, also of a dead-letter queue that its shard created by
// itself: such a queue is in the shard of its queue. ok is false if the queue does not exist as far
// as the router knows; the shard is then any shard.
func (d *directory) locate(name string) (shard int, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.locateLocked(name)
}

func (d *directory) locateLocked(name string) (shard int, ok bool) {
	if shard, ok = d.shard[name]; ok {
		return shard, true
	}
	if of := door.OwnDeadLetters(name); of != "" {
		if shard, ok = d.shard[of]; ok {
			return shard, true
		}
	}
	return 0, false
}

// unread returns a shard whose queues were never read, or -1: an unknown queue can be there.
func (d *directory) unread() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for i := range d.shards {
		if d.known&(1<<i) == 0 {
			return i
		}
	}
	return -1
}

// place chooses the shard of a new queue. wanted is the setting `shard`, from 1; 0: none. A queue
// and its own dead-letter queue are always in the same shard, because a message moves between them
// in one step.
func (d *directory) place(name string, wanted int) (int, error) {
	if wanted > d.shards {
		return 0, surgetank.FieldErrorf("shard", "there is no shard %d; this broker has %d", wanted, d.shards)
	}
	partner := door.OwnDeadLetters(name)
	at, ok := d.find(partner)
	if !ok {
		partner = name + surgetank.DeadLetterSuffix
		at, ok = d.find(partner)
	}
	if ok {
		if wanted != 0 && wanted != at+1 {
			return 0, surgetank.FieldErrorf("shard", "the queue %q is in shard %d, and a queue and its own dead-letter queue are in the same shard; leave the setting out, or set %d", partner, at+1, at+1)
		}
		return at, nil
	}
	if wanted != 0 {
		return wanted - 1, nil
	}
	return rendezvous(name, d.shards), nil
}

// rendezvous returns the shard with the highest hash of name and shard. With another shard, only
// the queues that the new shard wins would have another result. A queue and its own dead-letter
// queue have the same hash.
func rendezvous(name string, shards int) (best int) {
	for strings.HasSuffix(name, surgetank.DeadLetterSuffix) && name != surgetank.DeadLetterSuffix {
		name = strings.TrimSuffix(name, surgetank.DeadLetterSuffix)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	base, top := h.Sum64(), uint64(0)
	for i := range shards {
		if x := mix(base + uint64(i+1)*0x9e3779b97f4a7c15); x > top {
			best, top = i, x
		}
	}
	return best
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
