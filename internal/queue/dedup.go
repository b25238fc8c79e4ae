package queue

// dedup is the set of dedup ids published to a queue within its window. Each id takes about 70
// bytes until it expires.
type dedup struct {
	ids  map[DedupKey]dedupAt
	line []dedupID // in the order of publishing
	head int
}

// dedupAt is the message that was published with a dedup id. Before the time in the field until, a
// second message with the id is a duplicate.
type dedupAt struct {
	seq   uint64
	until int64
}

type dedupID struct {
	key   DedupKey
	seq   uint64
	until int64
}

func (d *dedup) find(key DedupKey, now int64) (uint64, bool) {
	d.expire(now)
	at, ok := d.ids[key]
	return at.seq, ok && at.until > now
}

func (d *dedup) add(key DedupKey, seq uint64, until int64) {
	if d.ids == nil {
		d.ids = map[DedupKey]dedupAt{}
	}
	d.ids[key] = dedupAt{seq, until}
	d.line = append(d.line, dedupID{key, seq, until})
}

// expire removes ids that have expired. After the window was shortened, an expired id can follow an
// id that is still valid. find ignores the expired id; only its memory is freed late.
func (d *dedup) expire(now int64) {
	for d.head < len(d.line) && d.line[d.head].until <= now {
		x := &d.line[d.head]
		if d.ids[x.key] == (dedupAt{x.seq, x.until}) { // a later message with the same id can have joined x.seq
			delete(d.ids, x.key)
		}
		d.head++
	}
	if d.head > 1024 && d.head > len(d.line)/2 {
		d.line = append([]dedupID(nil), d.line[d.head:]...)
		d.head = 0
	}
}
