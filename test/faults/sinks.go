//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // reads the SQLite sink's rows

	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/server"
)

// withRows creates a SQLite sink for each queue and injects faults while clients publish. Then it
// waits until the sinks have written all messages, stops the server, and reads the tables: every
// confirmed message must be one row, in the order of its group.
func (r *run) withRows(ctx context.Context, faults func() error) error {
	r.beyond = true // no client consumes: the sinks' rows are checked instead of deliveries
	if err := r.server.Start(ctx); err != nil {
		return err
	}
	if err := r.declare(ctx); err != nil {
		return err
	}
	c := r.client()
	defer c.Close()
	db := filepath.Join(r.dir, "rows.db")
	for _, q := range []string{grouped, plain} {
		spec := fmt.Sprintf(`{"queue":%q,"sqlite":{"path":%q,"table":%q,"columns":{"v":"$.v"},"create_table":true},"batch":{"max":50,"wait":"5ms"},"lanes":2}`,
			q, db, "rows_"+q)
		if err := c.setSink(ctx, q+"-rows", spec); err != nil {
			return err
		}
	}
	r.startLoad(ctx, loadOptions{consumers: -1}, r.server.URL)
	if err := faults(); err != nil {
		return err
	}
	if err := r.end(ctx); err != nil {
		return err
	}
	return r.checkRows(ctx, db)
}

// sinkRows kills the server at random moments while its SQLite sinks write.
func sinkRows(ctx context.Context, r *run) error {
	return r.withRows(ctx, func() error {
		for range r.times(5, 200) {
			if err := r.sleep(ctx, r.between(50*time.Millisecond, 400*time.Millisecond)); err != nil {
				return err
			}
			r.inject("kill")
			r.server.Kill()
			if err := r.server.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// sinkAtCall kills the server at the start of the n-th system call that writes or syncs a file of
// the SQLite sink's database. With -long it uses every n up to a limit, otherwise a sample.
func sinkAtCall(ctx context.Context, r *run) error {
	return r.withRows(ctx, func() error {
		db := filepath.Join(r.dir, "rows.db")
		files := []string{db, db + "-wal", db + "-shm", db + "-journal"}
		calls := []string{"pwrite64", "fsync"}
		r.server.Env = []string{"GOMAXPROCS=1"} // strace counts per thread, so few threads must make the calls
		missed, times := 0, r.times(14, 240)
		for k := range times {
			call := calls[k%len(calls)]
			n := 1 + k/len(calls)
			if !r.long {
				n = 1 + r.rng.IntN(24)
			}
			if call != "pwrite64" {
				n = 1 + n%8
			}
			r.server.Kill()
			r.strace(call, "signal=SIGKILL", n, files...)
			switch err := r.server.Start(ctx); {
			case errors.Is(err, server.ErrNotReady):
				r.inject(fmt.Sprintf("kill at %s %d", call, n))
			case err != nil:
				return err
			default:
				limit, cancel := context.WithTimeout(ctx, 2500*time.Millisecond)
				_, err := r.server.Wait(limit)
				cancel()
				if err != nil {
					missed++
				} else {
					r.inject(fmt.Sprintf("kill at %s %d", call, n))
				}
			}
			r.server.Kill()
			if err := r.server.Start(ctx); err != nil {
				return err
			}
		}
		if missed > 0 {
			r.note("%d of %d calls did not come in time", missed, times)
		}
		return nil
	})
}

// checkRows reads the tables and compares them with the journal.
func (r *run) checkRows(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		return err
	}
	defer db.Close()
	for _, q := range []string{grouped, plain} {
		rows, err := db.QueryContext(ctx, `SELECT v FROM "rows_`+q+`" ORDER BY rowid`)
		if err != nil {
			return err
		}
		var values []string
		for rows.Next() {
			var v string
			if err := rows.Scan(&v); err != nil {
				return errors.Join(err, rows.Close())
			}
			values = append(values, v)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		r.compare(q, values)
	}
	return nil
}

// compare checks one table's rows: each value once, and in the order of its group. The check of
// order treats a row like a delivery.
func (r *run) compare(queue string, values []string) {
	h := &history.History{Queues: checked}
	parked := map[string]bool{}
	group := map[string]string{}
	for _, op := range r.journal.Ops() {
		switch {
		case op.Kind == history.Publish && op.Queue == queue:
			h.Ops = append(h.Ops, op)
			group[op.Value] = op.Group
		case op.Kind == history.Deliver && op.Queue == queue+".dead":
			parked[op.Value] = true
		}
	}
	_, bad := history.SinkRows(h, values, parked)
	after := r.journal.Now()
	for i, v := range values {
		at := after + time.Duration(i)
		h.Ops = append(h.Ops, history.Op{Kind: history.Deliver, Outcome: history.OK, Call: at, Return: at, Queue: queue, Value: v, Group: group[v], Attempt: 1})
	}
	_, disorder := history.GroupOrder(h)
	r.wrong = append(append(r.wrong, bad...), disorder...)
}
