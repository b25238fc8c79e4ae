package sink

import (
	"encoding/binary"
	"errors"
)

// maxIDs bounds what ReadIDs accepts from one lane; it is far above what can be in flight.
const maxIDs = 1 << 22

var errIDs = errors.New("a list of message ids is not in its format")

// AppendIDs appends a rising list of ids in a compact form: a format byte, then for every unbroken run two varints, the
// distance from the end of the run before and the length less one. Runs are what a queue gives, so that a thousand ids
// take some ten bytes with one lane, and at most about two bytes each with many.
func AppendIDs(dst []byte, ids []uint64) []byte {
	dst = append(dst, 1)
	var end uint64
	for i := 0; i < len(ids); {
		j := i + 1
		for j < len(ids) && ids[j] == ids[j-1]+1 {
			j++
		}
		dst = binary.AppendUvarint(dst, ids[i]-end)
		dst = binary.AppendUvarint(dst, uint64(j-i-1))
		end = ids[j-1] + 1
		i = j
	}
	return dst
}

// ReadIDs appends the ids of a list that AppendIDs wrote. No bytes at all are an empty list.
func ReadIDs(ids []uint64, b []byte) ([]uint64, error) {
	if len(b) == 0 {
		return ids, nil
	}
	if b[0] != 1 {
		return ids, errIDs
	}
	b = b[1:]
	var end uint64
	for count := 0; len(b) > 0; {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return ids, errIDs
		}
		more, m := binary.Uvarint(b[n:])
		if m <= 0 || more >= maxIDs || gap+end < end || gap+end+more+1 < gap+end {
			return ids, errIDs
		}
		b = b[n+m:]
		if count += int(more) + 1; count > maxIDs {
			return ids, errIDs
		}
		for id := end + gap; id <= end+gap+more; id++ {
			ids = append(ids, id)
		}
		end += gap + more + 1
	}
	return ids, nil
}
