package queue

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// seeded drives a machine with random commands under very small limits. Turns are full all the
// time, so commands, timers and hand-outs are split wherever they can be.
type seeded struct {
	*rig
	rng      *rand.Rand
	receipts []surgetank.Receipt
	hash     [32]byte // of all output
}

func newSeeded(t tb, seed uint64) *seeded {
	rng := rand.New(rand.NewPCG(seed, 1))
	limits := Limits{TurnBytes: 40 + rng.IntN(200), TurnHandout: 1 + rng.IntN(4), TurnTimers: 1 + rng.IntN(4)}
	return &seeded{rig: newRig(t, limits, seed), rng: rng}
}

func (s *seeded) took(out *Output) {
	text := fmt.Sprintf("%x %x", s.hash, out.Entry)
	for _, h := range out.Handouts {
		text += fmt.Sprintf(" %d %s %d %d %v", h.Consumer, h.Queue.name, h.Seq, h.Attempt, h.Deadline)
		if h.Lease != 0 {
			s.receipts = append(s.receipts, surgetank.Receipt{ID: surgetank.MessageID{Queue: h.Queue.id, Seq: h.Seq}, Epoch: s.m.Epoch(), Incarnation: s.m.Incarnation(), Lease: h.Lease})
		}
	}
	for _, e := range out.Ended {
		text += fmt.Sprintf(" end %d %v", e.Consumer, e.Err)
	}
	s.hash = sha256.Sum256([]byte(text))
}

func (s *seeded) do() {
	rng := s.rng
	name := []string{"a", "b", "a.dead"}[rng.IntN(3)]
	var cmds []Command
	for range 1 + rng.IntN(3) {
		cmds = append(cmds, s.command(name))
	}
	s.took(s.step(cmds...))
	if rng.IntN(3) == 0 {
		s.advance(time.Duration(rng.IntN(3e9)), s.took)
	}
	if rng.IntN(10) == 0 {
		s.settleDown(s.took)
	}
}

func (s *seeded) command(name string) Command {
	rng := s.rng
	switch n := rng.IntN(20); {
	case n < 6:
		var ps []surgetank.Publishing
		for range 1 + rng.IntN(8) {
			m := surgetank.Message{Body: make([]byte, rng.IntN(60)), Group: []string{"", "g", "h"}[rng.IntN(3)], Priority: uint8(rng.IntN(3)),
				DedupID: []string{"", "", "1", "2"}[rng.IntN(4)], Delay: time.Duration(rng.IntN(3)) * time.Second, TTL: time.Duration(rng.IntN(4)) * 2 * time.Second}
			ps = append(ps, surgetank.Publishing{Queues: []string{"a", "b"}[rng.IntN(2):], Message: m})
		}
		return publishAll(ps...)
	case n < 8:
		o := door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: rng.IntN(6), ManualCredit: rng.IntN(2) == 0, NoAck: rng.IntN(3) == 0, Priority: rng.IntN(2)}, GroupRun: rng.IntN(4)}
		return &Attach{Queue: name, Opts: o, Now: rng.IntN(4) == 0, Once: rng.IntN(4) == 0}
	case n < 9:
		return &Detach{Consumer: uint64(rng.IntN(20)), All: rng.IntN(2) == 0}
	case n < 10:
		return &Credit{Consumer: uint64(rng.IntN(20)), N: rng.IntN(5) - 1}
	case n < 15 && len(s.receipts) > 0:
		items := make([]surgetank.Settlement, 1+rng.IntN(8))
		for i := range items {
			items[i] = surgetank.Settlement{Receipt: s.receipts[len(s.receipts)-1-rng.IntN(min(12, len(s.receipts)))], Op: surgetank.SettleOp(rng.IntN(4)),
				Delay: time.Duration(rng.IntN(3)-1) * time.Second, Lease: time.Second, Reason: "why"}
		}
		return &Settle{Items: items, Results: make([]error, len(items))}
	case n < 16:
		return &Purge{Name: name}
	case n < 17:
		return &Redrive{From: "a.dead", Opts: surgetank.RedriveOptions{Max: int64(rng.IntN(4))}}
	case n < 18:
		return &SetMeta{Namespace: "n", Name: fmt.Sprint(rng.IntN(3)), Value: make([]byte, rng.IntN(50))}
	case n < 19 && rng.IntN(6) == 0:
		return &Delete{Name: name}
	}
	return &Declare{Name: name, Config: surgetank.QueueConfig{MaxPriority: uint8(rng.IntN(2)), DedupWindow: time.Duration(rng.IntN(3)) * time.Second,
		Group: surgetank.GroupConfig{MaxInFlight: rng.IntN(3), Fair: rng.IntN(2) == 0, Rate: surgetank.Rate(rng.IntN(2))}, MaxMessages: int64(rng.IntN(2) * 5),
		Retry: surgetank.RetryConfig{MaxAttempts: 2 + rng.IntN(3)}, Lease: time.Duration(1+rng.IntN(3)) * time.Second,
		Overflow: []surgetank.Overflow{"reject", "drop_oldest", "dead_letter"}[rng.IntN(3)], Level: surgetank.LevelConfig{Rate: surgetank.Rate(rng.IntN(2) * 3)}}}
}

// TestFullTurns: with turns that are always full, no message is lost, duplicated or forgotten, and
// a replay of the log gives the same state.
func TestFullTurns(t *testing.T) {
	for seed := range uint64(40) {
		s := newSeeded(t, seed)
		for range 60 {
			s.do()
			check(t, s.m)
			if live, again := dump(s.m, s.now), dump(s.replayed(len(s.log)), s.now); live != again {
				t.Fatalf("seed %d: replay gives another state (-live +replayed):\n%s", seed, cmp.Diff(live, again))
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// TestSameSeedSameBytes: the same commands at the same times give the same entries, hand-outs and
// ends, byte for byte.
func TestSameSeedSameBytes(t *testing.T) {
	for seed := range uint64(20) {
		var hashes [2][32]byte
		for i := range hashes {
			s := newSeeded(t, seed)
			for range 100 {
				s.do()
			}
			s.m.StartSnapshot(uint64(len(s.log)))
			piece, _ := s.m.SnapshotNext(1 << 30)
			hashes[i] = sha256.Sum256(fmt.Appendf(nil, "%x %x", s.hash, piece))
		}
		if hashes[0] != hashes[1] {
			t.Errorf("seed %d gives %x and %x", seed, hashes[0], hashes[1])
		}
	}
}
