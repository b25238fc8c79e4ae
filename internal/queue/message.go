package queue

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// The record of a message (enqueued, moved, arrived or copied) starts at a multiple of refAlign:
//
//	kind, flags(2), [redriven: in arrived], [state: in copied], targets: n × (queue, seq, group, expires, dedup-until, coalescing),
//	[time] [not-before] [priority] [dedup id] [key] [content type] [headers] [opaque] [deaths], body
//
// The record's size is known only after parsing. The body is last.
const (
	flagTime = 1 << iota
	flagNotBefore
	flagPriority
	flagDedup
	flagKey
	flagType
	flagHeaders
	flagOpaque
	flagDeaths
	flagTTL    // a target has an expiry time or keeps its dedup id
	flagKeyed  // a target has a coalescing key
	flagsKnown = 1<<iota - 1
)

// DedupKey represents a dedup id: the first 16 bytes of its SHA-256. No publisher can make the keys
// of two ids collide.
type DedupKey [16]byte

// MakeDedupKey hashes a dedup id.
func MakeDedupKey(id string) DedupKey {
	var k DedupKey
	h := sha256.Sum256([]byte(id))
	copy(k[:], h[:])
	return k
}

// appendMessage encodes a message's record and returns its offset. deaths is for moved messages
// only.
func appendMessage(b []byte, r *Record, m *surgetank.Message, deaths []surgetank.Death) ([]byte, int) {
	for len(b)%refAlign != 0 {
		b = append(b, byte(kindPad))
	}
	position := len(b)
	flags := 0
	set := func(cond bool, f int) {
		if cond {
			flags |= f
		}
	}
	born := r.Time
	if r.Kind.foreign() {
		born = r.Born
	}
	set(r.Kind != kindEnqueued, flagTime)
	set(r.NotBefore != 0, flagNotBefore)
	set(r.Priority != 0, flagPriority)
	set(m.DedupID != "", flagDedup)
	set(m.Key != "", flagKey)
	set(m.ContentType != "", flagType)
	set(len(m.Headers) > 0, flagHeaders)
	set(len(*door.Opaque(m)) > 0, flagOpaque)
	set(len(deaths) > 0, flagDeaths)
	for i := range r.Targets {
		set(r.Targets[i].Expires|r.Targets[i].DedupUntil != 0, flagTTL)
		set(r.Targets[i].Key != CoalesceKey{}, flagKeyed)
	}
	b = append(b, byte(r.Kind), byte(flags), byte(flags>>8))
	if r.Kind == kindArrived {
		b = append(b, boolByte(r.Redriven))
	}
	if r.Kind == kindCopied {
		c := &r.Copied
		b = append(b, boolByte(r.Redriven)|boolByte(c.Redelivered)<<1|boolByte(c.Late)<<2, c.Priority)
		b = appendUint(appendUint(appendUint(b, uint64(c.Since)), uint64(c.Due)), uint64(r.Attempts))
		b = encodeCause(b, r.Detail)
	}
	b = appendUint(b, uint64(len(r.Targets)))
	for i := range r.Targets {
		t := &r.Targets[i]
		b = appendUint(b, t.Queue)
		b = appendUint(b, t.Seq)
		b = appendString(b, t.Group)
		if flags&flagTTL != 0 {
			b = appendUint(b, uint64(t.Expires))
			b = appendUint(b, uint64(t.DedupUntil))
		}
		if flags&flagKeyed != 0 {
			b = encodeTargetKey(b, t, r.NotBefore)
		}
	}
	if flags&flagTime != 0 {
		b = appendUint(b, uint64(born))
	}
	if flags&flagNotBefore != 0 {
		b = appendUint(b, uint64(r.NotBefore))
	}
	if flags&flagPriority != 0 {
		b = append(b, r.Priority)
	}
	if flags&flagDedup != 0 {
		b = appendString(b, m.DedupID)
	}
	if flags&flagKey != 0 {
		b = appendString(b, m.Key)
	}
	if flags&flagType != 0 {
		b = appendString(b, m.ContentType)
	}
	if flags&flagHeaders != 0 {
		b = appendUint(b, uint64(len(m.Headers)))
		for _, h := range m.Headers {
			b = appendString(b, h.Name)
			b = appendString(b, h.Value)
		}
	}
	if flags&flagOpaque != 0 {
		b = appendBytes(b, *door.Opaque(m))
	}
	if flags&flagDeaths != 0 {
		b = appendUint(b, uint64(len(deaths)))
		for i := range deaths {
			x := &deaths[i]
			b = appendString(b, x.Queue)
			b = appendString(b, x.Reason)
			b = appendString(b, x.Detail)
			b = appendUint(b, uint64(x.Time.UnixNano()))
			b = appendUint(b, uint64(x.Attempts))
			b = appendString(b, x.Group)
		}
	}
	return appendBytes(b, m.Body), position
}

// message reads a message's record after its kind. It writes the fields that the machine needs into
// r, and the other fields into m if m is not nil. Body and opaque part share the input's memory.
func (d *decoder) message(r *Record, m *surgetank.Message, deaths *[]surgetank.Death) {
	flags := int(d.byte())
	flags |= int(d.byte()) << 8
	if d.err == nil && flags&^flagsKnown != 0 {
		d.fail("a message has unknown flags (a newer version wrote it?)")
		return
	}
	arrived := r.Kind.foreign()
	if r.Deaths = nil; arrived {
		bits := d.byte()
		if r.Redriven = bits&1 != 0; r.Kind == kindCopied {
			r.Copied = copied{Redelivered: bits&2 != 0, Late: bits&4 != 0, Priority: d.byte(), Since: d.time(), Due: d.time()}
			r.Attempts, r.Detail = d.u32(), d.cause()
		}
		if deaths == nil {
			deaths = &r.Deaths
		}
	}
	n := d.count()
	if r.Targets = r.Targets[:0]; n > surgetank.MaxTargets {
		d.fail("a message has too many targets")
	}
	asRecord := false // the due time of a target is the record's not-before
	for i := 0; i < n && d.err == nil; i++ {
		t := Target{Queue: d.uint(), Seq: d.uint(), Group: d.string()}
		if flags&flagTTL != 0 {
			t.Expires, t.DedupUntil = d.time(), d.time()
		}
		if flags&flagKeyed != 0 && d.targetKey(&t) {
			t.Due, asRecord = -1, true
		}
		r.Targets = append(r.Targets, t)
	}
	if flags&flagTime != 0 {
		if r.Born = d.time(); !arrived {
			r.Time = r.Born
		}
	}
	r.NotBefore, r.Priority, r.DedupKey = 0, 0, DedupKey{}
	if flags&flagNotBefore != 0 {
		r.NotBefore = d.time()
	}
	for i := range r.Targets {
		if asRecord && r.Targets[i].Due < 0 {
			r.Targets[i].Due = r.NotBefore
		}
	}
	if flags&flagPriority != 0 {
		r.Priority = d.byte()
	}
	if flags&flagDedup != 0 {
		if id := string(d.bytes()); m != nil {
			m.DedupID = id // a reader of the message does not need the hash
		} else {
			r.DedupKey = MakeDedupKey(id)
		}
	}
	str := func(f int, to *string) {
		if flags&f != 0 {
			if s := d.bytes(); m != nil {
				*to = string(s)
			}
		}
	}
	var none surgetank.Message
	to := m
	if to == nil {
		to = &none
	}
	str(flagKey, &to.Key)
	str(flagType, &to.ContentType)
	if flags&flagHeaders != 0 {
		n := d.count()
		if n > surgetank.MaxHeaders {
			d.fail("a message has too many headers")
		}
		if m != nil && d.err == nil {
			m.Headers = make([]surgetank.Header, 0, n)
		}
		for i := 0; i < n && d.err == nil; i++ {
			name, value := d.bytes(), d.bytes()
			if m != nil {
				m.Headers = append(m.Headers, surgetank.Header{Name: string(name), Value: string(value)})
			}
		}
	}
	if flags&flagOpaque != 0 {
		*door.Opaque(to) = d.bytes()
	}
	if flags&flagDeaths != 0 {
		n := d.count()
		for i := 0; i < n && d.err == nil; i++ {
			x := surgetank.Death{Queue: d.string(), Reason: d.string(), Detail: d.string(),
				Time: time.Unix(0, d.time()), Attempts: int(d.u32()), Group: d.string()}
			if deaths != nil {
				*deaths = append(*deaths, x)
			}
		}
	}
	body := d.bytes()
	r.BodySize = uint32(len(body))
	to.Body = body
}

// Stored is a message as the log contains it. Ask the machine for the message's group, because a
// transferred message keeps the record of its first publishing.
type Stored struct {
	Message surgetank.Message
	Time    time.Time
	Targets []Target
	Deaths  []surgetank.Death // the dead-letter history in a moved record; newer events are in notes
}

// message reports whether records of this kind contain a message.
func (k Kind) message() bool { return k == kindEnqueued || k == kindMoved || k.foreign() }

// foreign reports whether records of this kind contain a message that another shard confirmed.
func (k Kind) foreign() bool { return k == kindArrived || k == kindCopied }

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// ReadMessage decodes the message at ref, which must be in entry. Body and opaque part share
// entry's memory.
func ReadMessage(entry []byte, ref Ref, s *Stored) error {
	var r Record
	d := decoder{b: entry}
	h := d.header()
	if d.err != nil {
		return d.err
	}
	if h.Number != ref.Entry() {
		return fmt.Errorf("entry %d was asked for, entry %d is there: %w", ref.Entry(), h.Number, errDecode)
	}
	d.off = min(ref.Position(), len(entry))
	if r.Kind = Kind(d.byte()); !r.Kind.message() {
		return fmt.Errorf("there is no message at byte %d of entry %d (record kind %d): %w", ref.Position(), h.Number, r.Kind, errDecode)
	}
	r.Targets = s.Targets
	r.Time = h.Time
	d.message(&r, &s.Message, &s.Deaths)
	if d.err != nil {
		return d.err
	}
	if r.Kind.foreign() {
		r.Time = r.Born
	}
	s.Targets, s.Time = r.Targets, time.Unix(0, r.Time)
	s.Message.Priority = r.Priority
	if r.NotBefore > 0 {
		s.Message.Delay = time.Duration(r.NotBefore - r.Time)
	}
	return nil
}

// ReadNote decodes the transfer at ref as an event of a message's dead-letter history.
func ReadNote(entry []byte, ref Ref) (surgetank.Death, error) {
	d := decoder{b: entry}
	h := d.header()
	if d.err != nil {
		return surgetank.Death{}, d.err
	}
	d.off = min(ref.Position(), len(entry))
	r := Record{Kind: Kind(d.byte())}
	if d.err == nil && (r.Kind != kindTransferred || h.Number != ref.Entry()) {
		return surgetank.Death{}, fmt.Errorf("there is no dead-letter note at byte %d of entry %d: %w", ref.Position(), ref.Entry(), errDecode)
	}
	r.decode(&d)
	return surgetank.Death{Queue: r.Name, Reason: r.Reason.String(), Detail: r.Detail, Time: time.Unix(0, h.Time).UTC(),
		Attempts: int(r.Attempts)}, d.err
}

// Records calls f for every record of an entry. Bodies are not copied. Recovery, inspection and
// relocation use Records to read entries.
func Records(entry []byte, f func(h EntryHeader, r *Record) error) error {
	d := decoder{b: entry}
	h := d.header()
	var r Record
	for d.more() {
		position := d.off
		r.Kind = Kind(d.byte())
		switch {
		case r.Kind == kindPad:
			continue
		case r.Kind.message():
			r.Time = h.Time
			d.message(&r, nil, nil)
		default:
			r.Time = h.Time
			r.decode(&d)
		}
		if d.err != nil {
			break
		}
		r.Ref = makeRef(h.Number, position)
		if err := f(h, &r); err != nil {
			return err
		}
	}
	return d.err
}
