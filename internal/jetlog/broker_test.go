package jetlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// openBroker opens a broker on a log.
func openBroker(t *testing.T, r *rig) (*broker.Broker, *Log) {
	t.Helper()
	l, err := Acquire(t.Context(), r.options())
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Open(broker.Options{Snapshots: l.Snapshots(), SnapshotBytes: 300 << 10,
		OpenLog: func(from commitlog.Offset, _ broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			replay, err := l.Open(t.Context(), from)
			return replay, l, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	return b, l
}

// TestBroker: a broker on this log publishes, delivers and saves snapshots. Another one takes over
// while the first is open. It has all messages that are not acked, and the first one can confirm
// nothing more.
func TestBroker(t *testing.T) {
	r := newRig(t, calm())
	ctx := t.Context()
	first, log := openBroker(t, r)
	if _, _, err := first.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	const n, batch, acked = 1500, 50, 1000
	body := make([]byte, 1000)
	publish := func(b *broker.Broker) {
		t.Helper()
		for i := 0; i < n; i += batch {
			var list []surgetank.Publishing
			for k := range batch {
				list = append(list, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{ContentType: fmt.Sprint(i + k), Body: body}})
			}
			results, err := b.Publish(ctx, list)
			if err != nil {
				t.Fatal(err)
			}
			for _, res := range results {
				if res.Err != nil {
					t.Fatal(res.Err)
				}
			}
		}
	}
	publish(first)
	for done := 0; done < acked; {
		got, err := first.Receive(ctx, "q", surgetank.ReceiveOptions{Max: min(100, acked-done), Wait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := surgetank.SettleAll(ctx, first, acks(got)...); err != nil {
			t.Fatal(err)
		}
		done += len(got)
	}
	r.cluster.Poll("the first broker has saved a snapshot", func() bool {
		at, snapshot, err := log.Snapshots().Latest()
		return err == nil && at > 0 && snapshot.Close() == nil
	})
	second, _ := openBroker(t, r)
	if results, err := first.Publish(ctx, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: body}}}); err == nil && results[0].Err == nil {
		t.Error("the first broker confirmed a message after the second one had opened the log")
	} else if code := surgetank.CodeOf(err); code != surgetank.CodeUncertain {
		t.Errorf("the first broker's publish ended with %s: %v", code, err)
	}
	if err := first.Close(); err != nil {
		t.Logf("closing the first broker: %v", err)
	}
	next := acked
	for next < n {
		got, err := second.Receive(ctx, "q", surgetank.ReceiveOptions{Max: 100, Wait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got {
			if d.ContentType != fmt.Sprint(next) || len(d.Body) != len(body) {
				t.Fatalf("message %s with %d bytes, want message %d", d.ContentType, len(d.Body), next)
			}
			next++
		}
		if err := surgetank.SettleAll(ctx, second, acks(got)...); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := second.Receive(ctx, "q", surgetank.ReceiveOptions{}); err != nil || len(got) != 0 {
		t.Errorf("%d messages are left: %v", len(got), err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

func acks(list []surgetank.Delivery) (out []surgetank.Settlement) {
	for i := range list {
		out = append(out, list[i].Ack())
	}
	return out
}
