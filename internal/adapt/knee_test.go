package adapt

import (
	"math"
	"testing"
)

// TestTheBatchSizeHasTheMostPower: a batch has a fixed cost and a cost of each row. Power is largest
// where the two are equal. The size must stay near this point when the fixed cost changes.
func TestTheBatchSizeHasTheMostPower(t *testing.T) {
	const row = ms / 10
	for _, most := range []int{4000, 100, 20, 1} {
		fixed := int64(100 * row)
		r := newRig(t, Settings{Max: 4, BatchMax: most}, nil)
		r.rows = -1
		r.latency = func(n, _ int) int64 { return fixed + int64(r.c.BatchSize())*row }
		if got := r.c.BatchSize(); got > batchFirst || got > most {
			t.Errorf("the first batch has %d rows", got)
		}
		for _, x := range []int64{100, 3000, 400, 1} {
			fixed = x * row
			r.run(400 * second)
			least, largest := min(max(int(x)/2, batchFirst), most), min(max(int(x)*2, batchFirst), most)
			if c := r.c; c.trial.from == 0 && (c.BatchSize() < least || c.BatchSize() > largest) {
				t.Errorf("batch.max %d, fixed cost of %d rows: batches of %d\n%v", most, x, c.BatchSize(), c.History(nil))
			}
		}
	}
}

// TestTrialsOfBatchSizesAreRare: trials must not fill the history, and a trial must leave the working
// limit as it was.
func TestTrialsOfBatchSizesAreRare(t *testing.T) {
	r := newRig(t, Settings{Max: 8, BatchMax: 4000}, nil)
	r.rows = -1
	r.latency = func(int, int) int64 { return 10*ms + int64(r.c.BatchSize())*ms/10 }
	r.run(60 * second)
	changes, size := r.c.Changes(), r.c.BatchSize()
	var other int
	for range 60_000 {
		r.run(ms)
		if r.c.BatchSize() != size {
			other++
		}
	}
	if r.c.Changes() != changes || r.c.Working() != 8 {
		t.Errorf("limit %d, %d changes of a steady target\n%v", r.c.Working(), r.c.Changes()-changes, r.c.History(nil))
	}
	if other == 0 || other > 3000 {
		t.Errorf("trials took %d of 60000 ms", other)
	}
}

// TestSlowStartGoesOnWhilePowerGrows: in a database with a group commit, a second writer waits for the
// commit of the first. So latency grows early, and throughput grows much longer.
func TestSlowStartGoesOnWhilePowerGrows(t *testing.T) {
	for _, x := range []struct {
		exponent    float64 // latency is limit to this power
		batch       int
		least, most int
	}{
		{0.2, 0, 50, 64}, // at the limit 64, latency is 2.3 times that of a single message
		{0.36, 0, 14, 24},
		{0.36, 20, 14, 24},
		{0.6, 0, 1, 2}, // a second message mostly makes the first one slower
		{0.6, 20, 1, 1},
		{1, 0, 1, 1},
		{1, 20, 1, 1},
	} {
		r := newRig(t, Settings{BatchMax: x.batch}, func(n, _ int) int64 { return int64(10 * ms * math.Pow(float64(n), x.exponent)) })
		r.run(20 * second)
		var sum int
		for range 2000 {
			r.run(20 * ms)
			sum += r.c.Working()
		}
		if mean := float64(sum) / 2000; mean < float64(x.least) || mean > float64(x.most)+0.2 {
			t.Errorf("exponent %.2f, batches of %d: mean limit %.2f, want %d to %d\n%v", x.exponent, x.batch, mean, x.least, x.most, r.c.History(nil))
		}
	}
}

// TestTheTargetOfTheLawBeginsAnew: what slow start found applies until the next start.
func TestTheTargetOfTheLawBeginsAnew(t *testing.T) {
	r := newRig(t, Settings{}, func(n, _ int) int64 { return int64(10 * ms * math.Pow(float64(n), 0.36)) })
	r.run(20 * second)
	if r.c.target <= 1.5 || r.c.target > 3 {
		t.Fatalf("the law's target is %g", r.c.target)
	}
	r.c.Configure(r.now, Settings{Tolerance: 1.2})
	if r.c.target > 2.4 {
		t.Errorf("the law's target is %g for a tolerance of 1.2", r.c.target)
	}
	r.c.Reset(r.now, Resumed)
	if r.c.target != 1.2 || r.c.Limit(r.now) != 1 {
		t.Errorf("the law's target is %g after a pause, the limit %d", r.c.target, r.c.Limit(r.now))
	}
}

// TestSearchesFindTheKnee: a slow first probe lets slow start overshoot, and it finds no knee. Later the
// law searches for it. Searches without a result are rare.
func TestSearchesFindTheKnee(t *testing.T) {
	exponent := 0.36
	r := newRig(t, Settings{}, func(n, i int) int64 {
		return pickInt(i < 30, 200*ms, int64(10*ms*math.Pow(float64(n), exponent)))
	})
	r.run(60 * second)
	if got := r.c.Working(); got < 12 || got > 24 {
		t.Errorf("limit %d\n%v", got, r.c.History(nil))
	}
	exponent = 0.55
	r.c.Reset(r.now, Resumed)
	r.run(60 * second)
	before, least := r.c.Changes(), r.c.Working()
	r.run(300 * second)
	if got := r.c.Changes() - before; got < 2 || got > 24 || r.c.Working() > least+1 {
		t.Errorf("%d changes in five minutes, limit %d\n%v", got, r.c.Working(), r.c.History(nil))
	}
}
