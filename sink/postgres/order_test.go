package postgres

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/sink"
)

// TestARowThatAnEarlierMessageBrings: every row refers to the row of the previous message, and the
// lanes write at the same time. No message may be parked.
func TestARowThatAnEarlierMessageBrings(t *testing.T) {
	pg := pgtest.Shared(t)
	dsn := pg.Database(t)
	pg.Exec(t, dsn, "CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES t)")
	s := spec(t, dsn, "t", `"columns":{"id":"$.id","parent":"$.p"}`)
	s.Lanes, s.Batch.Max = 4, 100
	r := start(t, surgetank.QueueConfig{}, s)
	const n = 5000
	bodies := []string{`{"id":0}`}
	for i := 1; i < n; i++ {
		bodies = append(bodies, fmt.Sprintf(`{"id":%d,"p":%d}`, i, i-1))
	}
	r.publish(bodies...)
	r.until("all rows", func(s sink.Status) bool { return s.Applied+s.Parked == n })
	if st := r.r.Status(); st.Parked != 0 {
		t.Errorf("%d good messages were parked: %s", st.Parked, st.LastError)
	}
}
