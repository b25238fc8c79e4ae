package sim

import (
	"context"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
)

// slot is one shard of a router: one opening after the other, as a supervisor runs them in a
// server. A slot without an opening refuses calls.
type slot struct {
	door.Shard // the newest opening
	w          *shardWorld
	index      int
	disk       disk
	b          *broker.Stepped
	down       bool // the newest opening has failed
	phase      uint64
	cut        cut
	machine    *queue.Machine
	faulted    bool // a fault was set since the shard was opened
}

// cut is a fault of the next calls of a transfer.
type cut struct {
	arrive, settle cutKind
}

type cutKind uint8

const (
	uncut     cutKind = iota
	cutBefore         // the call has no effect
	cutAfter          // the call has its effect, and its answer is lost
)

// Phase returns the phase: see door.Phased.
func (s *slot) Phase() uint64 { return s.phase }

func (s *slot) away() error {
	return surgetank.Errorf(surgetank.CodeUnavailable, "shard %d is not open", s.index+1)
}

func (s *slot) lost() error {
	return surgetank.Errorf(surgetank.CodeUncertain, "the answer of shard %d was lost", s.index+1)
}

// use removes a cut and returns it.
func use(k *cutKind) cutKind {
	was := *k
	*k = uncut
	return was
}

// Arrive is the second step of a transfer.
func (s *slot) Arrive(ctx context.Context, a door.Arrivals) (int, error) {
	n := &s.w.count
	n.N[Transfers] += int64(len(a.Msgs))
	k := use(&s.cut.arrive)
	if s.down || k == cutBefore {
		n.one(TransfersCutBefore)
		return 0, s.away()
	}
	stored, err := s.Shard.Arrive(ctx, a)
	if surgetank.CodeOf(err) == surgetank.CodeFull {
		n.one(TransfersStopped)
	}
	s.w.between(stored)
	if k == cutAfter {
		n.one(TransfersCutBetween)
		return 0, s.lost()
	}
	return stored, err
}

// Settle is the ack of a transfer.
func (s *slot) Settle(ctx context.Context, items []surgetank.Settlement) ([]surgetank.SettleResult, error) {
	k := use(&s.cut.settle)
	if s.down || k == cutBefore {
		s.w.count.one(TransfersCutBetween)
		return nil, s.away()
	}
	r, err := s.Shard.Settle(ctx, items)
	if k == cutAfter {
		return nil, s.lost()
	}
	return r, err
}

func (s *slot) Attach(ctx context.Context, name string, o door.SubscribeOptions) (door.Subscription, error) {
	if s.down {
		return nil, s.away()
	}
	return s.Shard.Attach(ctx, name, o)
}

func (s *slot) DeclareQueue(ctx context.Context, name string, c surgetank.QueueConfig, m surgetank.DeclareMode) (surgetank.QueueInfo, bool, error) {
	if s.down {
		return surgetank.QueueInfo{}, false, s.away()
	}
	info, created, err := s.Shard.DeclareQueue(ctx, name, c, m)
	if created && s.w.stepping && !door.Hidden(name) {
		s.w.count.one(TargetsMade)
	}
	return info, created, err
}

func (s *slot) PublishAsync(ctx context.Context, p []surgetank.Publishing, done func([]surgetank.PublishResult, error)) error {
	if s.down {
		return s.away()
	}
	return s.Shard.PublishAsync(ctx, p, done)
}

// open opens the shard's log and its broker. The caller makes the broker serve.
func (s *slot) open() (*broker.Stepped, error) {
	w := s.w
	w.life++
	snaps, err := s.disk.snapshots()
	if err != nil {
		return nil, err
	}
	return broker.OpenStepped(broker.Options{
		OpenLog: func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			return s.disk.openLog(from, hooks)
		},
		Snapshots: snaps, Clock: w.clock, Seed: w.o.Seed, Incarnation: incarnation(w.o.Seed, w.life),
		Limits:        w.limits(),
		SnapshotBytes: w.o.SnapshotBytes, SnapshotPiece: w.o.SnapshotPiece, Hold: w.o.Hold,
	}, broker.Stepping{Drive: w.drive, Watch: s.turn})
}

func (w *shardWorld) limits() queue.Limits {
	return queue.Limits{Shards: w.o.Shards, TurnBytes: w.o.TurnBytes, TurnScan: w.o.TurnScan, ExtentBytes: w.o.ExtentBytes, OutboxMessages: w.o.Outbox}
}

// serve makes an opening the shard.
func (s *slot) serve(b *broker.Stepped) {
	s.Shard, s.b, s.faulted = b, b, false
	if s.down {
		s.down = false
		s.phase++
	}
}

// turn is called after every turn.
func (s *slot) turn(t broker.Turn) {
	s.w.dog.step()
	s.machine = t.Machine
	s.w.count.N[Records] += int64(t.Output.Records)
	for _, c := range t.Commands {
		switch c := c.(type) {
		case *queue.Arrive:
			s.w.count.N[TransfersRepeated] += int64(c.Known)
			c.Known = 0 // a later turn can continue the command
		case *queue.Quarantine:
			if s.w.stepping {
				s.w.count.one(TransfersUnread)
			}
		}
	}
	s.w.prober.turn()
}
