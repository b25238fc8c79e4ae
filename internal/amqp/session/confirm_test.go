package session

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestConfirmsTellEachOnce enters outcomes in any order. The frames must tell the client each
// outcome once.
func TestConfirmsTellEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		order := rapid.Permutation(seqs(n)).Draw(t, "order")
		outcome := map[uint64]bool{}
		told := map[uint64]bool{}
		f := &confirms{}
		last := uint64(0)
		for _, seq := range order {
			ok := rapid.IntRange(0, 5).Draw(t, "ok") > 0
			outcome[seq] = ok
			f.addOutcome(seq, ok)
			if !rapid.Bool().Draw(t, "write") && len(outcome) < n {
				continue
			}
			for b := f.append(nil, 1); len(b) > 0; {
				fr, size, err := wire.NextFrame(b, 4096)
				if err != nil {
					t.Fatal(err)
				}
				b = b[size:]
				m, err := wire.ParseMethod(fr.Payload)
				if err != nil {
					t.Fatal(err)
				}
				switch m := m.(type) {
				case *wire.BasicAck:
					first := m.DeliveryTag
					if m.Multiple {
						first = last + 1
					}
					for s := first; s <= m.DeliveryTag; s++ {
						tell(t, told, outcome, s, true)
					}
					last = m.DeliveryTag
				case *wire.BasicNack:
					tell(t, told, outcome, m.DeliveryTag, false)
					last = m.DeliveryTag
				}
			}
		}
		if len(told) != n {
			t.Fatalf("told of %d, want %d", len(told), n)
		}
	})
}

func seqs(n int) []uint64 {
	s := make([]uint64, n)
	for i := range s {
		s[i] = uint64(i + 1)
	}
	return s
}

func tell(t *rapid.T, told, outcome map[uint64]bool, seq uint64, ok bool) {
	if _, twice := told[seq]; twice {
		t.Fatalf("told of %d twice", seq)
	}
	if was, settled := outcome[seq]; !settled || was != ok {
		t.Fatalf("told that %d is %v, it is %v (settled %v)", seq, ok, was, settled)
	}
	told[seq] = ok
}
