package sink

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/surgetank/surgetank/internal/seqset"
)

// maxRuns limits the runs that readIDs accepts from one row. It is far above what a sink stores.
const maxRuns = 1 << 24

var errIDs = errors.New("a list of message ids is not in its format")

// appendIDs appends a set of ids in a compact form. A format byte comes first, then two varints for
// every unbroken run: the distance from the end of the previous run, and the length minus one. Ids
// of a queue form runs: a thousand ids take about ten bytes with one lane, and at most about two
// bytes each with many lanes.
func appendIDs(dst []byte, ids seqset.Set) []byte {
	dst = append(dst, 1)
	var end uint64
	for _, r := range ids {
		dst = binary.AppendUvarint(dst, r.First-end)
		dst = binary.AppendUvarint(dst, r.Last-r.First)
		end = r.Last + 1
	}
	return dst
}

// readIDs reads the ids that appendIDs wrote. Empty input is an empty set.
func readIDs(b []byte) (ids seqset.Set, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != 1 {
		return nil, errIDs
	}
	b = b[1:]
	var end uint64
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errIDs
		}
		more, m := binary.Uvarint(b[n:])
		if m <= 0 || gap > math.MaxUint64-1-end || more > math.MaxUint64-1-end-gap || len(ids) == maxRuns {
			return nil, errIDs
		}
		b = b[n+m:]
		ids.Add(end+gap, end+gap+more)
		end += gap + more + 1
	}
	return ids, nil
}
