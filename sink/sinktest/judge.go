package sinktest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/sink"
)

// judgement runs a sink whose table rejects rows at random, for every known reason. Some rows are
// bad beyond doubt, and others only look bad. The table changes or must be corrected, a permission
// is revoked for a while, rows refer to other rows, and batches are too large. Exactly the bad
// messages must be parked, once each. Every other message must have its row once. Rows of one group
// or of one conflict key must be in order.
func judgement(t *testing.T, m *Memory, seed uint64, seen map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 5))
	b := doortest.NewBroker("q")
	defer b.Close()
	b.GroupLimit = rng.IntN(3)
	faults := NewFaults(seed, []float64{0, 0, 0.02, 0.1}[rng.IntN(4)])
	good, bad := map[string]int64{}, map[string]bool{}
	keyed := rng.IntN(2) == 0
	groups := rng.IntN(8)
	parents, wide := 0, false

	add := func(v int64, body string, wrong bool) {
		message := surgetank.Message{Body: []byte(body)}
		if body == "" {
			message.Body = fmt.Appendf(nil, `{"v":%d}`, v)
			if keyed && rng.IntN(2) == 0 {
				message.Body = fmt.Appendf(nil, `{"v":%d.0}`, v) // the same key, spelled differently
			}
		}
		if g := rng.IntN(groups + 1); g > 0 {
			message.Group = fmt.Sprint("g", g)
		}
		id := b.Add(message).String()
		if wrong {
			bad[id] = true
		} else {
			good[id] = v
		}
	}
	publish := func(n int) {
		for range n {
			switch rng.IntN(24) {
			case 0:
				add(0, []string{`{"v":-1}`, `{"v":"no"}`, `[]`, `{"v":`}[rng.IntN(4)], true)
			case 1:
				add(VSuspect+rng.Int64N(9), "", true)
			case 2:
				add(VNeedsFix+rng.Int64N(9), "", false)
			case 3, 4, 5:
				add(VParent+int64(parents), "", false)
				parents++
			case 6, 7, 8:
				if parents > 0 {
					add(VChild+int64(rng.IntN(parents)), "", false)
				}
			case 9:
				add(VChild+999, "", true) // a child without a parent
			case 10:
				add(VEnds+rng.Int64N(9), "", true)
			case 11:
				add(VLate+rng.Int64N(9), "", true)
			case 12:
				if rng.IntN(8) == 0 {
					add(VHuge+rng.Int64N(9), "", true)
				}
			case 13:
				v := 100 + rng.Int64N(9) // a key that has only one form
				if wide {
					add(v, fmt.Sprintf(`{"v":"w%d"}`, v), false)
				}
			default:
				add(rng.Int64N(9), "", false)
			}
		}
	}
	spec := func() sink.Spec {
		s := m.Spec()
		s.Lanes, s.Batch.Max = 1+rng.IntN(5), 1+rng.IntN(30)
		s.Brake = []int{sink.BrakeOff, 3, 50}[rng.IntN(3)]
		if keyed {
			s.Table.OnConflict = &sink.OnConflict{Keys: []string{"v"}, Update: true}
		}
		return s
	}
	publish(30 + rng.IntN(100))
	r := start(t, b, m, spec(), faults)
	for range 3 + rng.IntN(8) {
		publish(rng.IntN(60))
		pass(time.Duration(rng.IntN(4000)) * time.Millisecond)
		switch rng.IntN(9) {
		case 0:
			m.Revoke(true)
		case 1:
			m.Revoke(false)
		case 2:
			m.Room(rng.IntN(12))
		case 3:
			m.Widen()
			wide = true
		case 4:
			b.Kill()
			ended(t, r)
			b.Restart()
			r = start(t, b, m, spec(), faults)
		case 5:
			r.Stop(context.Background())
			r = start(t, b, m, spec(), faults)
		case 6:
			b.LoseLeases()
		case 7:
			r.ResetBrake()
		}
	}
	faults.Stop()
	m.Revoke(false)
	m.Repair()
	// The sink can decide about every other message only while good messages arrive.
	for i := 0; b.Open() > 0; i++ {
		if i == 200 {
			t.Fatalf("seed %d: %d messages are left; the sink: %+v", seed, b.Open(), r.Status())
		}
		add(rng.Int64N(9), "", false)
		r.ResetBrake()
		pass(3 * time.Second)
	}
	r.Stop(context.Background())
	for k, v := range faults.Seen() {
		seen[k] += v
	}
	verifyJudgement(t, m, b, seed, keyed, good, bad)
}

// pass lets time pass. It is for synctest bubbles, where waiting costs no real time.
func pass(d time.Duration) { <-time.After(d) }

func verifyJudgement(t *testing.T, m *Memory, b *doortest.Broker, seed uint64, keyed bool, good map[string]int64, bad map[string]bool) {
	t.Helper()
	rows, _ := m.Rows()
	count, last, lastKey := map[string]int{}, map[string]uint64{}, map[int64]uint64{}
	for _, row := range rows {
		count[row.ID]++
		if v, ok := good[row.ID]; !ok || v != row.V {
			t.Errorf("seed %d: row %+v does not belong to a good message", seed, row)
		}
		id, err := surgetank.ParseMessageID(row.ID)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case row.Group != "":
			if id.Seq < last[row.Group] {
				t.Errorf("seed %d: in group %s message %d came after %d", seed, row.Group, id.Seq, last[row.Group])
			}
			last[row.Group] = id.Seq
		case keyed:
			if id.Seq < lastKey[row.V] {
				t.Errorf("seed %d: of key %d message %d came after %d", seed, row.V, id.Seq, lastKey[row.V])
			}
			lastKey[row.V] = id.Seq
		}
	}
	for id, v := range good {
		if count[id] != 1 {
			t.Errorf("seed %d: message %s with v %d has %d rows", seed, id, v, count[id])
		}
	}
	dead := map[string]int{}
	for _, d := range b.Dead() {
		dead[d.ID.String()]++
		if v, ok := good[d.ID.String()]; ok {
			t.Errorf("seed %d: message %v with v %d was parked: %s", seed, d.ID, v, d.Reason)
		}
	}
	if !maps.EqualFunc(dead, bad, func(n int, _ bool) bool { return n == 1 }) {
		t.Errorf("seed %d: parked %v, bad were %v", seed, dead, bad)
	}
}
