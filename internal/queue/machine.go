package queue

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// Limits of one machine. New replaces zeros with the value at the end of each line.
type Limits struct {
	MaxMessage  int           // bytes of a body; DefaultMaxMessage
	MaxQueues   int           // 100,000
	Shards      int           // shards of the broker; with more than 1, queues that do not exist here can exist elsewhere (outbox.go); 1
	MaxMeta     int           // bytes of one metadata value; 1 MiB
	TurnBytes   int           // the entry size after which a turn takes no further command; 256 KiB
	TurnHandout int           // hand-outs in one turn; 4,096
	ExtentBytes int64         // bytes of the log that are freed together; 16 MiB
	TurnTimers  int           // expired leases, delays and TTLs handled in one turn; 16,384
	TurnPublish int           // messages accepted in one turn at least, also if consumers could use the whole turn (lanes.go); 256
	Hold        time.Duration // how long publishes wait for consumers that wait for the broker; 0: they do not wait
	TurnEnds    int           // subscriptions to deleted queues ended in one turn; 1,024
	TurnScan    int           // slots read in one turn by commands about whole queues (pages.go); 65,536

	RetryReserve int // retries that a queue with a retry budget may make at any time; 10

	OutboxMessages int // messages that wait in one outbox (outbox.go); 10,000
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.MaxMessage, surgetank.DefaultMaxMessage)
	def(&l.MaxQueues, 100_000)
	def(&l.Shards, 1)
	def(&l.MaxMeta, 1<<20)
	def(&l.TurnBytes, 256<<10)
	def(&l.TurnHandout, 4096)
	def(&l.TurnTimers, 16384)
	def(&l.TurnPublish, 256)
	def(&l.TurnEnds, 1024)
	def(&l.TurnScan, 1<<16)
	def(&l.RetryReserve, 10)
	def(&l.OutboxMessages, 10_000)
	if l.ExtentBytes == 0 {
		l.ExtentBytes = 16 << 20
	}
	return l
}

// Machine is all queues of one broker. Only one goroutine uses a Machine.
type Machine struct {
	limits Limits
	rng    *rand.Rand // draws back-off jitter; the record contains the drawn value

	machineDurable
	machineVolatile
}

// machineDurable is the machine's part of the durable state. Only apply and the restoring of a
// snapshot write it; internal/lint checks it.
type machineDurable struct {
	epoch      uint64
	nextQueue  uint64
	byName     map[string]*Queue
	byID       map[uint64]*Queue
	order      []*Queue // by id
	meta       metadata
	losses     []Loss
	openings   timeline
	rested     bool // the newest fact is a clean stop
	publishers publishers
	failures   failures
}

// machineVolatile is the rest: a restart loses it or computes it again.
type machineVolatile struct {
	// extents describes the log's entries and not facts. It decides when space is freed, and
	// nothing about a message. A snapshot has a copy, because the older entries are not read again.
	extents extents
	// now never goes back. It is volatile because the time of a fact is in its record.
	now         int64
	entry       uint64
	closed      bool // after CloseEpoch: the machine does nothing more
	recovering  bool // replaying: flows, leases and timers are not updated; Recovered builds them
	full        bool // the log has no room for new messages
	nextLease   uint64
	consumers   map[uint64]*consumer
	left        map[uint64]*consumer // consumers that are not attached any more and still have leases
	ending      []ending             // deleted queues that still have consumers
	ends        int                  // how many subscriptions (TurnEnds) this turn can still end
	salt        uint64               // of tables; it changes no decision
	spareLeases []*lease             // for reuse
	nextCons    uint64
	pools       map[uint64]*pool
	watched     []*pool     // pools whose state is reported
	timers      timeHeap    // when each queue has something to do; entries can be early or stale
	dirty       []*Queue    // queues that dispatch must look at
	after       uint64      // id of the queue that made the last turn full; 0: none
	immediate   []*consumer // attached for this turn only
	budget      int         // how many timers (TurnTimers) this turn can still handle
	scan        int         // how many slots (TurnScan) this turn can still read
	remains     []remains   // deleted queues, see pages.go
	snap        *snapshot
	snapGen     uint32
	rec, pub    Record // the record under construction; reused
	out         *Output
	published   int   // messages that this turn published or refused
	quota       quota // the publishers' share of this turn
	handBytes   int   // length of the entry at which hand-outs stop

	targets      map[string]*control // volatile: by targetKey
	leaving      leaving             // volatile
	handed       int                 // volatile: hand-outs of the last turn; the next turn makes room for as many
	turn         uint64              // volatile: number of the turn since the opening
	levelChanges uint64              // volatile: see LevelChanges
	touched      []*control          // volatile: the controls that this turn reported to
	refunding    *control            // volatile: the control whose refunds are due, see refundAll
	halfway      bool                // the last command of the turn is not finished
}

// Queue is one queue. Other packages see it only through QueueInfo.
type Queue struct {
	m *Machine
	queueDurable
	queueVolatile
}

// queueDurable is a queue's part of the durable state. Only apply and the restoring of a snapshot
// write it; internal/lint checks it.
type queueDurable struct {
	id        uint64
	name      string
	config    surgetank.QueueConfig // with defaults
	pausedBy  string                // see pauseNote
	pausedAt  int64
	created   int64
	gone      bool // the queue was deleted
	nextSeq   uint64
	slots     slots // see slotDurable
	dedup     dedup
	notes     map[uint64]*note
	failed    map[uint64]*keptReason // the reason of each returned message
	spans     []door.Span            // see timeline.go
	freshFrom uint64                 // lower messages may have been delivered before a crash
	origin    origin                 // see origin.go
}

// queueVolatile is the rest: indexes of the durable state, schedules, and the state of consumers.
//
// The schedules are due, ttl, delayed, retries, backing, lapsed and overdueAt. Their times come
// from records, but time itself, not a record, ends an entry. So they are volatile, although a
// snapshot contains the entries that are still ahead.
type queueVolatile struct {
	flows      []flow // the table of the groups of the messages in slots; an unused entry is freed without a record
	freeFlows  []uint32
	byGroup    map[string]uint32
	far        map[uint64]uint64 // see slotVolatile
	due        map[uint64]int64  // only while recovering: the not-before of messages that have one
	ttl        timeHeap          // when messages expire; stale entries are skipped
	givers     []*Queue          // queues over their limits that wait for room in this one
	lastStep   *trail            // trail of the newest message that the queue gave up by itself
	unnamed    int               // of byGroup: lines of messages without a group, one for each priority
	returned   map[uint32]*seqHeap
	ready      readyHeap        // the flows that can deliver, if there is no sched
	sched      *sched           // volatile: the order of groups with group.fair or level.fresh_share
	others     uint16           // volatile: the weight of groups that group.weights does not name; 0 is 1
	delayed    timeHeap         // {not-before, seq} of messages that their publishers delayed
	retries    timeHeap         // {next try, seq} of messages that back off; stale entries are skipped
	late       timeHeap         // {end of delay, seq} of waiting messages that were delayed; stale entries are skipped
	lowest     uint64           // no lower message waits that was never delayed
	lapsed     map[uint64]int64 // when messages with slotExpired expired
	overdueAt  map[uint64]int64 // for each waiting message in lapsed, when to give it up again
	backing    map[uint64]int64 // when messages that back off in a strict group's line are tried next
	wake       timeHeap         // {time, flow}: flows that wait for their rate
	leases     map[uint64]*lease
	deadlines  timeHeap           // {deadline, seq} of leases, {retry, seq} of held messages; stale entries are skipped
	held       map[uint64]*damage // messages in slotHeld
	suspect    map[uint64]*damage // messages in line that are known to be damaged
	consumers  list[consumer]     // in the order of subscribing
	singles    list[consumer]     // the consumers with Single
	exclusives int                // how many consumers have Exclusive
	sole       *consumer          // the only consumer, if it asked for runs of groups
	line       line               // the seats whose consumers want a message
	lineTurn   uint64             // the highest turn number in line so far
	poolless   *seat              // seat of consumers without a pool; nil: there was never such a consumer
	tat        int64              // level rate: when the next hand-out is due
	budget     budget             // see budget.go; volatile
	control    *control           // volatile: see control.go; nil: none
	member     uint64             // volatile: the queue's number in control
	ownLevels  int                // volatile: how many consumers have OwnLevel
	resumed    uint64             // volatile: see door.Level
	opened     uint64             // volatile: see door.Level
	parking    map[uint64]bool    // volatile: messages that are parked when their back-off ends
	floor      uint64             // no lower message is live
	marked     bool               // the queue is in m.dirty
	arriving   bool               // see movein.go; the name says it
	frozen     bool               // see moveout.go; the metadata says it
	onHold     bool               // hand-outs stop for a while, because the queue will move
	expiry     map[uint64]int64   // only while arriving: when messages expire
	pass       *passTimes         // only while leaving
	wakeAt     int64              // the time of the entry in wake for level.rate
	timer      int64              // the earliest entry of m.timers for this queue; 0: none

	waiting, delayedN, leased int64
	ready_                    int64                // number of waiting messages that their group does not block
	backsN                    int64                // number of waiting messages that back off
	retriesN                  int64                // number of delayed messages (delayedN) that back off
	damagedN                  int64                // number of held and lost messages
	bytes, leasedBytes        int64                // bytes of all bodies; bytes of the bodies of leased, held or lost messages
	acceptAt                  int64                // volatile: accept.rate, when the next publish is due
	refusedBy                 [limitKinds]refusals // volatile
	meter                     meter                // volatile
	rates                     sketch               // volatile
	stats                     stats
	peaks                     peaks
}

type stats struct {
	published, duplicates, refused, delivered, acked, nacked, expired, deadLettered, dropped, circled, leasesLost, coalesced uint64
}

// New returns an empty machine. seed starts the generator of back-off jitter.
func New(limits Limits, seed uint64) *Machine {
	return &Machine{
		limits: limits.withDefaults(),
		rng:    rand.New(rand.NewPCG(seed, 0x5ca1ab1e)),
		machineDurable: machineDurable{
			nextQueue: 1,
			byName:    map[string]*Queue{},
			byID:      map[uint64]*Queue{},
			meta:      metadata{spaces: map[string]map[string]door.MetaValue{}},
		},
		machineVolatile: machineVolatile{
			salt:      seed * 0x9e3779b97f4a7c15,
			extents:   extents{bytes: limits.withDefaults().ExtentBytes},
			consumers: map[uint64]*consumer{},
			left:      map[uint64]*consumer{},
			pools:     map[uint64]*pool{},
		},
	}
}

// Epoch returns how often a broker has opened the log.
func (m *Machine) Epoch() uint64 { return m.epoch }

// SetFull tells the machine whether the log has no room for new messages. Acks are always accepted.
func (m *Machine) SetFull(full bool) { m.full = full }

// Full returns the value of the last SetFull.
func (m *Machine) Full() bool { return m.full }

// Config returns the settings of a queue. It returns false if there is no such queue.
func (m *Machine) Config(name string) (surgetank.QueueConfig, bool) {
	q := m.byName[name]
	if q == nil {
		return surgetank.QueueConfig{}, false
	}
	return q.config, true
}

// sorted returns the queues in the order of their ids, so that no result depends on the order of a
// map.
func (m *Machine) sorted() []*Queue { return slices.Clone(m.order) }

// rank returns the index of an id in the order of queues, and whether the queue exists.
func (m *Machine) rank(id uint64) (int, bool) {
	return slices.BinarySearchFunc(m.order, id, func(q *Queue, id uint64) int { return cmp.Compare(q.id, id) })
}

// from returns the queues with this id or a higher one. The slice is valid until a queue is created
// or deleted.
func (m *Machine) from(id uint64) []*Queue {
	i, _ := m.rank(id)
	return m.order[i:]
}

// Output is the decisions of one turn. No part of it may leave the process before Entry is durable.
type Output struct {
	// Entry is the turn's entry. The caller appends the header before the turn, the turn appends
	// its records, and the caller reads the bytes after the turn.
	Entry    []byte
	Records  int
	Turn     uint64 // for Machine.Released, once the outputs have left
	Handouts []Handout
	Ended    []Ended  // subscriptions that the machine ended
	Notices  []Notice // events for the operator
	Metas    []MetaChange
	Pools    []PoolState // watched pools that changed
}

// Handout is a message for a consumer. The broker reads the body when it delivers the message.
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
	Lease       uint64 // number of the lease; 0: the message is acked already, no ack is expected
	Token       int64  // fencing token, see fencing.go; 0: none
	Deadline    int64  // 0: the lease lasts until the subscription ends
	At          int64  // when the message was handed out
}

// Ended reports the end of a subscription. Err is CodeNotFound if the queue was deleted, and nil
// for a receive that is complete.
type Ended struct {
	Consumer uint64
	Err      error
}

// Name and ID return the queue's name and number.
func (q *Queue) Name() string { return q.name }
func (q *Queue) ID() uint64   { return q.id }

// Floor returns the lowest sequence number that is not settled.
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

// emit logs a record and applies it.
func (m *Machine) emit(r *Record) {
	if r.Kind == kindTransferred { // a dead-letter note refers to the position of this record
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

// mark requests a dispatch of the queue at the end of the turn.
func (q *Queue) mark() {
	if q.raw() {
		return
	}
	if !q.marked {
		q.marked = true
		q.m.dirty = append(q.m.dirty, q)
	}
	q.wakeGivers()
}
