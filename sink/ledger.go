package sink

import (
	"slices"
	"sync"
)

// ledger is the memory of one session: which messages are committed in the target and may still be
// delivered again. It is the in-memory twin of the lanes' progress rows and safe for use by many goroutines.
//
// Invariant: a message whose row is committed is below the queue's floor, or in ids, or its ack was confirmed by
// the broker. In each of these cases it is not applied a second time.
type ledger struct {
	mu    sync.Mutex
	ids   map[uint64]int // committed, ack not known to be final → the lane whose row holds it
	lanes []laneLedger
}

// laneLedger is what one lane's progress row holds.
type laneLedger struct {
	batch uint64
	ids   map[uint64]struct{}
	buf   []uint64
}

func newLedger(s State) (*ledger, error) {
	l := &ledger{ids: map[uint64]int{}, lanes: make([]laneLedger, len(s.Lanes))}
	for i, ls := range s.Lanes {
		ids, err := ReadIDs(nil, ls.IDs)
		if err != nil {
			return nil, err
		}
		l.lanes[i] = laneLedger{batch: ls.Batch, ids: make(map[uint64]struct{}, len(ids))}
		for _, id := range ids {
			l.ids[id] = i
			l.lanes[i].ids[id] = struct{}{}
		}
	}
	return l, nil
}

// committed tells whether a message's row is in the target.
func (l *ledger) committed(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.ids[seq]
	return ok
}

// progress makes what a lane stores with a batch: its ids that are still at or above the floor, and those of the batch.
func (l *ledger) progress(lane int, epoch, floor uint64, batch []uint64) Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	ll := &l.lanes[lane]
	ll.buf = append(ll.buf[:0], batch...)
	for id := range ll.ids {
		if id < floor {
			delete(ll.ids, id)
			delete(l.ids, id)
			continue
		}
		ll.buf = append(ll.buf, id)
	}
	slices.Sort(ll.buf)
	return Progress{Epoch: epoch, Batch: ll.batch, Watermark: floor, IDs: AppendIDs(nil, ll.buf)}
}

// commit notes that a lane's batch is in the target.
func (l *ledger) commit(lane int, batch []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes[lane].batch++
	for _, id := range batch {
		l.ids[id] = lane
		l.lanes[lane].ids[id] = struct{}{}
	}
}

// settled notes that the broker confirmed an ack: the message can never be delivered again.
// The lane's next progress leaves it out.
func (l *ledger) settled(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lane, ok := l.ids[seq]; ok {
		delete(l.ids, seq)
		delete(l.lanes[lane].ids, seq)
	}
}
