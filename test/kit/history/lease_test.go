package history

import (
	"testing"
	"time"
)

// A server that was asked to stop still answers for a while. The leases in these answers must end
// with that server. A lease from an earlier or a later server must not be affected.
func TestALeaseEndsWithTheServerThatWasAskedToStop(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	deliver := func(call, back int, receipt string) Op {
		return Op{Kind: Deliver, Outcome: OK, Call: ms(call), Return: ms(back), Queue: "orders", Value: "p0-1", ID: "1-1", Receipt: receipt, Deadline: ms(back + 1000)}
	}
	stop := Op{Kind: Down, Outcome: OK, Call: ms(1000), Return: ms(1200)} // the signal was sent at 1000, the process ended at 1200
	h := &History{Ops: []Op{deliver(1080, 1120, "first"), stop, deliver(1270, 1330, "second")}}
	if bad := OneLease(h); len(bad) > 0 {
		t.Errorf("the first lease ended with its server: %v", bad)
	}
	h.Ops = append(h.Ops, deliver(1290, 1350, "third"))
	if bad := OneLease(h); len(bad) != 1 {
		t.Errorf("two leases after the stop overlap, and the checker says %v", bad)
	}
}
