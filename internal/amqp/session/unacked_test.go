package session

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestUnackedAgreesWithAMap runs the same steps on the list and on a map.
func TestUnackedAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &unackedList{}
		model := map[uint64]bool{}
		tag := uint64(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "op") > 0 {
				// Deliveries without acknowledgement use tags too.
				tag += uint64(rapid.IntRange(1, 2).Draw(t, "gap"))
				l.push(unacked{tag: tag})
				model[tag] = true
				continue
			}
			at := uint64(rapid.IntRange(0, int(tag)+1).Draw(t, "tag"))
			multiple := rapid.Bool().Draw(t, "multiple")
			got, ok := l.remove(nil, at, multiple)
			var want []uint64
			wantOK := model[at] || multiple && at == 0
			if wantOK {
				for n := range model {
					if n == at || multiple && (n < at || at == 0) {
						want = append(want, n)
					}
				}
				slices.Sort(want)
				for _, n := range want {
					delete(model, n)
				}
			}
			var tags []uint64
			for _, u := range got {
				tags = append(tags, u.tag)
			}
			if ok != wantOK || !slices.Equal(tags, want) {
				t.Fatalf("take %d multiple %v: %v %v, want %v %v", at, multiple, tags, ok, want, wantOK)
			}
			if ok && rapid.IntRange(0, 4).Draw(t, "rollback") == 0 {
				l.restore(got)
				for _, n := range want {
					model[n] = true
				}
			}
			if l.live != len(model) || len(l.list)-l.head > 2*l.live+65 {
				t.Fatalf("%d live of %d, want %d", l.live, len(l.list)-l.head, len(model))
			}
		}
	})
}
