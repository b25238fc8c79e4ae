package sink

import (
	"slices"
	"sync"

	"github.com/surgetank/surgetank/internal/seqset"
)

// ledger records for one session which messages are committed in the target and may still be
// delivered again. It is the in-memory copy of the progress rows and is safe for use by many
// goroutines.
//
// Invariant: a message whose row is committed is below the queue's floor, in settled, or in a
// lane's ids. In each case it is not applied a second time. An id is removed only after the floor
// has passed it, not when its ack is confirmed. Acks can be lost with the data directory's newest
// entries, and the target's knowledge must not depend on them.
//
// One old message that waits keeps the floor low, so there may be many ids. Runs keep the sets
// small. A lane whose ids have too many runs passes them on to settled, which merges the ids of all
// lanes:
//
//	lane 0   ids  1 4 5 9 …    ─┐  in one of the lane's own transactions,
//	lane 1   ids  2 3 6 8 …    ─┴▶ one lane at a time      settled  1-6 8 9 …
type ledger struct {
	mu      sync.Mutex
	owner   string
	epoch   uint64
	settled seqset.Set // the ids in the row of lane -1
	passing int        // the lane that passes its ids on in the current transaction; -1: none
	lanes   []laneLedger
}

// laneLedger is the content of one lane's progress row, and the changes that the current
// transaction would make.
type laneLedger struct {
	batch   uint64
	applied uint64
	ids     seqset.Set

	next        seqset.Set
	nextSettled seqset.Set
}

// maxLaneRuns is the number of runs above which a lane passes its ids on.
const maxLaneRuns = 2048

func newLedger(s State) (*ledger, error) {
	l := &ledger{owner: s.Owner, epoch: s.Epoch, passing: -1, lanes: make([]laneLedger, len(s.Lanes))}
	var err error
	if l.settled, err = readIDs(s.Settled); err != nil {
		return nil, err
	}
	for i, ls := range s.Lanes {
		ids, err := readIDs(ls.IDs)
		if err != nil {
			return nil, err
		}
		l.lanes[i] = laneLedger{batch: ls.Batch, applied: ls.Applied, ids: ids}
	}
	return l, nil
}

// committed reports whether a message's row is in the target.
func (l *ledger) committed(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settled.Has(seq) {
		return true
	}
	for i := range l.lanes {
		if l.lanes[i].ids.Has(seq) {
			return true
		}
	}
	return false
}

// progress returns what a lane stores with a batch: its ids at or above the floor, and the ids of
// the batch. After a failed try, progress can be called again for the same batch. It sorts batch.
func (l *ledger) progress(lane int, floor, entry uint64, batch []uint64) Progress {
	slices.Sort(batch)
	var added seqset.Set
	for _, seq := range batch {
		added.Add(seq, seq)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ll := &l.lanes[lane]
	ids := ll.ids
	ids.RemoveBelow(floor)
	ll.next = seqset.Union(ids, added)
	p := Progress{Epoch: l.epoch, Batch: ll.batch, Watermark: floor, Entry: entry, Applied: ll.applied + uint64(len(batch))}
	if l.passing == lane {
		l.passing = -1
	}
	if len(ll.next) > maxLaneRuns && l.passing < 0 {
		l.passing = lane
		settled := l.settled
		settled.RemoveBelow(floor)
		ll.nextSettled = seqset.Union(settled, ll.next)
		ll.next = nil
		p.Settled = appendIDs(nil, ll.nextSettled)
	}
	p.IDs = appendIDs(nil, ll.next)
	return p
}

// commit notes that the target has committed the transaction which the last call of progress for
// the lane described. It returns the mark that the data directory must store.
func (l *ledger) commit(lane int, batch []uint64) mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	ll := &l.lanes[lane]
	ll.batch++
	ll.applied += uint64(len(batch))
	ll.ids, ll.next = ll.next, nil
	if l.passing == lane {
		l.settled, ll.nextSettled, l.passing = ll.nextSettled, nil, -1
	}
	m := mark{epoch: l.epoch, applied: ll.applied}
	if n := len(batch); n > 0 {
		m.last = batch[n-1] // progress has sorted the batch
	}
	return m
}

// verify records the progress that is committed now. It returns a check for progress that is read
// later.
func (l *ledger) verify() func(State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	batches := make([]uint64, len(l.lanes))
	for i := range l.lanes {
		batches[i] = l.lanes[i].batch
	}
	owner, epoch := l.owner, l.epoch
	return func(s State) error {
		ok := s.Owner == owner && s.Epoch == epoch && len(s.Lanes) == len(batches)
		for i := 0; ok && i < len(batches); i++ {
			ok = s.Lanes[i].Batch >= batches[i]
		}
		if !ok {
			return &Error{Class: Stale, Row: -1, Reason: "a new connection found other progress than this sink left: another opening took over, or the connection leads to an older copy of the database"}
		}
		return nil
	}
}
