package rules

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 6, "seeds of each test with a model of the bucket")
	first = flag.Uint64("seed", 1, "first seed")
)

func eachSeed(t *testing.T, test func(t *testing.T, seed uint64)) {
	for i := range *seeds {
		seed := *first + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { test(t, seed) })
	}
}

// nodes starts nodes and lets them divide the logs.
func (w *world) nodes(n int) {
	for range n {
		w.start()
	}
	w.run(5 * time.Second)
	w.owned()
	w.spread(2)
}

// settled checks that each log has one owner, the one in the bucket, and that the logs are spread.
func (w *world) settled() {
	w.t.Helper()
	w.owned()
	w.spread(1)
}

// spread checks that the numbers of logs of two nodes differ by at most n.
func (w *world) spread(n int) {
	w.t.Helper()
	if least, most := w.loads(); most-least > n {
		w.fatalf("a node has %d logs, and another one %d", most, least)
	}
}

// loads returns the smallest and the largest number of logs of a node.
func (w *world) loads() (least, most int) {
	least = len(w.logs)
	for _, p := range w.procs {
		if p.live() && !p.core.draining && !p.core.closing {
			least, most = min(least, len(p.terms)), max(most, len(p.terms))
		}
	}
	return least, most
}

// owned checks that each log has one owner, the one in the bucket.
func (w *world) owned() {
	w.t.Helper()
	for _, l := range w.logs {
		var owners []string
		for _, p := range w.procs {
			if p.live() && p.terms[l] != 0 {
				owners = append(owners, p.id)
			}
		}
		e := w.entries[LogKey(l)]
		if len(owners) != 1 || e.rec == nil || e.rec.Node != owners[0] {
			w.fatalf("log %s has the owners %v, and the bucket has %+v", l, owners, e.rec)
		}
		for _, p := range w.procs {
			if o := p.core.Owners()[l]; p.live() && (o.Node != owners[0] || o.Term != w.find(owners[0]).terms[l] || o.Address != "addr-"+owners[0]) {
				w.fatalf("%s has %+v as owner of %s", p.id, o, l)
			}
		}
	}
}

// TestChaos kills, stops and cuts nodes, and lets the bucket lose its leader, while writes and
// answers are late or lost. step, begin, write and judge check the rules all the time. Then
// everything is calm, and each log must have one owner.
func TestChaos(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 6+int(seed%7))
		w.nodes(3)
		w.faulty = true
		for range 60 {
			w.run(w.between(0, 4*time.Second))
			p := w.procs[w.rng.IntN(len(w.procs))]
			switch n := w.rng.IntN(13); {
			case n < 2:
				w.elect(w.between(time.Second, 9*time.Second))
			case n == 2 && w.chance(.3):
				w.elect(w.between(10*time.Second, 25*time.Second))
			case !p.live(), n == 2:
			case n == 3:
				p.kill()
				w.start()
			case n < 6:
				p.stop(w.between(0, 6*time.Second))
			case n == 6:
				p.stop(w.between(10*time.Second, 20*time.Second))
			case n < 9:
				p.disconnect(w.between(0, 8*time.Second))
			case n == 9:
				w.note("watch of %s stalls", p.id)
				p.stalled = true
			case n == 10:
				on := w.chance(.6)
				p.never = w.chance(.2)
				w.note("drain %s %v", p.id, on)
				p.post(0, Drain{on})
			case n == 11:
				p.post(0, Move{w.logs[w.rng.IntN(len(w.logs))], ""})
			case n == 12:
				p.post(0, Withdraw{w.logs[0]})
				p.post(w.between(0, 5*time.Second), Campaign{w.logs[0]})
			}
		}
		w.faulty = false
		w.note("calm")
		w.run(30 * time.Second)
		for _, p := range w.procs {
			p.never = false
			p.post(0, Drain{false})
		}
		w.run(120 * time.Second)
		w.settled()
	})
}

// TestElectionMovesNothing: while the bucket has no leader, nobody can renew, and no term ends.
func TestElectionMovesNothing(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 12)
		w.nodes(3)
		w.run(60 * time.Second) // all moves are done
		w.settled()
		before := w.began
		for range 6 {
			w.elect(w.between(4*time.Second, 9*time.Second))
			w.run(w.between(12*time.Second, 30*time.Second))
		}
		if w.began != before {
			w.fatalf("%d terms began", w.began-before)
		}
		w.settled()
	})
}

// TestLongOutage: after an outage that is longer than the time to live, each log has its owner of
// before.
func TestLongOutage(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 12)
		w.nodes(3)
		w.run(60 * time.Second)
		before := map[string]string{}
		for l, o := range w.procs[0].core.Owners() {
			before[l] = o.Node
		}
		w.elect(w.between(16*time.Second, 40*time.Second))
		w.run(50 * time.Second)
		w.settled()
		for l, o := range w.procs[0].core.Owners() {
			if o.Node != before[l] {
				w.fatalf("%s has moved from %s to %s", l, before[l], o.Node)
			}
		}
	})
}

// TestTakeover: the logs of a dead node have new owners within a bound. The bound for a killed node
// is shorter, because pings find no responder.
func TestTakeover(t *testing.T) {
	bound := map[string]time.Duration{"kill": 2500 * ms, "stop": 5 * time.Second, "cut": 5 * time.Second, "kill without pings": 5 * time.Second}
	for how, limit := range bound {
		t.Run(how, func(t *testing.T) {
			even := 0
			eachSeed(t, func(t *testing.T, seed uint64) {
				w := newWorld(t, seed, 12)
				w.nodes(3)
				w.run(w.between(0, 10*time.Second))
				switch victim := w.procs[seed%3]; how {
				case "kill":
					victim.kill()
				case "stop":
					victim.stop(time.Minute)
				case "cut":
					victim.disconnect(time.Minute)
				default:
					victim.stop(time.Minute)
					victim.terms = nil
				}
				w.run(limit)
				w.owned()
				if least, most := w.loads(); most-least <= 1 {
					even++
				}
			})
			if even < *seeds/2 {
				t.Errorf("the heirs shared the logs in %d of %d cases", even, *seeds)
			}
		})
	}
}

// TestJoin: a node that joins gets its share, one log at a time.
func TestJoin(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 12)
		w.nodes(1)
		w.start()
		w.start()
		for range 12 {
			before := w.moves
			w.run(5 * time.Second)
			if w.moves-before > 1 {
				w.fatalf("%d logs moved at a time", w.moves-before)
			}
		}
		w.settled()
		if w.moves != 8 {
			w.fatalf("%d moves; 8 are needed", w.moves)
		}
	})
}

// TestDrain: a node that is drained has no log after a short time, and the others have the same
// number. It keeps no log of a new term. A drained node that is the last one frees its logs.
func TestDrain(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 12)
		w.nodes(3)
		p := w.procs[0]
		p.post(0, Drain{true})
		w.run(5 * time.Second)
		if n := p.core.Terms(); n != 0 {
			w.fatalf("the drained node has %d logs", n)
		}
		w.settled()
		for _, other := range w.procs[1:] {
			other.post(0, Close{})
		}
		w.run(time.Second)
		p.post(0, Drain{false})
		w.run(2 * time.Second)
		for _, l := range w.logs {
			if p.terms[l] == 0 {
				w.fatalf("%s has no owner after the others have closed", l)
			}
		}
		p.post(0, Drain{true})
		w.run(20 * time.Second)
		if p.core.Terms() != 0 {
			w.fatalf("the only node kept logs while it was drained")
		}
	})
}

// TestMissedMarker: a key vanishes while a node sees nothing, so the node never sees the removal.
// Its watch continues, or is replaced. The log gets an owner.
func TestMissedMarker(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 3)
		w.nodes(2)
		w.procs[0].kill()
		w.procs[1].stalled = seed%2 == 0
		w.procs[1].disconnect(17 * time.Second)
		w.run(25 * time.Second)
		w.settled()
	})
}

// TestRefusal: the log of a node whose watch stalls gets another owner. The node learns of it by
// the refusal of its renewal, which write checks, or by its next watch.
func TestRefusal(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed, 4)
		w.nodes(1)
		p := w.procs[0]
		w.run(w.between(0, 3*time.Second))
		p.stalled = true
		term := p.terms["l01"]
		w.put(LogKey("l01"), &Record{Node: "another"}, time.Minute)
		w.run(4 * time.Second)
		if p.terms["l01"] == term {
			w.fatalf("the term has not ended")
		}
		w.run(5 * time.Second) // the other node does not exist
		w.settled()
	})
}

// TestPings: a silent node is dead after two pings without a responder, but not after one, and not
// if it was heard between.
func TestPings(t *testing.T) {
	for _, c := range []struct {
		name    string
		results []Event
		dead    bool
	}{
		{"one", []Event{Pinged{"b", true}}, false},
		{"two", []Event{Pinged{"b", true}, Pinged{"b", true}}, true},
		{"an answer between", []Event{Pinged{"b", true}, Pinged{"b", false}, Pinged{"b", true}}, false},
		{"a heartbeat between", []Event{Pinged{"b", true}, Changed{NodeKey("b"), 900, &Record{Node: "b"}}, Pinged{"b", true}}, false},
	} {
		core := New(testConfig("a"))
		core.Step(0, time.Time{}, Connected{true}, Watching{}, Changed{NodeKey("b"), 1, &Record{Node: "b"}}, Complete{})
		now, pings := time.Duration(0), 0
		for beat := uint64(1); beat <= 5; beat++ {
			now += 500 * ms
			for _, a := range core.Step(now, time.Time{}, Changed{NodeKey("a"), 10 + beat, &Record{Node: "a", Beat: beat}}) {
				if _, is := a.(Ping); is {
					pings++
				}
			}
		}
		if core.Step(now, time.Time{}, c.results...); pings == 0 || core.peers["b"].dead != c.dead {
			t.Errorf("%s: %d pings, dead %v, want %v", c.name, pings, core.peers["b"].dead, c.dead)
		}
	}
}
