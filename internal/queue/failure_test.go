package queue

import (
	"fmt"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// TestReasonsAreBounded: the memory for reasons is bounded for any texts and any number of
// messages. It is freed when the messages are settled. A restart gives the same state.
func TestReasonsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("many messages")
	}
	r := newRig(t, Limits{}, 1)
	const n = maxFailures + 2000
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: -1, Jitter: -1, MaxAttempts: -1}}})
	for done := 0; done < n; done += 1000 {
		ps := make([]surgetank.Publishing, 1000)
		for i := range ps {
			ps[i] = surgetank.Publishing{Queues: []string{"q"}}
		}
		r.step(publishAll(ps...))
	}
	attach := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: n, Lease: surgetank.LeaseForever}}}
	var receipts []surgetank.Receipt
	collect := func(o *Output) {
		for _, h := range o.Handouts {
			receipts = append(receipts, surgetank.Receipt{ID: surgetank.MessageID{Queue: h.Queue.ID(), Seq: h.Seq}, Epoch: r.m.Epoch(), Incarnation: r.m.Incarnation(), Lease: h.Lease})
		}
	}
	collect(r.step(attach))
	r.settleDown(collect)
	if len(receipts) != n {
		t.Fatalf("%d messages were handed out", len(receipts))
	}
	r.step(&Stop{Consumer: attach.Consumer})
	settle := func(op surgetank.SettleOp, list []surgetank.Receipt, reason func(i int) string) {
		for at := 0; at < len(list); at += 1000 {
			c := &Settle{}
			for i, x := range list[at:min(at+1000, len(list))] {
				c.Items = append(c.Items, surgetank.Settlement{Receipt: x, Op: op, Reason: reason(at + i)})
			}
			c.Results = make([]error, len(c.Items))
			r.step(c)
		}
	}
	settle(surgetank.Nack, receipts, func(i int) string {
		return strings.Repeat("x", i%700) + fmt.Sprint(i%60_000)
	})
	fs := &r.m.failures
	if fs.count > maxFailures || fs.bytes > maxFailureBytes || len(fs.texts) > fs.count || fs.bytes < maxFailureBytes/2 {
		t.Errorf("%d reasons with %d bytes in %d texts are kept", fs.count, fs.bytes, len(fs.texts))
	}
	for text := range fs.texts {
		if len(text) > maxFailure {
			t.Fatalf("a reason of %d bytes is kept", len(text))
		}
	}
	check(t, r.m)
	r.takeSnapshot(1 << 20)
	live := dump(r.m, r.now)
	if dump(r.replayed(len(r.log)), r.now) != live || dump(r.restored(r.snaps[0]), r.now) != live {
		t.Error("a restart results in another state")
	}
	for more := true; more; {
		c := &Purge{Name: "q"}
		for first := true; first || c.Next != 0; first = false {
			r.step(c)
		}
		more = c.Purged > 0
	}
	if fs.count != 0 || fs.bytes != 0 || len(fs.texts) != 0 {
		t.Errorf("%d reasons with %d bytes in %d texts are kept of messages that are gone", fs.count, fs.bytes, len(fs.texts))
	}
}
