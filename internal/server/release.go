package server

import (
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
)

// After a burst the heap keeps memory that the system could use. It is returned once, when the
// server is calm: returning costs a collection, and getting memory back costs page faults.
const (
	// calmTicks is for how many consecutive seconds less than calmBytes must have been allocated.
	calmTicks = 5
	calmBytes = 4 << 20
	// burstBytes must have been allocated since memory was last returned to the system, and at
	// least heldBytes must be free.
	burstBytes = 64 << 20
	heldBytes  = 16 << 20
)

// returner decides when memory is returned to the system.
type returner struct {
	samples  []metrics.Sample
	last     uint64 // total allocated bytes at the last tick
	returned uint64 // total allocated bytes when memory was last returned to the system
	calm     int
}

func newReturner() *returner {
	return &returner{samples: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}}
}

// tick runs once a second.
func (r *returner) tick(log *slog.Logger) {
	metrics.Read(r.samples)
	var v [5]uint64
	for i, s := range r.samples {
		if s.Value.Kind() == metrics.KindUint64 {
			v[i] = s.Value.Uint64()
		}
	}
	if r.due(v[0], v[2]-min(v[1], v[2])+v[3]+v[4]) {
		debug.FreeOSMemory()
		log.Debug("memory was returned to the system after a burst", "held_bytes", v[2]+v[3]+v[4])
	}
}

// due reports whether to return memory. allocated is the total of allocated bytes, held the free
// bytes that the heap keeps.
func (r *returner) due(allocated, held uint64) bool {
	if allocated-r.last < calmBytes {
		r.calm++
	} else {
		r.calm = 0
	}
	r.last = allocated
	if r.calm < calmTicks || allocated-r.returned < burstBytes || held < heldBytes {
		return false
	}
	r.returned, r.calm = allocated, 0
	return true
}
