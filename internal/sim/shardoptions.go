package sim

import (
	"math/rand/v2"
	"time"

	"github.com/surgetank/surgetank"
)

// drawShards changes the options of a seed into those of a run with several shards. Its queues are
// simple, because the other runs test the rules within one shard.
//
//	s0, s1, s2   get messages; their dead letters go to d, to e, or to a queue that the first dead
//	             letter creates
//	d            gets dead letters; its own dead letters go to e
//	e            gets dead letters, and keeps them
func drawShards(o *Options, rng *rand.Rand, yes func(int) bool) {
	o.Shards = 2 + rng.IntN(2)
	o.Steps = 20 + rng.IntN(80)
	o.Model, o.Flips, o.Disk, o.Transactions, o.NoAck, o.FoundIDs = false, false, 0, false, false, false
	o.Redrive, o.MultiTarget, o.Numbers, o.Delete = yes(60), yes(50), yes(60), yes(30)
	o.Dedup = 1000 * time.Hour
	o.Moves = []int{10, 40, 90}[rng.IntN(3)]
	o.Outbox = []int{0, 1, 3, 8}[rng.IntN(4)]
	o.Cuts, o.Alone = yes(50), yes(50)
	o.Restore = !o.Delete && yes(40)
	if o.Misreads = o.Files && yes(25); o.Misreads {
		o.Cache, o.Moves = false, 10
	}
	config := func() surgetank.QueueConfig {
		c := surgetank.QueueConfig{Shard: 1 + rng.IntN(o.Shards), DedupWindow: o.Dedup, Lease: time.Duration(1+rng.IntN(20)) * time.Second}
		if yes(20) {
			c.Shard = 0
		}
		c.Retry = surgetank.RetryConfig{Initial: time.Duration(1+rng.IntN(1000)) * time.Millisecond, MaxAttempts: []int{-1, 2, 3}[rng.IntN(3)], Jitter: surgetank.NoJitter}
		return c
	}
	o.Queues = nil
	for _, name := range []string{"s0", "s1", "s2"}[:1+rng.IntN(3)] {
		p := QueuePlan{Name: name, Config: config()}
		p.Config.DeadLetter = []string{"d", "d", "d", "e", "made"}[rng.IntN(5)]
		if yes(20) {
			p.Config.MaxMessages, p.Config.Overflow = int64(2+rng.IntN(6)), surgetank.OverflowDeadLetter
		}
		if yes(15) {
			p.Config.TTL = time.Duration(1+rng.IntN(30)) * time.Second
		}
		o.Queues = append(o.Queues, p)
	}
	d := QueuePlan{Name: "d", Config: config(), Sink: true}
	d.Config.DeadLetter = "e"
	e := QueuePlan{Name: "e", Config: config(), Sink: true}
	e.Config.DeadLetter, e.Config.Retry.MaxAttempts = "e", surgetank.Unlimited
	for _, p := range []*QueuePlan{&d, &e} {
		if yes(40) {
			p.Config.MaxMessages = int64(1 + rng.IntN(8))
		}
	}
	o.Queues = append(o.Queues, d, e, QueuePlan{Name: "made", Sink: true, Made: true})
}

// shardKinds returns the actions of runs with several shards.
func shardKinds(o *Options) (list []string) {
	add := func(n int, kind string, on bool) {
		for range n {
			if on {
				list = append(list, kind)
			}
		}
	}
	add(12, "publish", true)
	add(4, "republish", true)
	add(10, "receive", true)
	add(10, "settle", true)
	add(5, "wait", true)
	add(5, "move", !o.Misreads)
	add(1, "move", true)
	add(2, "look", true)
	add(3, "redrive", o.Redrive)
	add(2, "cut", o.Cuts)
	add(2, "delete", o.Delete)
	add(2, "limit", true)
	add(2, "crash", o.Crashes)
	add(3, "crash-in", o.Crashes && o.Files)
	add(1, "kill", o.Kills)
	add(3, "fail-shard", o.Alone)
	add(3, "open-shard", o.Alone)
	add(2, "fault", o.Faults)
	add(5, "misread", o.Misreads)
	add(2, "full", o.Full && o.Files)
	add(4, "copy", o.Restore)
	add(3, "restore", o.Restore)
	return list
}
