package sim

import (
	"io"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// watchedLog records which entries the log confirmed before a crash.
type watchedLog struct {
	commitlog.Log
	w *world
}

func (l watchedLog) Append(data []byte, done func(commitlog.Offset, error)) {
	w := l.w
	w.count.one(Entries)
	h, _, err := queue.ParseHeader(data)
	if err != nil {
		w.ledger.violation("sound entries", "the broker logs an entry whose header cannot be read: %v", err)
	}
	number, life := h.Number, w.life
	l.Log.Append(data, func(at commitlog.Offset, err error) {
		if err == nil && w.ok(life) {
			w.logged = max(w.logged, number)
		}
		done(at, err)
	})
}

// Pace calls the log: see commitlog.Pacer.
func (l watchedLog) Pace() commitlog.Pace { return commitlog.PaceOf(l.Log) }

// Freeable and Room call the log: see commitlog.Freer.
func (l watchedLog) Freeable(before commitlog.Offset) int64 {
	return l.Log.(commitlog.Freer).Freeable(before)
}

func (l watchedLog) Room() int64 { return l.Log.(commitlog.Freer).Room() }

func (l watchedLog) KeepFree(bytes int64) { l.Log.(commitlog.Freer).KeepFree(bytes) }

// watchedSnapshots counts snapshots.
type watchedSnapshots struct {
	commitlog.Snapshots
	w *world
}

func (s watchedSnapshots) Save(at commitlog.Offset, write func(io.Writer) error) error {
	err := s.Snapshots.Save(at, write)
	if err == nil {
		s.w.count.one(SnapshotsSaved)
	}
	return err
}

func (s watchedSnapshots) Latest() (commitlog.Offset, io.ReadCloser, error) {
	at, r, err := s.Snapshots.Latest()
	if r != nil {
		s.w.count.one(SnapshotsRestored)
	}
	return at, r, err
}

// tally counts the points that a turn reached.
func (w *world) tally(t *broker.Turn) {
	n := &w.count
	w.machine = t.Machine
	n.N[Records] += int64(t.Output.Records)
	for _, c := range t.Commands {
		switch c := c.(type) {
		case *queue.Relocate:
			n.N[Relocated] += int64(c.Moved)
		case *queue.Publish:
			for i := range c.Msgs {
				if c.Msgs[i].Groups != nil {
					n.one(RuleGrouped)
				}
				if t.Machine.Full() && surgetank.CodeOf(c.Results[i].Err) == surgetank.CodeFull {
					n.one(FullRefusals)
				}
			}
		case *queue.Settle:
			for i, err := range c.Results {
				switch {
				case surgetank.CodeOf(err) == surgetank.CodeLeaseLost:
					n.one(VoidReceipts)
				case err == nil && c.Items[i].Op == surgetank.Extend:
					n.one(Extended)
				case err == nil && c.Items[i].Op == surgetank.Reject:
					n.one(Rejected)
				}
			}
		case *queue.Transact:
			if n.one(Transactions); c.Err != nil {
				n.one(TransactionsRefused)
			}
		case *queue.Attach:
			if c.Opts.Exclusive && surgetank.CodeOf(c.Err) == surgetank.CodeExists {
				n.one(ExclusiveRefused)
			}
			if c.Err == nil && c.Opts.Pool != 0 {
				n.one(Pooled)
			}
			if c.Err == nil && c.Opts.Single {
				n.one(SingleConsumers)
			}
		case *queue.Redrive:
			n.N[Redriven] += c.Result.Moved
		case *queue.Purge:
			n.N[Purged] += min(c.Purged, 1)
			if c.Next != 0 {
				n.one(PagedPurges)
			}
		case *queue.Peek:
			if c.Next != 0 {
				n.one(PagedPeeks)
			}
		case *queue.Delete:
			if c.Err == nil {
				n.one(Deleted)
			}
		}
	}
	if w.slow {
		n.one(SlowTurns)
	}
	if w.o.Latency > 0 && w.disk.inFlight() > 0 {
		n.one(TurnsInFlight)
	}
}

// tallyQueues adds the queues' own counts, before the queues are gone.
func (w *world) tallyQueues() {
	if w.machine == nil {
		return
	}
	n := &w.count
	for _, i := range w.machine.Infos() {
		n.N[Duplicates] += int64(i.Duplicates)
		n.N[QueueFull] += int64(i.Refused)
		n.N[Expired] += int64(i.Expired)
		n.N[DeadLettered] += int64(i.DeadLettered)
		n.N[Dropped] += int64(i.Dropped)
		n.N[LeasesLost] += int64(i.LeasesLost)
		n.N[Coalesced] += int64(i.Coalesced)
		n.N[Nacked] += int64(i.Nacked)
	}
	w.machine = nil
}

// tallyDelivery counts the points that a hand-out reached.
func (w *world) tallyDelivery(cl *client, d *surgetank.Delivery) {
	n := &w.count
	n.one(Delivered)
	for p, yes := range map[Point]bool{Redelivered: d.Redelivered, Retried: d.Attempt > 1, Delayed: d.Delay > 0, Prioritized: d.Priority > 0, NoAcks: d.Receipt.Lease == 0,
		DeadTwice: len(d.Deaths) > 1, GroupRuns: cl.opts.GroupRun > 1 && d.Group != ""} {
		if yes {
			n.one(p)
		}
	}
}
