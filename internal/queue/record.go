package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/surgetank/surgetank"
)

// Kind is the kind of a record. The numbers are the on-disk format and never change their meaning;
// a kind that a build does not know makes it refuse the log.
type Kind uint8

// Records are facts: they hold what was chosen (a sequence number, a not-before time), never the
// rule by which it was chosen, so that they replay the same under newer code.
const (
	kindPad         Kind = 0  // one byte of filling, so that messages start at a multiple of refAlign
	kindEnqueued    Kind = 1  // a message, stored once for all its target queues
	kindMoved       Kind = 2  // a message again, nearer to the log's end; replaces the position of each target that is still there
	kindAcked       Kind = 3  // messages of one queue are settled for good
	kindReturned    Kind = 4  // a lease ended without an ack: attempts, and when the message may be tried again
	kindTransferred Kind = 5  // a message leaves one queue for another: dead letter or redrive
	kindRemoved     Kind = 6  // messages of one queue are dropped by a rule: TTL, overflow, user's choice
	kindPurged      Kind = 7  // all messages of a queue below a number, but for some, are dropped
	kindQueueSet    Kind = 8  // a queue is made, or its settings change
	kindQueueGone   Kind = 9  // a queue and its messages are removed
	kindMetaSet     Kind = 10 // a door's small value
	kindEpoch       Kind = 11 // a broker opened the log, without an incarnation: before version 2 of openings
	kindOpened      Kind = 12 // a broker opened the log under a new incarnation; receipts of earlier ones are void
	kindConfirmed   Kind = 13 // numbers of a publisher are confirmed: their messages are in this entry
	kindClosed      Kind = 14 // a broker stopped cleanly, and which messages were leased then
	kindFailed      Kind = 15 // as returned, and why

	// Only in snapshots.
	kindSnapHead  Kind = 32 // counters, then how far the log is covered
	kindSnapQueue Kind = 33 // a queue: settings, groups, notes
	kindSnapSlots Kind = 34 // one chunk of messages
	kindSnapTail  Kind = 35 // the end: how many chunks there were
	kindSnapTimes Kind = 36 // not-before (0) or expiry (1) times of a queue's messages
	kindSnapDedup Kind = 37 // dedup ids of a queue
	kindSnapLoss  Kind = 38 // what repairs could not save of the log; not there without any
	kindSnapOpens Kind = 39 // the openings of the log; not there without any
	kindSnapSpans Kind = 40 // in which incarnations a queue's messages were confirmed; not there without any

	kindSnapPublisher Kind = 41 // a publisher and its confirmed numbers; not there without any
	kindSnapTrails    Kind = 43 // which queues gave a queue's messages up by themselves; not there without any
	kindSnapFailures  Kind = 44 // why messages of a queue came back last; not there without any
	kindSnapFresh     Kind = 42 // what may have been delivered before a crash, and whether the stop was clean
)

// KindMoved is the kind of a message that was written again, for those who count.
const KindMoved = kindMoved

// Ref is where a message is in the log: the number of its entry and, inside it, the place of its
// record. The place counts units of refAlign bytes.
type Ref uint64

const (
	refBits  = 22
	refAlign = 4
	// MaxPlace is the offset inside an entry behind which no message may start: 16 MiB.
	MaxPlace = refAlign << refBits
)

func makeRef(entry uint64, place int) Ref { return Ref(entry<<refBits | uint64(place/refAlign)) }

// Entry is the number of the entry.
func (r Ref) Entry() uint64 { return uint64(r) >> refBits }

// Place is the byte offset of the record in the entry.
func (r Ref) Place() int { return int(r&(1<<refBits-1)) * refAlign }

// entryVersion is the first byte of every entry.
const entryVersion = 1

// EntryHeader opens every entry. Number counts the entries of a broker's log from 1 without gaps,
// through all epochs; Time is the turn's, in nanoseconds since 1970, and never goes back.
type EntryHeader struct {
	Epoch, Number uint64
	Time          int64
}

// AppendHeader writes an entry's header.
func AppendHeader(b []byte, h EntryHeader) []byte {
	b = append(b, entryVersion)
	b = appendUint(b, h.Epoch)
	b = appendUint(b, h.Number)
	return appendUint(b, uint64(h.Time))
}

// ParseHeader reads an entry's header and gives the offset of the first record.
func ParseHeader(entry []byte) (EntryHeader, int, error) {
	d := decoder{b: entry}
	h := d.header()
	return h, d.off, d.err
}

func (d *decoder) header() (h EntryHeader) {
	if v := d.byte(); d.err == nil && v != entryVersion {
		d.err = fmt.Errorf("entry has format version %d, this build reads version %d: %w", v, entryVersion, errDecode)
		d.off = len(d.b)
		return h
	}
	h.Epoch, h.Number, h.Time = d.uint(), d.uint(), d.time()
	return h
}

// Target is one queue's copy of a message.
type Target struct {
	Queue      uint64
	Seq        uint64
	Group      string
	Expires    int64 // 0: never
	DedupUntil int64 // 0: the id is not kept
}

// Record is one fact in decoded form. Which fields count depends on Kind. Step reuses one Record
// for all it decides, so whoever keeps a part of it must copy.
type Record struct {
	Kind Kind

	// enqueued, moved; closed has Targets
	Ref       Ref
	BodySize  uint32
	Time      int64
	NotBefore int64
	Priority  uint8
	DedupKey  DedupKey
	Targets   []Target

	// acked, removed, returned, transferred, purged, queue records
	Queue    uint64
	Seqs     []uint64
	Reason   reason
	Attempts uint32
	ToQueue  uint64
	ToSeq    uint64
	Detail   string
	Below    uint64

	// queue_set, meta_set, epoch, opened
	Name      string // transferred: of the queue it leaves
	Namespace string
	Value     []byte
	Config    surgetank.QueueConfig
	Epoch     uint64

	Incarnation uint64 // opened

	// confirmed: Count numbers from First on, of the publisher Name. Queue and ToSeq are the place
	// of the first number's message, and the others' follow it; Queue 0 if they do not.
	First, Count uint64
}

// reason is why a message was transferred or removed; the numbers are on disk.
type reason uint8

const (
	reasonRedriven reason = iota
	reasonRejected
	reasonAttempts
	reasonExpired
	reasonOverflow
	reasonDamaged // its body could not be read, and the operator dropped it
	reasonPurged  // its queue was purged, in more turns than one
	reasonCircled // it would have come to the same queue twice, given up by queues alone
)

var reasonNames = [...]string{"redriven", surgetank.ReasonRejected, surgetank.ReasonAttempts,
	surgetank.ReasonExpired, surgetank.ReasonOverflow, "damaged", "purged", "circled"}

func (r reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// encode appends everything but messages, which have their own encoding in message.go.
func (r *Record) encode(b []byte) []byte {
	b = append(b, byte(r.Kind))
	switch r.Kind {
	case kindAcked, kindRemoved:
		b = appendUint(b, r.Queue)
		if r.Kind == kindRemoved {
			b = append(b, byte(r.Reason))
		}
		b = appendSeqs(b, r.Seqs)
	case kindReturned, kindFailed:
		b = appendUint(b, r.Queue)
		b = appendUint(b, r.Seqs[0])
		b = appendUint(b, uint64(r.Attempts))
		b = appendUint(b, uint64(r.NotBefore))
		if r.Kind == kindFailed {
			b = encodeCause(b, r.Detail)
		}
	case kindTransferred:
		b = appendUint(b, r.Queue)
		b = appendUint(b, r.Seqs[0])
		b = appendUint(b, r.ToQueue)
		b = appendUint(b, r.ToSeq)
		b = append(b, byte(r.Reason))
		b = appendUint(b, uint64(r.Attempts))
		b = appendUint(b, uint64(r.Expires()))
		b = appendString(b, r.Name)
		b = appendString(b, r.Detail)
	case kindPurged:
		b = appendUint(b, r.Queue)
		b = appendUint(b, r.Below)
		b = appendSeqs(b, r.Seqs)
	case kindQueueSet:
		b = appendUint(b, r.Queue)
		b = appendString(b, r.Name)
		b = appendUint(b, uint64(r.Time))
		b = appendBytes(b, encodeConfig(&r.Config))
	case kindQueueGone:
		b = appendUint(b, r.Queue)
	case kindMetaSet:
		b = appendString(b, r.Namespace)
		b = appendString(b, r.Name)
		if r.Value == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1)
			b = appendBytes(b, r.Value)
		}
	case kindEpoch:
		b = appendUint(b, r.Epoch)
	case kindOpened:
		b = appendUint(b, r.Epoch)
		b = binary.LittleEndian.AppendUint64(b, r.Incarnation)
	case kindConfirmed:
		b = appendString(b, r.Name)
		b = appendUint(b, r.First)
		b = appendUint(b, r.Count)
		b = appendUint(b, r.Queue)
		b = appendUint(b, r.ToSeq)
	case kindClosed:
		b = appendUint(b, uint64(len(r.Targets)))
		for _, t := range r.Targets {
			b = appendUint(b, t.Queue)
			b = appendUint(b, t.Seq)
		}
	}
	return b
}

// Expires is the transferred message's expiry in its new queue; it travels in NotBefore, which a
// transfer does not need.
func (r *Record) Expires() int64 { return r.NotBefore }

// decode reads one record other than a message; kind has been read.
func (r *Record) decode(d *decoder) {
	switch r.Kind {
	case kindAcked:
		r.Queue = d.uint()
		r.Seqs = d.seqs(r.Seqs[:0])
	case kindRemoved:
		r.Queue = d.uint()
		r.Reason = reason(d.byte())
		r.Seqs = d.seqs(r.Seqs[:0])
	case kindReturned, kindFailed:
		r.Queue = d.uint()
		r.Seqs = append(r.Seqs[:0], d.uint())
		r.Attempts = d.u32()
		r.NotBefore = d.time()
		if r.Kind == kindFailed {
			r.Detail = d.cause()
		}
	case kindTransferred:
		r.Queue = d.uint()
		r.Seqs = append(r.Seqs[:0], d.uint())
		r.ToQueue, r.ToSeq = d.uint(), d.uint()
		r.Reason = reason(d.byte())
		r.Attempts = d.u32()
		r.NotBefore = d.time()
		r.Name, r.Detail = d.string(), d.string()
	case kindPurged:
		r.Queue, r.Below = d.uint(), d.uint()
		r.Seqs = d.seqs(r.Seqs[:0])
	case kindQueueSet:
		r.Queue, r.Name, r.Time = d.uint(), d.string(), d.time()
		r.Config = d.config()
	case kindQueueGone:
		r.Queue = d.uint()
	case kindMetaSet:
		r.Namespace, r.Name = d.string(), d.string()
		r.Value = nil
		if d.byte() != 0 {
			r.Value = append([]byte{}, d.bytes()...)
		}
	case kindEpoch:
		r.Epoch = d.uint()
	case kindOpened:
		r.Epoch, r.Incarnation = d.uint(), d.fixed64()
	case kindConfirmed:
		r.Name, r.First, r.Count, r.Queue, r.ToSeq = d.string(), d.uint(), d.uint(), d.uint(), d.uint()
		if r.Name == "" || r.First == 0 || r.First > surgetank.MaxSequence || r.Count > surgetank.MaxSequence-r.First+1 {
			d.fail("the numbers of a publisher are out of range")
		}
	case kindClosed:
		r.Targets = r.Targets[:0]
		for n := d.count(); n > 0 && d.err == nil; n-- {
			r.Targets = append(r.Targets, Target{Queue: d.uint(), Seq: d.uint()})
		}
	default:
		d.fail(fmt.Sprintf("unknown record kind %d (a newer version wrote it?)", r.Kind))
	}
}

// appendSeqs writes ascending or mixed sequence numbers as zigzag differences.
func appendSeqs(b []byte, seqs []uint64) []byte {
	b = appendUint(b, uint64(len(seqs)))
	var last uint64
	for _, s := range seqs {
		d := int64(s - last)
		b = appendUint(b, uint64(d<<1)^uint64(d>>63))
		last = s
	}
	return b
}

func (d *decoder) seqs(to []uint64) []uint64 {
	n := d.count()
	var last uint64
	for i := 0; i < n && d.err == nil; i++ {
		z := d.uint()
		last += uint64(int64(z>>1) ^ -int64(z&1))
		to = append(to, last)
	}
	return to
}

// encodeConfig writes settings as JSON under the root package's field names: settings are read far
// too seldom to deserve an encoding of their own, and a setting that a build does not know must
// make it refuse the log.
func encodeConfig(c *surgetank.QueueConfig) []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic("queue settings cannot be encoded: " + err.Error()) // no field of QueueConfig can fail: Validate refused NaN and infinities
	}
	return b
}

func (d *decoder) config() (c surgetank.QueueConfig) {
	b := d.bytes()
	if d.err != nil {
		return c
	}
	j := json.NewDecoder(bytes.NewReader(b))
	j.DisallowUnknownFields()
	if err := j.Decode(&c); err != nil {
		d.fail("queue settings: " + err.Error())
	}
	return c
}
