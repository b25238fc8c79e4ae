package demo

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

func (d *demo) databasePath() string { return filepath.Join(d.dir, "orders.db") }

// sinkSpec returns the sink's settings. The table has no unique key on purpose, so that a doubled
// row is visible.
func (d *demo) sinkSpec() map[string]any {
	columns := map[string]any{"line": "header." + lineHeader}
	if d.Input == "" {
		for _, c := range []string{"id", "customer", "item", "quantity", "total"} {
			columns[c] = "$." + c
		}
	} else {
		columns["body"] = "body"
	}
	target := map[string]any{"table": d.table, "columns": columns, "create_table": true}
	kind := "sqlite"
	if d.Postgres != "" {
		kind = "postgres"
		target["dsn"] = d.Postgres
	} else {
		target["path"] = d.databasePath()
	}
	return map[string]any{"queue": queueName, kind: target}
}

// reconcile counts in the database itself, after the server has stopped, through a connection of
// the demo.
func (d *demo) reconcile(ctx context.Context) (Result, error) {
	res := Result{Published: d.stats.Snapshot().Confirmed, Crashes: d.crashes, Seconds: time.Since(d.start).Seconds()}
	dead, err := d.broker.Queue(ctx, queueName+surgetank.DeadLetterSuffix)
	switch surgetank.CodeOf(err) {
	case surgetank.CodeNotFound:
	case "":
		res.Parked = dead.Ready + dead.Blocked + dead.Delayed + dead.Leased
		if shown, err := d.broker.Peek(ctx, dead.Name, surgetank.PeekOptions{Max: 1}); err == nil && len(shown) > 0 && len(shown[0].Deaths) > 0 {
			res.Reason = shown[0].Deaths[0].Detail
		}
	default:
		return res, err
	}
	if err := d.stop(ctx); err != nil {
		return res, err
	}
	count := "SELECT count(*), count(DISTINCT line) FROM " + sink.QuoteName(d.table)
	var rows, lines int64
	if d.Postgres != "" {
		rows, lines, err = d.countPostgres(ctx, count)
	} else {
		rows, lines, err = countSQLite(ctx, d.databasePath(), count)
	}
	if err != nil {
		return res, fmt.Errorf("counting in the database: %w", err)
	}
	res.Applied, res.Lost, res.Doubled = rows, res.Published-lines, rows-lines
	return res, nil
}

func (d *demo) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return d.server.Stop(ctx)
}

func countSQLite(ctx context.Context, path, query string) (rows, lines int64, err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, query).Scan(&rows, &lines)
	return rows, lines, err
}

func (d *demo) countPostgres(ctx context.Context, query string) (rows, lines int64, err error) {
	conn, err := pgx.Connect(ctx, d.Postgres)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, query).Scan(&rows, &lines); err != nil {
		return 0, 0, err
	}
	if !d.Keep {
		if _, err := conn.Exec(ctx, "DROP TABLE "+sink.QuoteName(d.table)); err != nil {
			return 0, 0, fmt.Errorf("dropping the demo's table: %w", err)
		}
	}
	return rows, lines, nil
}
