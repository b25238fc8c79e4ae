package queue

import "slices"

// dedup is the set of dedup ids published to a queue within its window. Each id takes about 85
// bytes until it expires.
type dedup struct {
	ids  table[dedupAt]
	line idLine
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

// idLine contains dedup ids in the order of publishing, in pages. A stored id never changes, so a
// snapshot can read a copy of the line while ids are added and removed.
type idLine struct {
	pages      []*[idPage]dedupID
	head, tail int // positions of the first id and after the last id, counted from pages[0]
}

const idPage = 256

func (l *idLine) len() int        { return l.tail - l.head }
func (l *idLine) first() *dedupID { return &l.pages[l.head/idPage][l.head%idPage] }
func (l *idLine) clone() idLine   { return idLine{slices.Clone(l.pages), l.head, l.tail} }

func (l *idLine) push(x dedupID) {
	if l.tail == len(l.pages)*idPage {
		l.pages = append(l.pages, new([idPage]dedupID))
	}
	l.pages[l.tail/idPage][l.tail%idPage] = x
	l.tail++
}

// pop removes the first id.
func (l *idLine) pop() {
	if l.head++; l.head == idPage {
		l.pages[0] = nil // the rest of the array does not keep the page
		l.pages, l.head, l.tail = l.pages[1:], 0, l.tail-idPage
	}
}

func (d *dedup) find(key DedupKey, now int64) (uint64, bool) {
	d.expire(now)
	i := d.ids.find(key)
	if i == 0 {
		return 0, false
	}
	at := d.ids.at(i).v
	return at.seq, at.until > now
}

func (d *dedup) add(key DedupKey, seq uint64, until int64) {
	before := d.ids.put(d.ids.add(key, dedupAt{seq, until}))
	if before != 0 {
		d.ids.remove(before)
	}
	d.line.push(dedupID{key, seq, until})
}

// expire removes ids that have expired. After the window was shortened, an expired id can follow an
// id that is still valid. find ignores the expired id; only its memory is freed late.
func (d *dedup) expire(now int64) {
	for d.line.len() > 0 {
		x := d.line.first()
		if x.until > now {
			return
		}
		i := d.ids.find(x.key)
		if i != 0 && d.ids.at(i).v == (dedupAt{x.seq, x.until}) { // a later message with the same id can have joined x.seq
			d.ids.remove(i)
		}
		d.line.pop()
	}
}

// compact frees unused memory.
func (d *dedup) compact() {
	d.ids.compact(func(uint32, *dedupAt) {})
	if d.line.len() == 0 {
		d.line = idLine{}
	}
}
