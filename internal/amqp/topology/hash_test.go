package topology

import (
	"fmt"
	"math"
	"testing"
)

// The share of a binding is proportional to its weight. If a binding is removed, only its own
// messages move.
func TestConsistentHashing(t *testing.T) {
	bindings := map[string]*binding{}
	for i, w := range []float64{1, 1, 2, 4, 0} {
		id := fmt.Sprint("binding", i)
		bindings[id] = &binding{id: id, weight: w}
	}
	const n = 40000
	counts, before := map[string]int{}, map[string]string{}
	for i := range n {
		v := fmt.Sprint("key.", i)
		b := pickByHash(bindings, v)
		counts[b.id]++
		before[v] = b.id
	}
	for id, b := range bindings {
		want := n * b.weight / 8
		if got := float64(counts[id]); math.Abs(got-want) > 5*math.Sqrt(want+1) {
			t.Errorf("%s of weight %v got %v messages, want about %v", id, b.weight, got, want)
		}
	}
	delete(bindings, "binding2")
	for v, id := range before {
		if now := pickByHash(bindings, v).id; id != "binding2" && now != id {
			t.Fatalf("%s moved from %s to %s, although neither binding changed", v, id, now)
		}
	}
	if pickByHash(nil, "x") != nil || pickByHash(map[string]*binding{"a": {id: "a"}}, "x") != nil {
		t.Error("pickByHash chose a binding although there are none")
	}
	// The choice of bindings must not change between versions.
	if h := hash64("binding", "value"); h != 0x84286af19876e7d2 {
		t.Errorf("hash64 gives %#x now", h)
	}
}
