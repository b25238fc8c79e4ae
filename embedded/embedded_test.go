package embedded_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

func publish(t *testing.T, b surgetank.Broker, queue string, from, to int) {
	t.Helper()
	var msgs []surgetank.Publishing
	for i := from; i < to; i++ {
		msgs = append(msgs, surgetank.Publishing{Queues: []string{queue}, Message: surgetank.Message{Body: fmt.Append(nil, "body ", i)}})
	}
	results, err := b.Publish(t.Context(), msgs)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

func open(t *testing.T, dir string) *embedded.Broker {
	t.Helper()
	b, err := embedded.Open(dir, embedded.Options{Shards: shardstest.N, SegmentBytes: 64 << 10, SnapshotBytes: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatWasConfirmedIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	b := open(t, dir)
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	const rounds, each = 5, 2000
	acked := map[uint64]bool{}
	for round := range rounds {
		publish(t, b, "q", round*each, (round+1)*each)
		got, err := b.Receive(ctx, "q", surgetank.ReceiveOptions{Max: each / 2})
		if err != nil || len(got) != each/2 {
			t.Fatal(len(got), err)
		}
		var acks []surgetank.Settlement
		for i, d := range got {
			if want := fmt.Sprint("body ", d.ID.Seq-1); string(d.Body) != want {
				t.Fatalf("message %s holds %q, not %q", d.ID, d.Body, want)
			}
			if acked[d.ID.Seq] {
				t.Fatalf("message %s came again after its ack", d.ID)
			}
			if i%2 == 0 {
				acks = append(acks, surgetank.Settlement{Receipt: d.Receipt})
				acked[d.ID.Seq] = true
			}
		}
		results, err := b.Settle(ctx, acks)
		if err = errors.Join(append(results, err)...); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, dir)
		results, err = b.Settle(ctx, acks[:1])
		if err != nil || !errors.Is(results[0], surgetank.ErrLeaseLost) {
			t.Fatal("a receipt outlived its epoch:", results, err)
		}
		info, err := b.Queue(ctx, "q")
		if err != nil || info.Ready != int64((round+1)*each-len(acked)) {
			t.Fatalf("%d ready after round %d, %d published, %d acked: %v", info.Ready, round, (round+1)*each, len(acked), err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	defer b.Close()
	_, err := embedded.Open(dir, embedded.Options{Shards: shardstest.N})
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatal(err)
	}
}

func TestTheLogDoesNotGrowWithWhatIsDone(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	b := open(t, dir)
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "q", 0, 10) // these stay at the beginning of the log
	if _, _, err := b.DeclareQueue(ctx, "busy", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("x", 4000)
	for range 6000 {
		if _, err := b.Publish(ctx, []surgetank.Publishing{{Queues: []string{"busy"}, Message: surgetank.Message{Body: []byte(body)}}}); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Receive(ctx, "busy", surgetank.ReceiveOptions{NoAck: true}); err != nil || len(got) != 1 {
			t.Fatal(len(got), err)
		}
	}
	if s := b.LogStats(); s.DiskBytes > 24<<20 {
		t.Errorf("the log has %d bytes though only 10 messages wait", s.DiskBytes)
	}
	got, err := b.Receive(ctx, "q", surgetank.ReceiveOptions{Max: 100})
	if err != nil || len(got) != 10 || string(got[9].Body) != "body 9" {
		t.Fatal(len(got), err)
	}
}
