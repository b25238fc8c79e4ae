package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/surgetank/surgetank"
)

// Kind is the kind of a record. The numbers are on disk and never change their meaning. A build
// does not open a log with a kind that it does not know.
type Kind uint8

// Records are facts. They contain the chosen value (a sequence number, a not-before time), never
// the rule that chose it. So newer code replays them with the same result.
const (
	kindPad         Kind = 0  // one byte of padding, so that messages start at a multiple of refAlign
	kindEnqueued    Kind = 1  // a message, stored once for all its target queues
	kindMoved       Kind = 2  // a message written again near the log's end; it replaces the position of each target that still exists
	kindAcked       Kind = 3  // messages of one queue are acked
	kindReturned    Kind = 4  // a lease ended without an ack: attempts, and when the message may be tried again
	kindTransferred Kind = 5  // a message moves from one queue to another: dead letter or redrive
	kindRemoved     Kind = 6  // messages of one queue are dropped by a rule: TTL, overflow, user's choice
	kindPurged      Kind = 7  // all messages of a queue below a number are dropped, except some
	kindQueueSet    Kind = 8  // a queue is created, or its settings change
	kindQueueGone   Kind = 9  // a queue and its messages are removed
	kindMetaSet     Kind = 10 // a small value of a door is set or removed
	kindEpoch       Kind = 11 // a broker opened the log without an incarnation; written by old versions only
	kindOpened      Kind = 12 // a broker opened the log under a new incarnation; receipts of earlier ones are void
	kindConfirmed   Kind = 13 // numbers of a publisher are confirmed: their messages are in this entry
	kindClosed      Kind = 14 // a broker stopped cleanly; names the messages that were leased
	kindFailed      Kind = 15 // as kindReturned, with the reason
	kindCoalesced   Kind = 16 // a message is not delivered, because a waiting message stands for it
	kindArrived     Kind = 20 // a message from another shard, with its history
	kindCopied      Kind = 21 // a message of an arriving queue, with its state; it replaces the message with its number
	kindPart        Kind = 22 // a part of the other state of an arriving queue, as a snapshot has it
	kindMovedIn     Kind = 23 // an arriving queue becomes a queue

	// The kinds below are in snapshots only. Those marked "optional" are left out when empty.
	kindSnapHead  Kind = 32 // counters, then the last entry covered and the extents
	kindSnapQueue Kind = 33 // a queue: settings, groups, notes
	kindSnapSlots Kind = 34 // one chunk of messages
	kindSnapTail  Kind = 35 // the end, with the number of chunks
	kindSnapTimes Kind = 36 // not-before (0) or expiry (1) times of a queue's messages
	kindSnapDedup Kind = 37 // dedup ids of a queue
	kindSnapLoss  Kind = 38 // entries that repairs lost; optional
	kindSnapOpens Kind = 39 // the openings of the log; optional
	kindSnapSpans Kind = 40 // the incarnations in which a queue's messages were confirmed; optional

	kindSnapPublisher Kind = 41 // a publisher and its confirmed numbers; optional
	kindSnapTrails    Kind = 43 // which queues gave up a queue's messages by themselves; optional
	kindSnapFailures  Kind = 44 // why messages of a queue were returned last; optional
	kindSnapKeys      Kind = 45 // coalescing keys of a chunk's messages; optional
	kindSnapVersions  Kind = 46 // the versions of metadata values; optional
	kindSnapOrigin    Kind = 47 // the earlier shards of a queue that moved here; optional
	kindSnapBefore    Kind = 48 // a publisher's numbers that an earlier shard of a queue confirmed; optional
	kindSnapFresh     Kind = 42 // which messages may have been delivered before a crash, and whether the stop was clean
)

// KindMoved is the kind of a message that was written again. It is exported for statistics.
const KindMoved = kindMoved

// Ref is the position of a message in the log: the number of its entry, and the position of its
// record inside the entry. The position counts units of refAlign bytes.
type Ref uint64

const (
	refBits  = 22
	refAlign = 4
	// MaxPosition is the offset in an entry at and after which no message may start: 16 MiB.
	MaxPosition = refAlign << refBits
)

func makeRef(entry uint64, position int) Ref {
	return Ref(entry<<refBits | uint64(position/refAlign))
}

// Entry is the number of the entry.
func (r Ref) Entry() uint64 { return uint64(r) >> refBits }

// Position is the byte offset of the record in the entry.
func (r Ref) Position() int { return int(r&(1<<refBits-1)) * refAlign }

// entryVersion is the first byte of every entry.
const entryVersion = 1

// EntryHeader starts every entry. Number counts the entries of a broker's log from 1 without gaps,
// through all epochs. Time is the time of the turn in nanoseconds since 1970; it never goes back.
type EntryHeader struct {
	Epoch, Number uint64
	Time          int64
}

// AppendHeader encodes an entry's header.
func AppendHeader(b []byte, h EntryHeader) []byte {
	b = append(b, entryVersion)
	b = appendUint(b, h.Epoch)
	b = appendUint(b, h.Number)
	return appendUint(b, uint64(h.Time))
}

// ParseHeader decodes an entry's header and returns the offset of the first record.
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
	Expires    int64 // nanoseconds since 1970; 0: never
	DedupUntil int64 // end of the dedup window of the message's id; 0: the id is not kept

	// Coalescing; see coalesce.go. Key is zero if the message has no key.
	Key        CoalesceKey
	GroupKey   bool   // the key is the group
	Supersedes uint64 // a message of the queue that leaves it now; 0: none
	Due        int64  // with a key: when the message may be delivered first; 0: at once
}

// Record is one decoded fact. Kind says which fields are used. Step reuses one Record for all its
// decisions, so copy each part that you keep.
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

	// arrived: as enqueued, with the time of the first publishing and the dead-letter history.
	// Redriven means that a redrive moved the message.
	Born     int64
	Deaths   []surgetank.Death
	Redriven bool

	// copied: as arrived, with Attempts and with Detail, the reason of its last return.
	Copied copied

	DedupUntil int64 // coalesced: the id of DedupKey is kept until this time; 0: there is no id

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
	Name      string // transferred: the queue that the message leaves
	Namespace string
	Value     []byte
	Config    surgetank.QueueConfig
	Pause     pauseNote // queue_set
	Epoch     uint64

	Incarnation uint64 // opened

	// confirmed: Count numbers of the publisher Name, from First on. Queue and ToSeq are the queue
	// and the number of the first number's message. The other messages follow it in that queue;
	// otherwise Queue is 0.
	First, Count uint64
}

// copied is a message's state in the shard that it comes from.
type copied struct {
	Since, Due        int64
	Priority          uint8
	Redelivered, Late bool
}

// reason is why a message was transferred or removed. The numbers are on disk.
type reason uint8

const (
	reasonRedriven reason = iota
	reasonRejected
	reasonAttempts
	reasonExpired
	reasonOverflow
	reasonDamaged // the message's body could not be read, and the operator dropped the message
	reasonPurged  // the message's queue was purged in more than one turn
	reasonCircled // the message would have come to the same queue twice without a consumer
)

var reasonNames = [...]string{"redriven", surgetank.ReasonRejected, surgetank.ReasonAttempts,
	surgetank.ReasonExpired, surgetank.ReasonOverflow, "damaged", "purged", "circled"}

// reasonNamed is the reverse of String. An unknown name is reasonRejected.
func reasonNamed(name string) reason {
	if i := slices.Index(reasonNames[:], name); i >= 0 {
		return reason(i)
	}
	return reasonRejected
}

func (r reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// encode appends every kind of record except messages, which message.go encodes.
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
	case kindCoalesced:
		seq := uint64(0)
		if len(r.Seqs) > 0 {
			seq = r.Seqs[0]
		}
		for _, n := range [...]uint64{r.Queue, seq, r.ToQueue, r.ToSeq, uint64(r.DedupUntil)} {
			b = appendUint(b, n)
		}
		if r.DedupUntil != 0 {
			b = append(b, r.DedupKey[:]...)
		}
	case kindPurged:
		b = appendUint(b, r.Queue)
		b = appendUint(b, r.Below)
		b = appendSeqs(b, r.Seqs)
	case kindQueueSet:
		b = appendUint(b, r.Queue)
		b = appendString(b, r.Name)
		b = appendUint(b, uint64(r.Time))
		b = appendBytes(b, encodeConfig(&r.Config, r.Pause))
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
	case kindPart:
		b = appendBytes(b, r.Value)
	case kindMovedIn:
		b = appendUint(b, r.Queue)
		b = appendString(b, r.Name)
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

// Expires returns when the transferred message expires in its new queue. The time is in NotBefore,
// which a transfer does not use.
func (r *Record) Expires() int64 { return r.NotBefore }

// decode reads the rest of a record, after its kind. The record must not be a message.
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
	case kindCoalesced:
		r.Queue, r.Seqs = d.uint(), r.Seqs[:0]
		if seq := d.uint(); seq != 0 {
			r.Seqs = append(r.Seqs, seq)
		}
		r.ToQueue, r.ToSeq, r.DedupUntil = d.uint(), d.uint(), d.time()
		if r.DedupUntil != 0 {
			r.DedupKey = d.fixed16()
		}
	case kindPurged:
		r.Queue, r.Below = d.uint(), d.uint()
		r.Seqs = d.seqs(r.Seqs[:0])
	case kindQueueSet:
		r.Queue, r.Name, r.Time = d.uint(), d.string(), d.time()
		r.Config, r.Pause = d.config()
	case kindQueueGone:
		r.Queue = d.uint()
	case kindMetaSet:
		r.Namespace, r.Name = d.string(), d.string()
		r.Value = nil
		if d.byte() != 0 {
			r.Value = append([]byte{}, d.bytes()...)
		}
	case kindPart:
		r.Value = append([]byte{}, d.bytes()...)
	case kindMovedIn:
		r.Queue, r.Name = d.uint(), d.string()
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

// appendSeqs encodes sequence numbers as zigzag differences. They need not ascend.
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

// encodeConfig encodes settings as JSON with the field names of the root package. Settings are read
// seldom, so they need no compact encoding. A build must not open a log with a setting that it does
// not know.
func encodeConfig(c *surgetank.QueueConfig, p pauseNote) []byte {
	b, err := json.Marshal(&storedConfig{*c, p.by, p.at})
	if err != nil {
		panic("queue settings cannot be encoded: " + err.Error()) // unreachable: Validate rejected NaN and infinities
	}
	return b
}

// storedConfig is the stored form of a queue's settings and of its pause note.
type storedConfig struct {
	surgetank.QueueConfig
	PausedBy string `json:",omitempty"`
	PausedAt int64  `json:",omitempty"` // nanoseconds since 1970
}

func (d *decoder) config() (surgetank.QueueConfig, pauseNote) {
	var c storedConfig
	b := d.bytes()
	if d.err != nil {
		return c.QueueConfig, pauseNote{}
	}
	j := json.NewDecoder(bytes.NewReader(b))
	j.DisallowUnknownFields()
	if err := j.Decode(&c); err != nil {
		d.fail("queue settings: " + err.Error())
	}
	return c.QueueConfig, pauseNote{c.PausedBy, c.PausedAt}
}
