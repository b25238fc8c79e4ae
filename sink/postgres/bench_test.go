package postgres

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"github.com/surgetank/surgetank/sink"
)

const benchTable = "CREATE TABLE %s (id bigint, customer text, total numeric(12,2), at timestamptz, body jsonb)"

const benchColumns = `"columns":{"id":"$.id","customer":"$.customer","total":"$.total","at":"$.at","body":"$"}`

// benchMessages makes orders of about 300 bytes.
func benchMessages(n int) []surgetank.Publishing {
	msgs := make([]surgetank.Publishing, n)
	for i := range msgs {
		body := fmt.Appendf(nil, `{"id":%d,"customer":"customer-%d","total":%d.%02d,"at":"2026-01-02T03:04:05.%06dZ","lines":[{"sku":"A-%d","quantity":%d,"price":%d.50},{"sku":"B-%d","quantity":1,"price":12.25}],"address":{"street":"Long Street %d","city":"Springfield","country":"NL"},"note":"ring twice"}`,
			i, i%5000, i%900, i%100, i%1000000, i%777, i%9+1, i%300, i%333, i%200)
		msgs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: body, Group: fmt.Sprint("customer-", i%5000)}}
	}
	return msgs
}

// BenchmarkSinkPostgres sends rows through an in-memory broker and the sink. In the same run it
// sends the same rows by COPY: once in a single COPY, and once in one COPY per 1,000 rows. The
// reported ratio compares the sink with the single COPY.
func BenchmarkSinkPostgres(b *testing.B) {
	for _, lanes := range []int{1, 4} {
		for _, conflict := range []string{"", `,"on_conflict":{"keys":["id"],"do":"update"}`} {
			name := fmt.Sprintf("lanes=%d/on_conflict=%v", lanes, conflict != "")
			b.Run(name, func(b *testing.B) { benchSink(b, lanes, conflict) })
		}
	}
}

func benchSink(b *testing.B, lanes int, conflict string) {
	const n = 100_000
	pg := pgtest.Shared(b)
	dsn := pg.Database(b)
	unique := ""
	if conflict != "" {
		unique = "; CREATE UNIQUE INDEX ON %s (id)"
	}
	for _, t := range []string{"t", "bulk", "chunks"} {
		pg.Exec(b, dsn, fmt.Sprintf(benchTable, t))
		if unique != "" {
			pg.Exec(b, dsn, fmt.Sprintf(unique[2:], t))
		}
	}
	msgs := benchMessages(n)
	s := spec(b, dsn, "t", benchColumns+conflict)
	s.Lanes = lanes
	for b.Loop() {
		pg.Exec(b, dsn, "TRUNCATE t; TRUNCATE bulk; TRUNCATE chunks; CHECKPOINT")
		lines := benchLines(b, s, msgs)
		bulk := timed(b, func() { copyAll(b, dsn, "bulk", lines, n) })
		chunks := timed(b, func() { copyAll(b, dsn, "chunks", lines, 1000) })
		through := benchRun(b, s, msgs)
		if got := pg.Query(b, dsn, "SELECT count(*) FROM t")[0][0]; got != fmt.Sprint(n) {
			b.Fatalf("%s rows, want %d", got, n)
		}
		rate := func(d time.Duration) float64 { return n / d.Seconds() }
		b.ReportMetric(rate(through), "rows/s")
		b.ReportMetric(rate(bulk), "copy-rows/s")
		b.ReportMetric(rate(chunks), "copy1000-rows/s")
		b.ReportMetric(100*bulk.Seconds()/through.Seconds(), "%ofCOPY")
		b.ReportMetric(100*chunks.Seconds()/through.Seconds(), "%ofCOPY1000")
	}
}

func timed(b *testing.B, f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// benchLines are the rows in COPY's text format, ready to send.
func benchLines(b *testing.B, s sink.Spec, msgs []surgetank.Publishing) [][]byte {
	target, err := New(s)
	if err != nil {
		b.Fatal(err)
	}
	pt := target.(*Target)
	conn, err := pt.connect(context.Background(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer hangUp(conn.PgConn)
	l, err := pt.read(context.Background(), conn.PgConn)
	if err != nil {
		b.Fatal(err)
	}
	ln := newLane(pt, l, sink.Claim{Instance: "i"}, 0)
	var lines [][]byte
	for i := range msgs {
		ln.Reset()
		if err := ln.Add(&surgetank.Delivery{Message: msgs[i].Message}); err != nil {
			b.Fatal(err)
		}
		lines = append(lines, bytes.Clone(ln.lines))
	}
	return lines
}

func copyAll(b *testing.B, dsn, table string, lines [][]byte, batch int) {
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer hangUp(conn)
	for len(lines) > 0 {
		n := min(batch, len(lines))
		if _, err := conn.CopyFrom(ctx, bytes.NewReader(bytes.Join(lines[:n], nil)), "COPY "+table+" FROM STDIN"); err != nil {
			b.Fatal(err)
		}
		lines = lines[n:]
	}
}

// benchRun publishes all messages. It returns the time from the start of the sink to the last
// settled message.
func benchRun(b *testing.B, s sink.Spec, msgs []surgetank.Publishing) time.Duration {
	ctx := context.Background()
	broker, err := embedded.Memory(embedded.Options{Shards: shardstest.N, CacheBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	if _, _, err := broker.DeclareQueue(ctx, "q", surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}, surgetank.DeclareNew); err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(msgs); i += 1000 {
		if _, err := broker.Publish(ctx, msgs[i:min(i+1000, len(msgs))]); err != nil {
			b.Fatal(err)
		}
	}
	target := checked(b, s)
	r, err := sink.NewRunner(broker, target, "s", sink.NewInstance(func() uint64 { return uint64(time.Now().UnixNano()) }), s, sink.Options{})
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	r.Start()
	for r.Status().Applied < uint64(len(msgs)) {
		<-time.After(time.Millisecond)
	}
	took := time.Since(start)
	if st := r.Status(); st.Opens != 1 || st.Parked != 0 {
		b.Fatalf("%+v", st)
	}
	r.Stop(context.Background())
	return took
}
