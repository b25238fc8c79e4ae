package sink

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
	"github.com/surgetank/surgetank/internal/seqset"
)

func opens(incarnations ...uint64) (list []door.Opening) {
	for i, n := range incarnations {
		list = append(list, door.Opening{Incarnation: n, First: uint64(10 * (i + 1))})
	}
	return list
}

// TestSharedNumbers: a number means the same message in two histories only if both assigned it in
// the same incarnation.
func TestSharedNumbers(t *testing.T) {
	const end = math.MaxUint64 - 1
	for name, c := range map[string]struct {
		stored, here []door.Span
		openings     []uint64
		want         seqset.Set
	}{
		"the same":                         {[]door.Span{{Incarnation: 1, First: 1}}, []door.Span{{Incarnation: 1, First: 1}}, []uint64{1}, seqset.Set{{First: 1, Last: end}}},
		"restored, and opened again":       {[]door.Span{{Incarnation: 1, First: 1}, {Incarnation: 2, First: 5}}, []door.Span{{Incarnation: 1, First: 1}, {Incarnation: 3, First: 4}}, []uint64{1, 2}, seqset.Set{{First: 1, Last: 3}}},
		"copied while it ran":              {[]door.Span{{Incarnation: 1, First: 1}, {Incarnation: 3, First: 8}}, []door.Span{{Incarnation: 1, First: 1}}, []uint64{1, 3}, seqset.Set{{First: 1, Last: 7}}},
		"stored spans begin later":         {[]door.Span{{Incarnation: 3, First: 8}}, []door.Span{{Incarnation: 1, First: 1}, {Incarnation: 2, First: 6}}, []uint64{1, 3}, seqset.Set{{First: 1, Last: 5}}},
		"older than incarnations":          {nil, []door.Span{{Incarnation: 3, First: 8}}, nil, seqset.Set{{First: 1, Last: 7}}},
		"nothing known of either":          {nil, nil, nil, seqset.Set{{First: 1, Last: end}}},
		"another directory from the first": {[]door.Span{{Incarnation: 1, First: 1}}, []door.Span{{Incarnation: 2, First: 1}}, []uint64{1}, nil},
	} {
		if got := (known{c.openings, c.stored}).shared(door.History{Spans: c.here}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestTargetKeepsOldSpans: the target must keep spans that a directory has dropped. Directory a
// continues in incarnation 1. Its copy b confirms message 8 in incarnation 2, settles all messages,
// and opens again in incarnation 3 without the spans below its floor. Message 8 of a is not message
// 8 of b.
func TestTargetKeepsOldSpans(t *testing.T) {
	claim := func(floor uint64, openings []door.Opening, spans ...door.Span) Claim {
		c := Claim{Instance: "i", Sink: "s", Owner: "o", Lanes: 1}
		*hidden.Of(&c) = func(count ...door.NumberRange) (door.History, error) {
			h := door.History{Queue: 1, Floor: floor, Next: 12, Entry: 99, Openings: openings, Spans: spans}
			for _, r := range count {
				h.Counted += r.Last - r.First + 1
			}
			return h, nil
		}
		return c
	}
	state, err := claim(1, opens(1, 2), door.Span{Incarnation: 1, First: 1}, door.Span{Incarnation: 2, First: 8}).Next(nil)
	if err != nil {
		t.Fatal(err)
	}
	state.Lanes[0] = LaneState{Batch: 1, Watermark: 1, Entry: 25, Applied: 8, IDs: appendIDs(nil, seqset.Set{{First: 1, Last: 8}})}
	b := claim(9, opens(1, 2, 3), door.Span{Incarnation: 3, First: 9})
	b.Written = Written{Epoch: 1, Applied: 8}
	if state, err = b.Next(&state); err != nil {
		t.Fatal(err)
	}
	_, err = claim(1, opens(1), door.Span{Incarnation: 1, First: 1}).Next(&state)
	var r *Refusal
	if !errors.As(err, &r) || r.Kind != QueueBehind || r.Known != 7 || r.Newer != 4 {
		t.Fatalf("%+v, want a refusal with 7 known messages and 4 of after the histories parted", err)
	}
}
