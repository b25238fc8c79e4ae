package sink

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/seqset"
)

// known is the history of a queue and its directory, as stored by an opening of the target.
type known struct {
	openings []uint64 // the incarnation of each opening
	spans    []door.Span
}

var errKnown = errors.New("a stored history is not in its format")

// encodeKnown writes a history for the target: a format byte, the incarnations of all openings,
// then the queue's spans.
func encodeKnown(h door.History) []byte {
	b := append(make([]byte, 0, 16+8*len(h.Openings)+16*len(h.Spans)), 1)
	b = binary.AppendUvarint(b, uint64(len(h.Openings)))
	for _, o := range h.Openings {
		b = binary.LittleEndian.AppendUint64(b, o.Incarnation)
	}
	for _, s := range h.Spans {
		b = binary.LittleEndian.AppendUint64(b, s.Incarnation)
		b = binary.AppendUvarint(b, s.First)
	}
	return b
}

// maxKnownSpans limits the spans that a target stores for a queue.
const maxKnownSpans = 256

// with adds to h the older spans that the target knows. The data directory drops the spans below
// its floor, but another directory with the same past may still have messages there. k must be from
// the same history as h.
func (k known) with(h door.History) door.History {
	if len(h.Spans) == 0 {
		return h
	}
	var spans []door.Span
	for _, s := range k.spans {
		if s.First < h.Spans[0].First {
			spans = append(spans, s)
		}
	}
	spans = append(spans, h.Spans...)
	h.Spans = spans[max(0, len(spans)-maxKnownSpans):]
	return h
}

// decodeKnown reads what encodeKnown wrote. Empty input is an empty history, written by an older
// version.
func decodeKnown(b []byte) (k known, err error) {
	if len(b) == 0 {
		return k, nil
	}
	if b[0] != 1 {
		return k, errKnown
	}
	b = b[1:]
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size)/8 {
		return k, errKnown
	}
	b = b[size:]
	for range n {
		k.openings = append(k.openings, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for len(b) > 0 {
		if len(b) < 9 {
			return k, errKnown
		}
		s := door.Span{Incarnation: binary.LittleEndian.Uint64(b)}
		if s.First, size = binary.Uvarint(b[8:]); size <= 0 {
			return k, errKnown
		}
		if n := len(k.spans); n > 0 && s.First <= k.spans[n-1].First {
			return k, errKnown
		}
		k.spans = append(k.spans, s)
		b = b[8+size:]
	}
	return k, nil
}

// shared returns the numbers that mean the same message in both histories: those assigned in the
// same incarnation in both. For numbers before the stored history begins, the incarnation that
// assigned them in h must be one of the stored openings, or unknown. If it is unknown, the messages
// are older than incarnations are.
func (k known) shared(h door.History) (out seqset.Set) {
	at := func(spans []door.Span, n uint64) (incarnation, last uint64, ok bool) {
		last = math.MaxUint64
		for i := len(spans) - 1; i >= 0; i-- {
			if spans[i].First <= n {
				return spans[i].Incarnation, last, true
			}
			last = spans[i].First - 1
		}
		return 0, last, false
	}
	for n := uint64(1); ; {
		here, lastHere, knownHere := at(h.Spans, n)
		there, lastThere, knownThere := at(k.spans, n)
		last := min(lastHere, lastThere)
		same := !knownHere || here == there
		if knownHere && !knownThere {
			same = slices.Contains(k.openings, here)
		}
		if same {
			out.Add(n, min(last, math.MaxUint64-1))
		}
		if last == math.MaxUint64 {
			return out
		}
		n = last + 1
	}
}

// here returns the messages of h's queue that the target has or counts as settled. A message number
// alone identifies no message: after a restore the same number is assigned to another message. So a
// number counts only where both histories assigned it in the same incarnation.
func (k known) here(old *State, ids seqset.Set, h door.History) (out seqset.Set) {
	all := ids
	if w := old.watermark(); w > h.Floor {
		all = seqset.Union(ids, seqset.Set{{First: h.Floor, Last: w - 1}})
	}
	for _, r := range k.shared(h) {
		for _, x := range all.Within(max(r.First, h.Floor), r.Last) {
			out.Add(x.First, x.Last)
		}
	}
	return out
}
