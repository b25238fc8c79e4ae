package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/test/kit/load"
	"github.com/surgetank/surgetank/worker"
)

// drain is the writing of one backlog into a table.
type drain struct {
	name, title string // name of the queue and the table; title in the report
	messages    int
	sink        bool // a sink writes the rows; otherwise workers do
	limit       int  // fixed limit of messages in flight, or of lanes; 0: none
	batch       int  // largest batch of the sink; 0: batchSize
	batches     bool // rows are written in batches; otherwise one by one
	adaptive    bool // the queue has an adaptive level, and the breaker that every queue has; else 64 naive workers
	outage      bool // the database is slowed, killed and brought back meanwhile

	began, ended time.Duration // on the run's clock
	backlog      []point       // messages that are not settled, by seconds since began
	rest         time.Duration // the start of the undisturbed part just before the drain
	limits       []point       // the adaptive limit over time, if there is one
	sizes        []point       // the batch size over time, if there is one
	before       latency       // latency of the foreground just before the drain
	foreground   latency       // latency of the foreground during the drain
	others       float64       // share of the processors that other programs used, from rest to the end
	load         string        // the computer's load at the end
	disturbed    *disturbance  // only with outage

	rows   int64 // number of different messages in the table
	spent  int64 // number of rows that needed more than one counted attempt
	parked int64 // number of dead letters and dropped messages

	openings, refunds int64 // the breaker's outages, and the failures that did not count as attempts
}

func (d *drain) took() time.Duration { return d.ended - d.began }

// quiet returns the moment from which neither the drain nor an outage disturbs the foreground.
func (d *drain) quiet() time.Duration {
	if d.disturbed == nil {
		return d.ended
	}
	return max(d.ended, d.disturbed.back)
}

// whole reports whether every message is in the table once and none was parked.
func (d *drain) whole() bool { return d.rows == int64(d.messages) && d.parked == 0 }

// plan lists the drains in their order.
func plan(o options) []*drain {
	list := fixedPlan(o)
	if !o.fixed {
		list = nil
		for round := range o.rounds {
			list = append(list, adaptivePlan(o, round)...)
		}
	}
	return slices.DeleteFunc(list, func(d *drain) bool { return !strings.Contains(d.name, o.only) })
}

// adaptivePlan lists the drains of one round.
func adaptivePlan(o options, round int) []*drain {
	list := []*drain{
		{name: "naive_rows", title: "64 naive workers, single rows", messages: o.rows},
		{name: "level_rows", title: "Surgetank, single rows", messages: o.rows, adaptive: true},
		{name: "naive_batches", title: "64 naive workers, batches of 200", messages: o.batchRows, batches: true},
		{name: "level_batches", title: "Surgetank, PostgreSQL sink", messages: o.batchRows, batches: true, sink: true, adaptive: true},
	}
	if o.outages {
		list = append(list,
			&drain{name: "outage_rows", title: "outage: single rows", messages: o.rows, adaptive: true, outage: true},
			&drain{name: "outage_batches", title: "outage: PostgreSQL sink", messages: o.batchRows, batches: true, sink: true, adaptive: true, outage: true})
	}
	if round > 0 {
		for _, d := range list {
			d.name = fmt.Sprintf("%s_%d", d.name, round+1)
		}
	}
	return list
}

// fill makes the table and the queue of a drain, and publishes its backlog.
func (w *world) fill(ctx context.Context, d *drain) error {
	if err := w.exec(ctx, fmt.Sprintf(tableSchema, d.name)); err != nil {
		return err
	}
	level := map[string]any{}
	if d.limit > 0 && !d.sink {
		level["max_in_flight"] = d.limit
	}
	if d.adaptive && w.adaptive {
		level["adaptive"] = true
	}
	if !d.adaptive && w.breaker {
		level["breaker"] = "off" // otherwise the workers' reports open the breaker
	}
	if err := w.apply(ctx, map[string]any{"queues": map[string]any{d.name: map[string]any{"level": level}}}); err != nil {
		return err
	}
	for n := 0; n < d.messages; {
		var msgs []surgetank.Publishing
		for ; n < d.messages && len(msgs) < 5000; n++ {
			msgs = append(msgs, surgetank.Publishing{Queues: []string{d.name}, Message: surgetank.Message{Body: body(n), ContentType: "application/json"}})
		}
		results, err := w.client.Publish(ctx, msgs)
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Err != nil {
				return r.Err
			}
		}
	}
	return w.exec(ctx, "CHECKPOINT") // so that the writes of an earlier drain slow down no later drain
}

// apply applies a configuration, as an operator does. JSON is YAML.
func (w *world) apply(ctx context.Context, configuration any) error {
	text, err := json.Marshal(configuration)
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, "surgetank.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	_, err = w.server.Command(ctx, "apply", "-f", file)
	return err
}

// drain starts the consumers of a queue, waits until the queue is empty, and reads the table.
func (w *world) drain(ctx context.Context, d *drain) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.began = w.now()
	failed := make(chan error, 2)
	stop, err := w.consume(ctx, d, failed)
	if err != nil {
		return err
	}
	disturbed := make(chan struct{})
	if d.outage {
		d.disturbed = &disturbance{}
		d.disturbed.left.Store(int64(d.messages))
		go func() {
			defer close(disturbed)
			if err := d.disturbed.run(ctx, w, int64(d.messages)); err != nil {
				failed <- err
			}
		}()
	} else {
		close(disturbed)
	}
	err = w.watch(ctx, d, failed)
	if err != nil {
		cancel()
	}
	<-disturbed
	if err == nil && d.outage {
		err = load.Pause(ctx, w.after)
	}
	if stopped := stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return err
	}
	return w.verify(ctx, d)
}

// consume starts the consumers of a drain. If a consumer ends early, its error is sent to failed.
// The returned function stops them.
func (w *world) consume(ctx context.Context, d *drain, failed chan<- error) (stop func() error, err error) {
	if d.sink {
		lanes, batch := w.lanes, batchSize
		if d.limit > 0 {
			lanes, batch = d.limit, d.batch
		}
		name := d.name + "_to_db"
		err := w.apply(ctx, map[string]any{"sinks": map[string]any{name: map[string]any{
			"queue": d.name, "lanes": lanes, "batch": map[string]any{"max": batch},
			"postgres": map[string]any{"dsn": w.pg.DSN("postgres"), "table": d.name,
				"columns": map[string]any{"n": "$.n", "attempt": "message.attempt", "customer": "$.customer", "total": "$.total", "body": "$"}},
		}}})
		return func() error {
			_, err := w.server.Command(ctx, "sink", "rm", name)
			return err
		}, err
	}
	out := newWriter(w.pg.DSN("postgres"), d.name, w.careless)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		opts := worker.Options{Concurrency: workers, MaxBatch: batchSize, Name: d.name}
		var err error
		if d.batches {
			err = worker.RunBatches(ctx, w.client, d.name, out.many, opts)
		} else {
			err = worker.Run(ctx, w.client, d.name, out.one, opts)
		}
		if ctx.Err() == nil {
			failed <- fmt.Errorf("the workers ended early: %w", err)
		}
		ended <- err
	}()
	return func() error {
		cancel()
		err := <-ended
		out.close()
		return err
	}, nil
}

// shown is the part of a queue's figures that the demonstration reads.
type shown struct {
	Ready, Blocked, Delayed, Leased int64
	Counts                          struct {
		DeadLettered int64 `json:"dead_lettered"`
		Dropped      int64
	}
	Level *struct { // nil in a build without level.adaptive and level.breaker
		Limit   int
		Breaker *struct{ Openings, Refunds int64 }
	}
	Sinks []struct{ Level *struct{ Limit, Batch int } } // the limit of lanes, and the batch size
}

// watch records the backlog and the adaptive limit until the backlog is empty.
func (w *world) watch(ctx context.Context, d *drain, failed <-chan error) error {
	for {
		var q shown
		if a := w.http.JSON(ctx, http.MethodGet, "/v1/queues/"+d.name, "", 0, &q); a.Err() != nil {
			return fmt.Errorf("reading the figures of the queue: %w", a.Err())
		}
		left := q.Ready + q.Blocked + q.Delayed + q.Leased
		at := w.now()
		d.backlog = append(d.backlog, point{(at - d.began).Seconds(), float64(left)})
		if q.Level != nil && q.Level.Limit > 0 {
			d.limits = append(d.limits, point{(at - d.began).Seconds(), float64(q.Level.Limit)})
		}
		for _, k := range q.Sinks {
			if k.Level != nil {
				d.limits = append(d.limits, point{(at - d.began).Seconds(), float64(k.Level.Limit)})
				d.sizes = append(d.sizes, point{(at - d.began).Seconds(), float64(k.Level.Batch)})
			}
		}
		if q.Level != nil && q.Level.Breaker != nil {
			d.openings, d.refunds = q.Level.Breaker.Openings, q.Level.Breaker.Refunds
		}
		if d.disturbed != nil {
			d.disturbed.left.Store(left)
		}
		if left == 0 {
			d.ended = at
			d.parked = q.Counts.DeadLettered + q.Counts.Dropped
			return nil
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// verify counts the rows of a drain. Then it removes the queue and the table.
func (w *world) verify(ctx context.Context, d *drain) error {
	conn, err := connect(ctx, w.pg.DSN("postgres"))
	if err != nil {
		return err
	}
	defer closeConn(conn)
	var all int64
	if err := conn.QueryRow(ctx, "SELECT count(*), count(DISTINCT n) FILTER (WHERE n >= 0 AND n < $1), count(*) FILTER (WHERE attempt > 1) FROM "+d.name,
		d.messages).Scan(&all, &d.rows, &d.spent); err != nil {
		return err
	}
	if all != d.rows {
		return fmt.Errorf("the table has %d rows for %d messages", all, d.rows)
	}
	if _, err := w.client.DeleteQueue(ctx, d.name, surgetank.DeleteOptions{}); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "DROP TABLE "+d.name)
	return err
}
