package broker

import (
	"testing"

	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// trimmed is a log that records trims.
type trimmed struct {
	commitlog.Log
	before []commitlog.Offset
}

func (l *trimmed) Trim(before commitlog.Offset) error {
	l.before = append(l.before, before)
	return nil
}

// TestTrimWaitsForItsFacts: a trim is decided from facts, such as an ack at the log's end. Until
// such a fact is durable, a crash can undo it. So the trim must wait for the entry that was the
// newest when the trim was decided.
func TestTrimWaitsForItsFacts(t *testing.T) {
	log := &trimmed{}
	b := &core{log: log, exec: inline{}, machine: queue.New(queue.Limits{}, 1)}
	for n := range uint64(5) {
		b.places.add(n+1, commitlog.Offset(100*(n+1)))
	}
	b.number, b.durable = 5, 4 // the log is writing entry 5
	b.trim(3)
	if len(log.before) > 0 {
		t.Fatalf("trimmed before %v while entry 5 could be lost", log.before)
	}
	b.durable = 5
	b.trimFreed()
	if len(log.before) != 1 {
		t.Fatalf("%d trims after entry 5 was durable, want 1", len(log.before))
	}
}
