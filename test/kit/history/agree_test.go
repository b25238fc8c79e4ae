package history

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// slowOrder checks the definition of GroupOrder directly: it compares every pair of values of one
// group.
func slowOrder(items []item) bool {
	for i := range items {
		for j := range items {
			a, b := &items[i], &items[j]
			if a.seen && b.seen && a.done < b.call && b.to < a.from {
				return false
			}
		}
	}
	return true
}

// TestOrderSweepAgreesWithAllPairs compares the sweep with slowOrder on small random histories,
// legal and illegal.
func TestOrderSweepAgreesWithAllPairs(t *testing.T) {
	verdicts := map[bool]int{}
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 2 + r.IntN(5)
		times := r.Perm(4 * n)
		h := &History{Queues: map[string]Settings{"q": {GroupInFlight: 1}}}
		for i := range n {
			a, b := times[4*i], times[4*i+1]
			c, d := times[4*i+2]+3*n/2, times[4*i+3]+3*n/2
			v := Value("p", i+1)
			out := []Outcome{OK, OK, OK, Info}[r.IntN(4)]
			h.Ops = append(h.Ops, Op{Kind: Publish, Outcome: out, Call: time.Duration(min(a, b) + 1), Return: time.Duration(max(a, b) + 1), Queue: "q", Group: "g", Value: v, Batch: int64(i + 1)})
			if r.IntN(6) > 0 {
				h.Ops = append(h.Ops, Op{Kind: Deliver, Outcome: OK, Call: time.Duration(min(c, d) + 1), Return: time.Duration(max(c, d) + 1), Queue: "q", Group: "g", Value: v, Attempt: 1})
			}
		}
		_, bad := GroupOrder(h)
		want := slowOrder(groupItems(h)[[2]string{"q", "g"}])
		if got := len(bad) == 0; got != want {
			t.Fatalf("seed %d: the sweep says %v, all pairs say %v: %v", seed, got, want, bad)
		}
		verdicts[want]++
	}
	if verdicts[true] < 1000 || verdicts[false] < 1000 {
		t.Errorf("the histories must be partly legal and partly illegal: %v", verdicts)
	}
}

func TestJournalKeepsWhatWasRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := Create(path, "a run", 42)
	if err != nil {
		t.Fatal(err)
	}
	want := legal(5, 40).Ops
	j.Add(want[:10]...)
	j.Add(want[10:]...)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := Create(path, "again", 1); err == nil {
		t.Error("Create overwrote an existing journal")
	}
}

// BenchmarkCheck measures the speed of all checkers, and BenchmarkOrder that of the order check
// alone.
func BenchmarkCheck(b *testing.B) {
	h := legal(1, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		if r := Check(h, time.Hour); r.Verdict() != Pass {
			b.Fatal(r.Findings)
		}
	}
	b.ReportMetric(float64(len(h.Ops)*b.N)/b.Elapsed().Seconds(), "records/s")
}

func ExampleFinding() {
	fmt.Println(finding("lost", "p1-7", "confirmed at %s, never delivered", at(1500*time.Millisecond)))
	// Output: lost: p1-7: confirmed at 1.5s, never delivered
}
