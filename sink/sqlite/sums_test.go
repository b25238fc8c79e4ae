package sqlite

import (
	"bufio"
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
)

const sumColumns = `"columns":{"id":"$.id","hits":"$.hits","bytes":"$.bytes","last":"$.last"},"on_conflict":{"keys":["id"],"do":"add","add":["hits","bytes"]}`

// TestSums: the rows of a batch with the same key are added to each other and to the existing row,
// however the key is spelled. The other columns get the values of the last message.
func TestSums(t *testing.T) {
	path := file(t, "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, hits INTEGER DEFAULT 1, bytes REAL, last TEXT)",
		"CREATE TABLE written (n INTEGER)", "CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO written VALUES (1); END",
		"CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO written VALUES (1); END", "INSERT INTO t VALUES ('a', 10, NULL, 'old')", "DELETE FROM written")
	s := spec(t, path, "t", sumColumns)
	s.Batch.Max = 100
	l := startSink(t, s)
	var bodies []string
	for i := range 30 {
		bodies = append(bodies, fmt.Sprintf(`{"id":"a","hits":1,"bytes":0.5,"last":"a%d"}`, i), fmt.Sprintf(`{"id":"b","hits":2,"bytes":1.5,"last":"b%d"}`, i))
	}
	bodies = append(bodies,
		`{"id":"A","hits":3,"last":"A"}`, `{"id":"a","hits":4,"last":"after A"}`, // only SQLite treats these keys as equal
		`{"id":"b","last":"default"}`, `{"id":"b","hits":null,"last":"null"}`, // adds the default 1; null adds nothing
		`{"id":"c","hits":9223372036854775807,"bytes":1}`, `{"id":"d","hits":-2,"bytes":-0.5}`, `{"id":"d","hits":-3,"bytes":1}`)
	l.publish(bodies...)
	l.until("all rows", func(s sink.Status) bool { return s.Applied == uint64(len(bodies)) })
	got := fmt.Sprint(all(t, path, "SELECT id, hits, bytes, last FROM t ORDER BY id"))
	if want := "[[a 47 15 after A] [b 61 45 null] [c 9223372036854775807 1 <nil>] [d -5 0.5 <nil>]]"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	batches := int(l.r.Status().Batches)
	if n := len(all(t, path, "SELECT 1 FROM written")); n > 9*batches {
		t.Errorf("%d rows were written in %d batches", n, batches)
	}
}

// TestAdd: two numbers are added in Go only if they have the same type and their sum fits.
func TestAdd(t *testing.T) {
	for _, c := range []struct {
		a, b, want driver.Value
		ok         bool
	}{
		{int64(1), int64(2), int64(3), true}, {int64(-1), int64(-2), int64(-3), true}, {int64(1), int64(0), int64(1), true},
		{nil, int64(2), int64(2), true}, {int64(2), nil, int64(2), true}, {nil, nil, nil, true}, {1.5, 2.0, 3.5, true}, {1.5, nil, 1.5, true},
		{int64(1<<63 - 1), int64(1), nil, false}, {int64(-1 << 63), int64(-1), nil, false}, {int64(1), 2.0, nil, false}, {"1", int64(1), nil, false},
	} {
		got, ok := add(c.a, c.b)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%v + %v = %v, %v; want %v, %v", c.a, c.b, got, ok, c.want, c.ok)
		}
	}
}

// TestSumsThroughKills: counters are exact although the process with broker and sink is killed
// again and again. Each child process publishes some messages, prints the number of confirmed ones,
// and writes rows until it is killed.
func TestSumsThroughKills(t *testing.T) {
	if dir := os.Getenv("SUMS_DIR"); dir != "" {
		countUp(t, dir)
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "counters.db")
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, hits INTEGER NOT NULL, bytes INTEGER NOT NULL, last INTEGER)", "CREATE TABLE written (n INTEGER)",
		"CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO written VALUES (1); END", "CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO written VALUES (1); END")
	rng := rand.New(rand.NewPCG(3, 3))
	kills, confirmed := 12, 0
	if testing.Short() {
		kills = 4
	}
	for kill := 0; kill <= kills; kill++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSumsThroughKills$")
		cmd.Env = append(os.Environ(), "SUMS_DIR="+dir)
		if kill == kills {
			cmd.Env = append(cmd.Env, "SUMS_DRAIN=1")
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := rng.IntN(30); lines.Scan(); n-- {
			var batch int
			if _, err := fmt.Sscanf(lines.Text(), "confirmed %d", &batch); err == nil {
				confirmed += batch
			}
			if n <= 0 && kill < kills {
				break
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		rest, _ := io.ReadAll(out)
		confirmed += batchSize * strings.Count(string(rest), "confirmed")
		_ = cmd.Wait() // it was killed
	}
	rows := all(t, path, "SELECT sum(hits), sum(bytes), count(*), (SELECT count(*) FROM written) FROM t")[0]
	hits, bytes := rows[0].(int64), rows[1].(int64)
	t.Logf("%d messages confirmed, %d counted, %d rows written, %d kills", confirmed, hits, rows[3], kills)
	// In each message, bytes is seven times hits. A publish that was cut off can be stored without
	// a confirm, at most one batch per kill.
	if hits < int64(confirmed) || hits > int64(confirmed+kills*batchSize) || bytes != 7*hits {
		t.Errorf("%d hits and %d bytes for %d to %d messages", hits, bytes, confirmed, confirmed+kills*batchSize)
	}
	stored := published(t, dir)
	for _, r := range all(t, path, "SELECT id, hits FROM t") {
		if stored := stored[r[0].(string)]; stored != r[1].(int64) {
			t.Errorf("%s has %d hits, %d were published", r[0], r[1], stored)
		}
	}
}

const batchSize = 200

// published counts the messages in the queue "copy" by counter. Each message was published to this
// queue and to the sink's queue.
func published(t *testing.T, dir string) map[string]int64 {
	b, err := embedded.Open(filepath.Join(dir, "data"), embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	n := map[string]int64{}
	var after uint64
	for {
		ds, err := b.Peek(context.Background(), "copy", surgetank.PeekOptions{Max: 1000, After: after})
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) == 0 {
			return n
		}
		for _, d := range ds {
			id, _, _ := strings.Cut(strings.TrimPrefix(string(d.Body), `{"id":"`), `"`)
			n[id]++
			after = d.ID.Seq
		}
	}
}

// countUp runs in the child process. It publishes to a queue with a sink, and to a queue that keeps
// all messages.
func countUp(t *testing.T, dir string) {
	b, err := embedded.Open(filepath.Join(dir, "data"), embedded.Options{Shards: shardstest.N})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, name := range []string{"q", "copy"} {
		if _, _, err := b.DeclareQueue(ctx, name, surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
			t.Fatal(err)
		}
	}
	s := spec(t, filepath.Join(dir, "counters.db"), "t", sumColumns)
	s.Batch.Max = 50
	target, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sink.NewRunner(b, target, "s", strings.Repeat("a", 32), s, sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	drain := os.Getenv("SUMS_DRAIN") != ""
	for i := 0; !drain; i++ {
		var msgs []surgetank.Publishing
		for j := range batchSize {
			msgs = append(msgs, surgetank.Publishing{Queues: []string{"q", "copy"}, Message: surgetank.Message{Body: fmt.Appendf(nil, `{"id":"counter %d","hits":1,"bytes":7,"last":%d}`, j%5, i)}})
		}
		if _, err := b.Publish(ctx, msgs); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("confirmed %d\n", batchSize)
	}
	for {
		q, err := b.Queue(ctx, "q")
		if err != nil {
			t.Fatal(err)
		}
		if q.Ready+q.Leased+q.Delayed+q.Blocked == 0 {
			break
		}
	}
	r.Stop(ctx)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
