package queue

// dedup is the ids published to a queue within its window. Each id costs about 70 bytes until its time is up.
type dedup struct {
	ids  map[DedupKey]uint64 // the message that came with the id
	line []dedupID           // in the order of their coming
	head int
}

type dedupID struct {
	key   DedupKey
	seq   uint64
	until int64
}

func (d *dedup) find(key DedupKey, now int64) (uint64, bool) {
	d.expire(now)
	seq, ok := d.ids[key]
	return seq, ok
}

func (d *dedup) add(key DedupKey, seq uint64, until int64) {
	if d.ids == nil {
		d.ids = map[DedupKey]uint64{}
	}
	d.ids[key] = seq
	d.line = append(d.line, dedupID{key, seq, until})
}

// expire forgets ids whose time is up. A window that was shortened and lengthened may let an id stay behind
// an earlier one that lives longer; it is then kept too long, never too short.
func (d *dedup) expire(now int64) {
	for d.head < len(d.line) && d.line[d.head].until <= now {
		x := &d.line[d.head]
		if d.ids[x.key] == x.seq {
			delete(d.ids, x.key)
		}
		d.head++
	}
	if d.head > 1024 && d.head > len(d.line)/2 {
		d.line = append([]dedupID(nil), d.line[d.head:]...)
		d.head = 0
	}
}
