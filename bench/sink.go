package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/sink"
	"github.com/surgetank/surgetank/sink/postgres"
)

const (
	sinkTable   = "(id bigint, customer text, total numeric(12,2), at timestamptz, body jsonb)"
	sinkColumns = `{"id": "$.id", "customer": "$.customer", "total": "$.total", "at": "$.at", "body": "$"}`
)

// order returns one sample order of about 300 bytes, as a message's body and as a line of COPY's
// text format.
func order(i int) (body, line []byte) {
	customer, total := fmt.Sprint("customer-", i%5000), fmt.Sprintf("%d.%02d", i%900, i%100)
	at := fmt.Sprintf("2026-01-02T03:04:05.%06dZ", i%1_000_000)
	body = fmt.Appendf(nil, `{"id":%d,"customer":"%s","total":%s,"at":"%s","lines":[{"sku":"A-%d","quantity":%d,"price":%d.50},{"sku":"B-%d","quantity":1,"price":12.25}],"address":{"street":"Long Street %d","city":"Springfield"},"note":"ring twice"}`,
		i, customer, total, at, i%777, i%9+1, i%300, i%333, i%200)
	return body, fmt.Appendf(nil, "%d\t%s\t%s\t%s\t%s\n", i, customer, total, at, body)
}

// benchSink measures a sink that writes a backlog to a PostgreSQL table, each message once. It
// compares the rate with one COPY of the same rows.
func benchSink(r *report, dir string) error {
	dsn := *flagPG
	if dsn == "" {
		bin, err := pgtest.Find()
		if err != nil {
			return fmt.Errorf("%w; or give -postgres", err)
		}
		pg, err := pgtest.New(bin)
		if err != nil {
			return err
		}
		defer pg.Close()
		dsn = pg.DSN("postgres")
	}
	r.head("PostgreSQL sink", fmt.Sprintf("%d rows of about 300 bytes from a backlog on disk, batches of 1,000, no index; bound: one COPY of the same rows, ready made", *flagRows))
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	exec := func(sql string) error {
		_, err := conn.Exec(ctx, sql).ReadAll()
		return err
	}
	if err := exec("CREATE TABLE IF NOT EXISTS bench_rows " + sinkTable + "; CREATE TABLE IF NOT EXISTS bench_copy " + sinkTable); err != nil {
		return err
	}
	defer exec("DROP TABLE bench_rows, bench_copy")
	for _, lanes := range []int{1, 2, 4} {
		var got, bound, ratios []float64
		for run := range *flagRuns {
			if err := exec("TRUNCATE bench_rows, bench_copy; CHECKPOINT"); err != nil {
				return err
			}
			var lines bytes.Buffer
			for i := range *flagRows {
				_, line := order(i)
				lines.Write(line)
			}
			start := time.Now()
			if _, err := conn.CopyFrom(ctx, &lines, "COPY bench_copy FROM STDIN"); err != nil {
				return err
			}
			raw := float64(*flagRows) / time.Since(start).Seconds()
			mine, err := drainInto(filepath.Join(dir, fmt.Sprint(lanes, "-", run)), dsn, lanes)
			if err != nil {
				return err
			}
			got, bound, ratios = append(got, mine), append(bound, raw), append(ratios, mine/raw)
		}
		r.row(row{fmt.Sprintf("%d lanes", lanes), rate(median(got)), rate(median(bound)), fmt.Sprintf("%.0f %%", 100*median(ratios))})
	}
	return nil
}

// drainInto fills a queue, then lets a sink empty it and returns rows per second.
func drainInto(dir, dsn string, lanes int) (float64, error) {
	b, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		return 0, err
	}
	defer b.Close()
	if _, _, err := b.DeclareQueue(ctx, "q", surgetank.QueueConfig{GroupBy: "$.customer"}, surgetank.DeclareNew); err != nil {
		return 0, err
	}
	for i := 0; i < *flagRows; {
		var msgs []surgetank.Publishing
		for ; i < *flagRows && len(msgs) < 1000; i++ {
			body, _ := order(i)
			msgs = append(msgs, surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: body}})
		}
		if _, err := b.Publish(ctx, msgs); err != nil {
			return 0, err
		}
	}
	spec, err := sink.ParseSpec(fmt.Appendf(nil, `{"queue": "q", "lanes": %d, "postgres": {"dsn": %q, "table": "bench_rows", "columns": %s}}`, lanes, dsn, sinkColumns))
	if err != nil {
		return 0, err
	}
	spec = spec.WithDefaults()
	target, err := postgres.New(spec)
	if err != nil {
		return 0, err
	}
	if err := target.Check(ctx); err != nil {
		return 0, err
	}
	runner, err := sink.NewRunner(b, target, "bench", sink.NewInstance(func() uint64 { return uint64(time.Now().UnixNano()) }), spec, sink.Options{})
	if err != nil {
		return 0, err
	}
	start := time.Now()
	runner.Start()
	defer runner.Stop(ctx)
	for runner.Status().Applied < uint64(*flagRows) {
		time.Sleep(time.Millisecond)
		if s := runner.Status(); s.Parked > 0 {
			return 0, errors.New("the sink parked messages: " + s.LastError)
		}
	}
	return float64(*flagRows) / time.Since(start).Seconds(), nil
}
