package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
)

const benchTable = "CREATE TABLE t (id INTEGER, customer TEXT, total REAL, at TEXT, body TEXT)"

const benchColumns = `"columns":{"id":"$.id","customer":"$.customer","total":"$.total","at":"$.at","body":"$"}`

func benchMessages(n int) []surgetank.Publishing {
	msgs := make([]surgetank.Publishing, n)
	for i := range msgs {
		body := fmt.Appendf(nil, `{"id":%d,"customer":"customer-%d","total":%d.%02d,"at":"2026-01-02T03:04:05.%06dZ","lines":[{"sku":"A-%d","quantity":%d,"price":%d.50},{"sku":"B-%d","quantity":1,"price":12.25}],"address":{"street":"Long Street %d","city":"Springfield","country":"NL"},"note":"ring twice"}`,
			i, i%5000, i%900, i%100, i%1000000, i%777, i%9+1, i%300, i%333, i%200)
		msgs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: body}}
	}
	return msgs
}

// BenchmarkSinkSQLite sends rows through an in-memory broker and the sink. In the same run it
// writes the same rows with one prepared insert, in transactions of 1,000.
func BenchmarkSinkSQLite(b *testing.B) {
	const n = 50_000
	msgs := benchMessages(n)
	for b.Loop() {
		plain := benchPlain(b, file(b, benchTable), msgs)
		path := file(b, benchTable)
		through := benchRun(b, spec(b, path, "t", benchColumns), msgs)
		if got := fmt.Sprint(all(b, path, "SELECT count(*) FROM t")); got != fmt.Sprintf("[[%d]]", n) {
			b.Fatalf("%s rows, want %d", got, n)
		}
		b.ReportMetric(n/through.Seconds(), "rows/s")
		b.ReportMetric(n/plain.Seconds(), "insert-rows/s")
		b.ReportMetric(100*plain.Seconds()/through.Seconds(), "%ofINSERT")
	}
}

func benchPlain(b *testing.B, path string, msgs []surgetank.Publishing) time.Duration {
	ctx := context.Background()
	d, err := open(ctx, path, false)
	if err != nil {
		b.Fatal(err)
	}
	defer d.close()
	stmt, err := d.conn.Prepare("INSERT INTO t VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		b.Fatal(err)
	}
	defer stmt.Close()
	start := time.Now()
	for i, m := range msgs {
		if i%1000 == 0 {
			if err := d.exec(ctx, "BEGIN"); err != nil {
				b.Fatal(err)
			}
		}
		if err := execute(stmt, named([]driver.Value{int64(i), "customer-1", 1.5, "2026-01-02T03:04:05.000001Z", string(m.Message.Body)})); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			if err := d.exec(ctx, "COMMIT"); err != nil {
				b.Fatal(err)
			}
		}
	}
	return time.Since(start)
}

func benchRun(b *testing.B, s sink.Spec, msgs []surgetank.Publishing) time.Duration {
	ctx := context.Background()
	broker, err := embedded.Memory(embedded.Options{Shards: shardstest.N})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	if _, _, err := broker.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(msgs); i += 1000 {
		if _, err := broker.Publish(ctx, msgs[i:min(i+1000, len(msgs))]); err != nil {
			b.Fatal(err)
		}
	}
	target := checked(b, s)
	r, err := sink.NewRunner(broker, target, "s", "instance", s, sink.Options{})
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	r.Start()
	for r.Status().Applied < uint64(len(msgs)) {
		<-time.After(time.Millisecond)
	}
	took := time.Since(start)
	r.Stop(ctx)
	return took
}
