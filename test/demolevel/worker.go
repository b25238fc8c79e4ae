package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/worker"
)

const (
	workers   = 64  // number of workers of a naive drain; the adaptive limit has the same maximum
	batchSize = 200 // number of rows in a batch of a naive worker or of the sink
)

// tableSchema makes the table of one drain. The attempt of each message is a column, so that a
// spent attempt is visible.
const tableSchema = `CREATE TABLE %[1]s (n bigint PRIMARY KEY, attempt int NOT NULL, customer text, total numeric(12,2), body jsonb);
	CREATE INDEX ON %[1]s (customer)`

// order has the fields of a message's body that are columns of the table.
type order struct {
	N        int64       `json:"n"`
	Customer string      `json:"customer"`
	Total    json.Number `json:"total"`
}

// body returns a message of about 300 bytes.
func body(n int) []byte {
	return fmt.Appendf(nil, `{"n":%d,"customer":"customer-%d","total":%d.%02d,"lines":[{"sku":"A-%d","quantity":%d,"price":%d.50},{"sku":"B-%d","quantity":1,"price":12.25}],"address":{"street":"Long Street %d","city":"Springfield"},"note":"ring twice"}`,
		n, n%5000, n%900, n%100, n%777, n%9+1, n%300, n%333, n%200)
}

// writer writes messages into a table. It has one connection for each worker.
type writer struct {
	dsn, table string
	careless   bool // an unavailable database uses up an attempt

	mu   sync.Mutex
	idle []*pgx.Conn // the last one is used next, as in most pools
}

func newWriter(dsn, table string, careless bool) *writer {
	return &writer{dsn: dsn, table: table, careless: careless}
}

// close closes the connections. All workers must have ended.
func (w *writer) close() {
	for _, conn := range w.idle {
		closeConn(conn)
	}
}

// with calls do with a connection. A connection of the pool can be older than the last outage. If
// such a connection fails, do runs again with a new connection, so do must be idempotent. Without
// the second run, each probe of a breaker could fail with one more dead connection.
func (w *writer) with(ctx context.Context, do func(*pgx.Conn) error) error {
	conn := w.take()
	defer func() { w.give(conn) }()
	for {
		pooled := conn != nil
		if !pooled {
			c, err := connect(ctx, w.dsn)
			if err != nil {
				return err
			}
			conn = c
		}
		err := do(conn)
		if err == nil {
			return nil
		}
		closeConn(conn)
		conn = nil
		if !pooled || ctx.Err() != nil {
			return err
		}
	}
}

// take returns an idle connection, or nil.
func (w *writer) take() *pgx.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.idle)
	if n == 0 {
		return nil
	}
	conn := w.idle[n-1]
	w.idle = w.idle[:n-1]
	return conn
}

func (w *writer) give(conn *pgx.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if conn != nil {
		w.idle = append(w.idle, conn)
	}
}

// one is the handler of single rows. A row that exists already is the work of an earlier attempt.
func (w *writer) one(ctx context.Context, d *surgetank.Delivery) error {
	var o order
	if err := json.Unmarshal(d.Body, &o); err != nil {
		return worker.Reject(err)
	}
	return w.reported(w.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "INSERT INTO "+w.table+" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (n) DO NOTHING",
			o.N, d.Attempt, o.Customer, o.Total.String(), string(d.Body))
		return err
	}))
}

// many is the handler of batches: one statement for all rows.
func (w *writer) many(ctx context.Context, batch []surgetank.Delivery) error {
	var n []int64
	var attempts []int32
	var customers, totals, bodies []string
	for i := range batch {
		var o order
		if err := json.Unmarshal(batch[i].Body, &o); err != nil {
			return worker.Reject(err)
		}
		n, attempts, customers = append(n, o.N), append(attempts, int32(batch[i].Attempt)), append(customers, o.Customer)
		totals, bodies = append(totals, o.Total.String()), append(bodies, string(batch[i].Body))
	}
	return w.reported(w.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "INSERT INTO "+w.table+" SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[]::numeric[], $5::text[]::jsonb[]) ON CONFLICT (n) DO NOTHING",
			n, attempts, customers, totals, bodies)
		return err
	}))
}

// reported returns the error that tells the worker why a write failed. If the database is down, the
// report opens the queue's breaker.
func (w *writer) reported(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil || w.careless:
		return err
	case errors.As(err, &pg) && !strings.HasPrefix(pg.Code, "57P") && !strings.HasPrefix(pg.Code, "08"):
		return err
	}
	return worker.TargetDown(err)
}
