package queue

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestTable compares a table with maps, while it grows, shrinks and is compacted. Few different
// keys are used, so that many rows have the key of another row.
func TestTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var table table[int]
	rows, index := map[uint32]int{}, map[[16]byte]uint32{}
	keyOf := func(v int) (k [16]byte) {
		binary.LittleEndian.PutUint64(k[:], uint64(v%1500)*0x9e3779b97f4a7c15)
		return k
	}
	any := func() (i uint32) {
		for i = range rows { // unordered: the operations are random
			break
		}
		return i
	}
	for n := range 60_000 {
		grow := n/10_000%2 == 0
		switch op := rng.IntN(10); {
		case len(rows) == 0 || op < 6 && grow || op < 2:
			i := table.add(keyOf(n), n)
			if _, twice := rows[i]; twice {
				t.Fatalf("row %d is used twice", i)
			}
			rows[i] = n
			if n%3 == 0 {
				continue // a row outside the index
			}
			fallthrough
		case op == 9:
			i := any()
			key := keyOf(rows[i])
			want := index[key]
			if want == i {
				want = 0
			}
			if got := table.put(i); got != want {
				t.Fatalf("put(%d) replaced row %d, want %d", i, got, want)
			}
			index[key] = i
		case op == 8:
			i := any()
			table.take(i)
			if key := keyOf(rows[i]); index[key] == i {
				delete(index, key)
			}
		default:
			i := any()
			table.remove(i)
			if key := keyOf(rows[i]); index[key] == i {
				delete(index, key)
			}
			delete(rows, i)
		}
		if n%10_000 == 9_999 {
			moved, old := map[uint32]int{}, len(table.pages)
			table.compact(func(i uint32, v *int) { moved[i] = *v })
			if len(table.pages) != old {
				rows = moved
				clear(index)
				for i, v := range rows { // unordered: each row is looked at
					if table.find(keyOf(v)) == i {
						index[keyOf(v)] = i
					}
				}
			}
		}
		if n%500 != 0 {
			continue
		}
		if table.used != len(rows) || table.found != len(index) {
			t.Fatalf("the table has %d rows, %d of them in the index; want %d and %d", table.used, table.found, len(rows), len(index))
		}
		for i, v := range rows { // unordered: each row is looked at
			if r := table.at(i); r.v != v || r.key != keyOf(v) {
				t.Fatalf("row %d has %d, want %d", i, r.v, v)
			}
		}
		for v := range 1500 {
			if got := table.find(keyOf(v)); got != index[keyOf(v)] {
				t.Fatalf("key %d has row %d, want %d", v, got, index[keyOf(v)])
			}
		}
	}
}

// TestTableCompacts tests that a drained table gives its memory back and keeps its index.
func TestTableCompacts(t *testing.T) {
	var table table[int]
	key := func(v int) (k [16]byte) { binary.LittleEndian.PutUint64(k[:], uint64(v)*0x9e3779b97f4a7c15); return k }
	for v := range 5000 {
		table.put(table.add(key(v), v))
	}
	for v := range 4990 {
		table.remove(table.find(key(v)))
	}
	table.compact(func(i uint32, v *int) {
		if *v < 4990 {
			t.Errorf("row %d moved and was removed before", *v)
		}
	})
	if len(table.pages) != 1 || len(table.heads) > 4*fewestHeads {
		t.Errorf("%d pages and %d buckets stay", len(table.pages), len(table.heads))
	}
	for v := 4980; v < 5000; v++ {
		if i := table.find(key(v)); (i != 0) != (v >= 4990) || i != 0 && table.at(i).v != v {
			t.Errorf("key %d has row %d", v, i)
		}
	}
}
