package queue

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/surgetank/surgetank"
)

// Limits of one machine, with the values that New uses for zeros.
type Limits struct {
	MaxMessage  int   // bytes of a body; DefaultMaxMessage
	MaxQueues   int   // 100,000
	MaxMeta     int   // bytes of one metadata value; 1 MiB
	TurnBytes   int   // a turn takes no further command when its entry has reached this; 256 KiB
	TurnHandout int   // hand-outs of one turn; 4,096
	ExtentBytes int64 // of the log that are freed together; 16 MiB
	TurnTimers  int   // expired leases, delays and TTLs of one turn; 16,384
	TurnEnds    int   // consumers of queues that are gone whose subscriptions one turn ends; 1,024
	TurnScan    int   // slots that one turn looks at for commands about whole queues (pages.go); 65,536
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.MaxMessage, surgetank.DefaultMaxMessage)
	def(&l.MaxQueues, 100_000)
	def(&l.MaxMeta, 1<<20)
	def(&l.TurnBytes, 256<<10)
	def(&l.TurnHandout, 4096)
	def(&l.TurnTimers, 16384)
	def(&l.TurnEnds, 1024)
	def(&l.TurnScan, 1<<16)
	if l.ExtentBytes == 0 {
		l.ExtentBytes = 16 << 20
	}
	return l
}

// Machine is all queues of one broker. It belongs to one goroutine.
type Machine struct {
	limits Limits
	rng    *rand.Rand // draws back-off jitter; the drawn value is in the fact

	// Durable state.
	epoch     uint64
	nextQueue uint64
	byName    map[string]*Queue
	byID      map[uint64]*Queue
	order     []*Queue // by id
	meta      map[string]map[string][]byte
	extents   extents
	losses    []Loss
	openings  timeline
	rested    bool // the newest fact is a clean stop

	publishers publishers
	failures   failures

	// Volatile state.
	now         int64 // never goes back
	entry       uint64
	closed      bool // after CloseEpoch: nothing happens any more
	recovering  bool // replaying: no flows, leases or timers are kept up; Recovered builds them
	full        bool // the log has no room for new messages
	nextLease   uint64
	consumers   map[uint64]*consumer
	left        map[uint64]*consumer // that are attached no more and still hold leases
	ending      []ending             // queues that are gone and still have consumers
	ends        int                  // what is left of TurnEnds
	spareLeases []*lease             // for reuse
	nextCons    uint64
	pools       map[uint64]*pool
	timers      timeHeap    // when a queue has something to do; entries may be early or stale
	dirty       []*Queue    // queues whose dispatch must run
	after       uint64      // the queue that made the last turn full; 0: none did
	immediate   []*consumer // attached for this turn only
	budget      int         // what is left of TurnTimers
	scan        int         // what is left of TurnScan
	remains     []remains   // queues that are gone, see pages.go
	snap        *snapshot
	snapGen     uint32
	rec, pub    Record // the fact being decided; reused
	out         *Output
}

// Queue is one queue. Other packages see it only through QueueInfo.
type Queue struct {
	m       *Machine
	id      uint64
	name    string
	config  surgetank.QueueConfig // with defaults
	created int64
	gone    bool

	// Durable state.
	nextSeq uint64
	slots   slots
	far     map[uint64]uint64
	dedup   dedup
	notes   map[uint64]*note
	failed  map[uint64]*keptReason // why messages came back
	due     map[uint64]int64       // only while recovering: not-before of messages that have one
	ttl     timeHeap               // expiry of messages that have one; stale entries are skipped
	spans   []surgetank.Span       // see timeline.go

	// Indexes and volatile state.
	flows      []flow
	freeFlows  []uint32
	byGroup    map[string]uint32
	givers     []*Queue // that are over their limits and wait for room here
	lastStep   *trail   // of the message that the queue gave up last by itself
	unnamed    int      // of byGroup: lines of messages without a group, one a priority
	returned   map[uint32]*seqHeap
	ready      readyHeap
	delayed    timeHeap         // {not-before, seq} of messages that their publishers delayed
	retries    timeHeap         // {next try, seq} of messages that back off; stale entries are skipped
	late       timeHeap         // {end of the delay, seq} of messages that wait and were delayed; stale entries are skipped
	lowest     uint64           // no message below waits that was never delayed
	lapsed     map[uint64]int64 // when messages expired that are still here (slotExpired)
	overdueAt  map[uint64]int64 // when those of lapsed that wait are to be given up again
	backing    map[uint64]int64 // when messages that back off in a strict group's line are tried next
	wake       timeHeap         // {when, flow}: flows that wait for their rate
	leases     map[uint64]*lease
	deadlines  timeHeap           // {deadline, seq}, also of held messages' retries; stale entries are skipped
	held       map[uint64]*damage // messages in slotHeld
	suspect    map[uint64]*damage // messages that stand in line and are known to be damaged
	consumers  list[consumer]     // in the order of their coming
	singles    list[consumer]     // of them, those with Single
	exclusives int                // number of them with Exclusive
	sole       *consumer          // the only one, where it asked for runs of groups
	line       line               // of seats
	lineTurn   uint64             // of the newest place in line
	poolless   *seat              // of consumers without a pool; nil while there was none
	tat        int64              // level rate: when the next hand-out is due
	turn       uint64             // twice the number of hand-outs, for fairness
	floor      uint64             // no live message below
	freshFrom  uint64             // durable: messages below may have been delivered before a crash
	marked     bool               // in m.dirty
	wakeAt     int64              // the entry of wake for level.rate
	timer      int64              // the earliest entry of m.timers for this queue; 0: none

	waiting, delayedN, leased int64
	ready_                    int64 // of waiting: not held up by their group
	backsN                    int64 // of waiting: back off
	retriesN                  int64 // of delayedN: back off
	damagedN                  int64 // held and lost
	bytes, leasedBytes        int64 // of all bodies, and of those that are leased, held or lost
	stats                     stats
	peaks                     peaks
}

type stats struct {
	published, duplicates, refused, delivered, acked, nacked, expired, deadLettered, dropped, circled, leasesLost uint64
}

// New makes an empty machine. seed starts the generator of back-off jitter.
func New(limits Limits, seed uint64) *Machine {
	return &Machine{
		limits:    limits.withDefaults(),
		extents:   extents{bytes: limits.withDefaults().ExtentBytes},
		rng:       rand.New(rand.NewPCG(seed, 0x5ca1ab1e)),
		nextQueue: 1,
		byName:    map[string]*Queue{},
		byID:      map[uint64]*Queue{},
		meta:      map[string]map[string][]byte{},
		consumers: map[uint64]*consumer{},
		left:      map[uint64]*consumer{},
		pools:     map[uint64]*pool{},
	}
}

// Epoch is the number of times the log was opened by a broker.
func (m *Machine) Epoch() uint64 { return m.epoch }

// SetFull says whether the log has room for new messages only; acks are always taken.
func (m *Machine) SetFull(full bool) { m.full = full }

// Full says what SetFull said last.
func (m *Machine) Full() bool { return m.full }

// Config gives the settings of a queue.
func (m *Machine) Config(name string) (surgetank.QueueConfig, bool) {
	q := m.byName[name]
	if q == nil {
		return surgetank.QueueConfig{}, false
	}
	return q.config, true
}

// sorted gives the queues in the order of their ids, so that nothing depends on the order of a map.
func (m *Machine) sorted() []*Queue { return slices.Clone(m.order) }

// rank gives where in the order of queues an id is or would be, and whether it is there.
func (m *Machine) rank(id uint64) (int, bool) {
	return slices.BinarySearchFunc(m.order, id, func(q *Queue, id uint64) int { return cmp.Compare(q.id, id) })
}

// from gives the queues from an id on, for reading until the order changes.
func (m *Machine) from(id uint64) []*Queue {
	i, _ := m.rank(id)
	return m.order[i:]
}

// Output is what one turn decided. Nothing of it may leave the process before Entry is durable.
type Output struct {
	// Entry is where records are appended; the caller puts the header in and takes the bytes away.
	Entry    []byte
	Records  int
	Handouts []Handout
	Ended    []Ended  // subscriptions that ended by themselves
	Notices  []Notice // what an operator should hear of
}

// Handout is a message for a consumer; the body is read by whoever delivers it.
type Handout struct {
	Consumer    uint64
	Queue       *Queue
	ID          surgetank.MessageID
	Seq         uint64
	Ref         Ref
	Notes       []Ref
	Group       string
	Size        uint32
	Attempt     int
	Redelivered bool
	Lease       uint64 // 0: settled already (no ack expected)
	Deadline    int64  // 0: as long as the subscription
	At          int64  // when it was handed out
}

// Ended says that a subscription ended, and why: CodeNotFound when its queue is gone, nil for a
// receive that got its fill.
type Ended struct {
	Consumer uint64
	Err      error
}

// Name and ID are the queue's.
func (q *Queue) Name() string { return q.name }
func (q *Queue) ID() uint64   { return q.id }

// Floor gives the lowest sequence number that is not settled.
func (q *Queue) Floor() uint64 {
	if q.floor < q.nextSeq {
		next := q.nextSeq
		q.slots.ascend(q.floor, func(seq uint64, s *slot) bool {
			if s.live() {
				next = seq
				return false
			}
			return true
		})
		q.floor = next
	}
	return q.floor
}

// emit logs a fact and makes it true.
func (m *Machine) emit(r *Record) {
	if r.Kind == kindTransferred { // a note refers to it
		for len(m.out.Entry)%refAlign != 0 {
			m.out.Entry = append(m.out.Entry, byte(kindPad))
		}
	}
	r.Time = m.now
	r.Ref = makeRef(m.entry, len(m.out.Entry))
	m.out.Entry = r.encode(m.out.Entry)
	m.out.Records++
	m.apply(r)
}

// mark asks for a queue's dispatch at the end of the turn.
func (q *Queue) mark() {
	if q.m.recovering {
		return
	}
	if !q.marked {
		q.marked = true
		q.m.dirty = append(q.m.dirty, q)
	}
	q.wakeGivers()
}
