package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/disklog"
)

// Options is everything that a seed draws before the first action. A random part of the features
// and faults is on. So every combination occurs, and a check that one feature weakens is strict in
// runs without that feature.
type Options struct {
	Seed  uint64
	Files bool // the log on files of a crashable file system; otherwise the log in memory
	Steps int

	Queues        []QueuePlan
	Redrive       bool
	Purge, Delete bool
	Transactions  bool
	Dedup         time.Duration // the window of every queue; 0: none
	FoundIDs      bool          // the queues find dedup ids in a header if the publisher set none
	NoAck         bool
	MultiTarget   bool
	Coalesce      bool // queues replace waiting messages with the same key by one
	Numbers       bool // publishers number their messages, and send some again

	TTLs, Rules, Pools, Exclusive, Schedules, Receives, Breakers bool // messages with TTLs, group_by, and so on

	Crashes, Kills, Faults, Full, Jumps, Flips bool
	Hold                                       time.Duration // how long the log may delay entries for which no caller waits, such as acks
	SlowLog                                    int           // percent of actions after which the log is not pumped
	Latency                                    time.Duration // how long the log needs for an append; 0: the log is local
	InFlight                                   int           // entries that are in flight at most, with Latency
	Gaps                                       bool          // offsets have gaps, in the log in memory
	SnapshotBytes                              int64
	SnapshotPiece                              int
	TurnBytes                                  int
	TurnPublish                                int // messages that a turn accepts at least while consumers could receive a backlog
	TurnScan                                   int // slots that a turn looks at for commands about whole queues
	RetryReserve                               int // retries that every budget allows at any time
	ExtentBytes                                int64
	Cache                                      bool // the log keeps entries in memory
	Model                                      bool // the naive model runs next to the machine
	Probe                                      int  // percent of file system changes after which a power failure is probed
	Fault                                      *FaultPlan
	Disk                                       int64 // bytes of the disk, for the whole run; 0: no limit

	Shards  int  // 0 or 1: one broker; otherwise the number of shards behind a router (shardworld.go); only some of the options above then have an effect
	Moves   int  // percent of actions after which transfers go on to their end, with several shards
	Outbox  int  // messages in an outbox at most
	Cuts    bool // calls of a transfer fail before or after their effect
	Alone   bool // single shards fail and are opened again
	Restore bool // single shards are restored from a copy

	Misreads bool // single reads fail while transfers go on
}

// FaultPlan makes the n-th operation on the file system after the first opening fail. It is for
// tests that try every n.
type FaultPlan struct {
	N              int
	Forever, Short bool
	NoSpace        bool // ENOSPC, otherwise EIO
}

// idHeader is the header in which queues find dedup ids.
const idHeader = "id"

// QueuePlan is one queue and its effects on messages.
type QueuePlan struct {
	Name   string
	Config surgetank.QueueConfig
	Strict bool // order is checked: one in flight in each group, no attempt limit, no delays
	Lossy  bool // the queue's settings can drop messages
	Chain  bool // the dead-letter queue moves messages that it gives up to the queue Last
	Sink   bool // the queue gets dead letters only, with several shards
	Made   bool // the first dead letter creates the queue, with several shards
}

// Dead returns the name of the dead-letter queue.
func (p QueuePlan) Dead() string { return p.Name + surgetank.DeadLetterSuffix }

// deadConfig returns the settings of a dead-letter queue in a chain.
func (p *QueuePlan) deadConfig() surgetank.QueueConfig {
	return surgetank.QueueConfig{DeadLetter: p.Last(), Lease: p.Config.Lease, Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: time.Second, Jitter: -1}}
}

// Last returns the name of the queue at the end of a chain of dead-letter queues.
func (p QueuePlan) Last() string { return p.Name + ".last" }

// Draw returns the options of a seed.
func Draw(seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 0xd1ce))
	yes := func(percent int) bool { return rng.IntN(100) < percent }
	o := Options{Seed: seed, Files: yes(80), Steps: 20 + rng.IntN(160), Redrive: yes(25), Purge: yes(25), Delete: yes(15),
		Transactions: yes(40), NoAck: yes(15), MultiTarget: yes(25), Crashes: yes(75), Kills: yes(40), Faults: yes(35), Full: yes(20), Jumps: yes(30),
		SlowLog: rng.IntN(60), SnapshotBytes: []int64{300, 2000, 10000, 1 << 30}[rng.IntN(4)], SnapshotPiece: 1 + rng.IntN(400),
		TurnBytes: []int{0, 0, 200, 1000}[rng.IntN(4)], ExtentBytes: []int64{300, 1000, 0}[rng.IntN(3)], Cache: yes(50),
		TTLs: yes(20), Rules: yes(25), Pools: yes(25), Exclusive: yes(20), Schedules: yes(10), Receives: yes(40), Flips: yes(25),
		Probe: []int{0, 5, 5, 15, 15, 15, 40, 100}[rng.IntN(8)]}
	o.Model = o.TurnBytes == 0 && yes(85)
	if yes(40) {
		o.Hold = []time.Duration{time.Millisecond, time.Second, time.Minute}[rng.IntN(3)]
	}
	if yes(50) {
		o.Dedup = time.Duration(1+rng.IntN(20)) * time.Second
	}
	for _, name := range []string{"a", "b", "c"}[:1+rng.IntN(3)] {
		o.Queues = append(o.Queues, drawQueue(name, &o, rng, yes))
	}
	if o.FoundIDs = o.Dedup > 0 && yes(30); o.FoundIDs {
		for i := range o.Queues {
			o.Queues[i].Config.DedupBy = "header:" + idHeader
		}
	}
	if yes(50) {
		o.TurnScan = 1 + rng.IntN(20)
	}
	o.RetryReserve = 1 + rng.IntN(3)
	if o.Files && yes(20) {
		o.Disk = int64(7+rng.IntN(9)) * disklog.MinSegmentBytes
	}
	o.Numbers = yes(40)
	o.Breakers = yes(40)
	if yes(40) {
		o.TurnPublish = 1 + rng.IntN(3)
	}
	for i := range o.Queues {
		if yes(12) {
			o.Queues[i].Config.Accept = surgetank.AcceptConfig{Rate: surgetank.Rate(1 + rng.IntN(20)), Burst: 1 + rng.IntN(4)}
		}
	}
	if o.Coalesce = yes(25); o.Coalesce {
		for i := range o.Queues {
			if yes(70) {
				drawCoalescing(&o.Queues[i].Config.Coalesce, rng.IntN)
			}
		}
	}
	if o.Gaps = !o.Files && yes(50); yes(30) {
		o.Latency, o.InFlight = []time.Duration{4 * time.Millisecond, 40 * time.Millisecond}[rng.IntN(2)], 2+rng.IntN(5)
		o.SlowLog = 30 + rng.IntN(60)
	}
	if yes(15) {
		drawShards(&o, rng, yes)
	}
	return o
}

func drawQueue(name string, o *Options, rng *rand.Rand, yes func(int) bool) QueuePlan {
	p := QueuePlan{Name: name, Strict: yes(40), Chain: yes(25)}
	c := &p.Config
	c.DedupWindow = o.Dedup
	c.Lease = time.Duration(1+rng.IntN(20)) * time.Second
	c.Retry = surgetank.RetryConfig{Initial: time.Duration(1+rng.IntN(3000)) * time.Millisecond, MaxAttempts: []int{-1, 2, 3}[rng.IntN(3)]}
	if c.Group.Fair = yes(50); o.Model {
		c.Retry.Jitter = -1 // the model cannot know the drawn values
	}
	if o.Rules {
		c.GroupBy = []string{"header:g", "routing_key", "$.g"}[rng.IntN(3)]
	}
	if p.Strict {
		c.Group.MaxInFlight, c.Retry.MaxAttempts = 1, -1
	} else if yes(50) {
		c.Group.MaxInFlight = 1 + rng.IntN(3)
	}
	if yes(20) {
		c.Group.Rate = surgetank.Rate(1 + rng.IntN(5))
	}
	if yes(20) {
		c.Level = surgetank.LevelConfig{Rate: surgetank.Rate(1 + rng.IntN(20)), Burst: 1 + rng.IntN(3)}
	}
	if yes(20) {
		c.Level.MaxInFlight = 1 + rng.IntN(4)
	}
	if yes(20) {
		c.MaxMessages = int64(3 + rng.IntN(10))
		if yes(40) {
			p.Strict = false // messages that are given up in between are not in the order any more
			c.Overflow = surgetank.OverflowDeadLetter
		} else if yes(40) {
			c.Overflow, p.Lossy = surgetank.OverflowDropOldest, true
		}
	}
	if !p.Strict && yes(25) {
		c.MaxPriority = 5
	}
	drawOrder(c, rng, yes)
	drawControl(c, rng, yes)
	if yes(10) {
		c.TTL, p.Lossy = time.Duration(1+rng.IntN(20))*time.Second, true
	}
	if c.TTL > 0 && yes(50) || p.Chain {
		c.DeadLetter = p.Dead() // expired messages are kept only if a dead-letter queue is named
	}
	if !p.Chain && yes(8) {
		c.DeadLetter, p.Lossy = surgetank.DeadLetterDrop, true
	}
	if yes(5) {
		c.Transient, p.Lossy = true, true
	}
	if yes(25) {
		c.Retry.Budget = []float64{0.001, 0.2, 1}[rng.IntN(3)]
	}
	if yes(20) {
		c.Retry.ByReason = map[string]surgetank.RetryRule{"No": {Initial: time.Duration(1+rng.IntN(3)) * time.Second, Factor: 1}, "not yet": {Initial: surgetank.NoDelay},
			"the lease ended": {Initial: time.Duration(1+rng.IntN(5)) * time.Second}}
	}
	if yes(20) {
		c.Retry.Factor, c.Retry.Max = []float64{1, 1.5, 10}[rng.IntN(3)], time.Duration(1+rng.IntN(20))*time.Second
	}
	if yes(10) {
		c.MaxConsumers = 1 + rng.IntN(4)
	}
	if c.MaxMessages == 0 && yes(10) {
		c.MaxBytes = int64(50 + rng.IntN(500))
	}
	return p
}

// drawControl draws the settings about the target of the consumers.
func drawControl(c *surgetank.QueueConfig, rng *rand.Rand, yes func(int) bool) {
	c.Level.Adaptive, c.Level.Breaker, c.Level.Target = surgetank.AdaptiveConfig{}, "", ""
	if yes(30) {
		c.Level.Adaptive = surgetank.AdaptiveConfig{On: true, Min: rng.IntN(3), Max: 2 + rng.IntN(6), Tolerance: []float64{0, 1.2, 3}[rng.IntN(3)]}
	}
	if yes(50) {
		c.Level.Breaker = []surgetank.BreakerMode{surgetank.BreakerOff, surgetank.BreakerReports, surgetank.BreakerErrors}[rng.IntN(3)]
	}
	if yes(15) {
		c.Level.Target = "t"
	}
}

// drawOrder draws the settings that choose among the groups that can deliver.
func drawOrder(c *surgetank.QueueConfig, rng *rand.Rand, yes func(int) bool) {
	if c.Group.Fair && yes(60) {
		c.Group.Weights = map[string]int{surgetank.OtherGroups: 1 + rng.IntN(3)}
		for _, g := range []string{"g0", "g1", "g2"} {
			if yes(40) {
				c.Group.Weights[g] = 1 + rng.IntN(5)
			}
		}
	}
	if yes(30) {
		c.Level.FreshShare, c.Level.FreshAge = []float64{0.1, 0.3, 0.5, 1}[rng.IntN(4)], time.Duration(1+rng.IntN(10))*time.Second
	}
	if c.MaxPriority > 0 && yes(50) {
		c.PriorityStep = time.Duration(1+rng.IntN(5000)) * time.Millisecond
	}
}

// String lists the options, one line for each part.
func (o Options) String() string {
	var b strings.Builder
	type plain Options // a type without this method
	p := plain(o)
	p.Queues, p.Fault = nil, nil
	fmt.Fprintf(&b, "%+v", p)
	if o.Fault != nil {
		fmt.Fprintf(&b, "\n  %+v", *o.Fault)
	}
	for _, q := range o.Queues {
		fmt.Fprintf(&b, "\n  %+v", q)
	}
	return b.String()
}
