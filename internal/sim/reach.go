package sim

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Point is an event that runs reach. A campaign must reach every point, so that an idle simulator
// is noticed.
type Point uint8

// The points. Those up to Records measure the size of a run. The others are kinds of states, faults
// and features.
const (
	Runs Point = iota
	Actions
	Checks
	TurnsCompared
	Published
	Delivered
	Acked
	Openings
	Entries
	Records
	CrashStates
	Probes
	ProbesInRecovery
	ProbesTwice
	StatesCompared
	Crashes
	Kills
	CrashesInRecovery
	CrashesTwice
	FailedOpenings
	Faults
	FaultsMet
	LogFailures
	Full
	FullRefusals
	FlipsDetected
	FlipsHarmless
	SectorsDetected
	SectorsHarmless
	Jumps
	FarJumps
	SlowTurns
	Uncertain
	SnapshotsSaved
	SnapshotsRestored
	Relocated
	Duplicates
	FoundIDs
	QueueFull
	Expired
	DeadLettered
	DeadTwice
	Dropped
	LeasesLost
	Nacked
	Rejected
	Extended
	VoidReceipts
	Redelivered
	Retried
	Delayed
	Prioritized
	RuleGrouped
	GroupRuns
	Pooled
	ExclusiveRefused
	SingleConsumers
	OnceReceives
	NowReceives
	NoAcks
	Multiple
	Transactions
	TransactionsRefused
	Redriven
	Purged
	Deleted
	Paused
	BreakerSet
	TargetReports
	Configured
	Metas
	MetasRefused
	MetasWatched
	Peeks
	PagedPeeks
	PagedPurges
	Drained
	Unreadable
	Scrubs
	Repaired
	QueuesMissing
	QueuesDamaged
	TurnsInFlight
	CrashesInFlight
	PrefixesInFlight
	ShardRuns
	ShardPowerFailures
	ShardsReopened
	ShardsRestored
	Transfers
	TransfersCutBefore
	TransfersCutBetween
	TransfersRepeated
	TransfersStopped
	TransfersUnread
	OutboxesFull
	OutboxesLeft
	SplitPublishes
	SplitPublishesPartly
	TargetsMade
	TargetsDeleted
	ShardStates
	ModelLost
	NumbersRepeated
	NumbersKnown
	Coalesced
	KeysDelivered
	points
)

var pointNames = [points]string{
	"runs", "actions", "checks", "turns compared with the model", "messages published", "deliveries", "confirmed acks", "openings", "log entries", "log records",
	"crash states", "crash states beside the run", "power failing again in recovery", "power failing twice in recovery", "recovered states compared with the model", "power failures",
	"processes killed", "crashes in recovery", "two crashes in recovery", "openings that failed", "faults set", "operations that failed", "log failures", "full disks", "publishes refused for the disk",
	"bits flipped and detected", "bits flipped and harmless", "sectors lost and detected", "sectors lost and harmless", "clock jumps", "jumps to 1970 or 2038", "turns while the disk is slow", "uncertain answers",
	"snapshots saved", "snapshots restored", "messages relocated", "duplicates", "dedup ids by a rule", "publishes refused by a full queue", "expired",
	"dead-lettered", "dead-lettered again", "dropped by overflow", "leases that ended", "nacks", "rejects", "leases extended", "void receipts refused",
	"redeliveries", "later attempts", "delayed messages", "hand-outs by priority", "groups by a rule", "runs of a group", "pooled consumers", "exclusive consumers refused",
	"single active consumers", "waiting receives", "immediate receives", "hand-outs without acks", "messages for several queues", "transactions",
	"transactions refused", "redriven", "purges", "queues deleted", "pauses", "breakers opened or closed by a command", "targets reported", "settings changed", "metadata read", "changes of metadata refused for their condition", "changes of metadata watched", "peeks", "turns of peeks that went on", "turns of purges that went on", "runs drained", "messages that could not be read", "scrubs", "damaged logs repaired",
	"queues with messages missing after a repair", "queues with bodies lost after a repair", "turns while entries are in flight", "crashes with several entries in flight", "crashes that left a part of the entries in flight",
	"runs with several shards", "power failures of several shards", "shards opened again alone", "shards restored from a copy", "messages sent to another shard", "transfers cut before the second step", "transfers cut between the second step and the ack",
	"messages that arrived again and were recognized", "transfers stopped by a full queue", "messages of an outbox that could not be read", "outboxes full", "power failures with messages in an outbox", "publishes to several shards", "publishes that some of their shards refused", "target queues that a transfer made", "target queues deleted", "crash states of several shards",
	"models lost in the middle of an entry",
	"numbers sent again", "numbers found to be confirmed",
	"coalesced", "deliveries of coalescing keys",
}

// String returns the description of the point.
func (p Point) String() string { return pointNames[p] }

// Counters counts the points that runs reached.
type Counters struct {
	N         [points]int64
	Simulated time.Duration
}

// Add adds the counters of another run.
func (c *Counters) Add(o *Counters) {
	for i := range c.N {
		c.N[i] += o.N[i]
	}
	c.Simulated += o.Simulated
}

func (c *Counters) one(p Point) { c.N[p]++ }

// Missing returns the names of the points that were never reached, except ModelLost, which is
// allowed to be missing.
func (c *Counters) Missing() (names []string) {
	for p := range ModelLost {
		if c.N[p] == 0 {
			names = append(names, p.String())
		}
	}
	return names
}

// MissingOfShards is Missing for a campaign of runs with several shards only.
func (c *Counters) MissingOfShards() (names []string) {
	for p := ShardRuns; p < ModelLost; p++ {
		if c.N[p] == 0 {
			names = append(names, p.String())
		}
	}
	return names
}

// Table writes the points as a Markdown table, with three in each row.
func (c *Counters) Table(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| reached | times | reached | times | reached | times |\n|---|---:|---|---:|---|---:|\n")
	for p := Point(0); p < points; p += 3 {
		for q := p; q < p+3; q++ {
			if q < points {
				fmt.Fprintf(&b, "| %s | %d ", q, c.N[q])
			} else {
				b.WriteString("| | ")
			}
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "\n%v of simulated time\n", c.Simulated.Round(time.Second))
	_, err := io.WriteString(w, b.String())
	return err
}
