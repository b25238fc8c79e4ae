package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/surgetank/surgetank/test/kit/client"
)

// verify reads the whole table in the order of insertion, and counts all deviations.
func (w *world) verify(ctx context.Context, want *expected) error {
	conn, err := pgx.Connect(ctx, w.pg.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT n, coalesce(grp, ''), md5(body) FROM events ORDER BY applied")
	if err != nil {
		return err
	}
	defer rows.Close()
	seen := make([]bool, len(want.sums))
	last := make(map[string]int64, len(want.names))
	for rows.Next() {
		var n int64
		var group, sum string
		if err := rows.Scan(&n, &group, &sum); err != nil {
			return err
		}
		w.sum.Rows++
		if n < 1 || n > int64(len(seen)) {
			w.sum.Damaged++
			continue
		}
		if seen[n-1] {
			w.sum.Doubled++
		}
		seen[n-1] = true
		if hex.EncodeToString(want.sums[n-1][:]) != sum || want.names[want.groups[n-1]] != group {
			w.sum.Damaged++
		}
		// The order of lines without a group is not checked.
		if group != "" {
			if n <= last[group] {
				w.sum.OutOfOrder++
			}
			last[group] = n
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, s := range seen {
		if !s {
			w.sum.Lost++
		}
	}
	return w.parked(ctx)
}

// parked counts the messages in dead-letter queues.
func (w *world) parked(ctx context.Context) error {
	out, err := w.server.Command(ctx, "queue", "ls", "--json")
	if err != nil {
		return err
	}
	var queues []client.Queue
	if err := json.Unmarshal(out, &queues); err != nil {
		return fmt.Errorf("queue ls: %w", err)
	}
	for _, q := range queues {
		w.sum.Parked += q.Messages()
	}
	return nil
}
