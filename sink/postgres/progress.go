package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// progressName is the progress table beside the target table: in its schema, so that it does not depend on search_path.
func progressName(schema string) string {
	return sink.QuoteName(schema) + ".surgetank_progress"
}

// createProgress makes the progress table. The row of lane -1 holds what belongs to the sink as a whole, and is the
// lock of takeOver. fillfactor leaves room for updates in place; autovacuum comes often because every batch makes one dead row.
func createProgress(schema string) string {
	return "CREATE TABLE IF NOT EXISTS " + progressName(schema) + ` (
	instance text NOT NULL, lane int NOT NULL, sink text NOT NULL, owner text NOT NULL, queue bigint NOT NULL, epoch bigint NOT NULL,
	batch bigint NOT NULL, watermark bigint NOT NULL, ids bytea NOT NULL, updated timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (instance, lane)) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0)`
}

// takeOver makes the progress this opening's: after it, no commit of an older one can succeed.
//
//	lock the row of lane -1        of two openings one waits
//	another owner has taken it?    then leave without touching anything
//	end the old connections        they may hang on a network that is cut, with locks
//	lock the lanes' rows           waits for commits that are on their way, and then sees them
//	write the next epoch           later commits of old lanes find no row of their epoch, and fail
func (l *layout) takeOver(ctx context.Context, conn *pgconn.PgConn, claim sink.Claim) (next sink.State, err error) {
	if err := exec(ctx, conn, "BEGIN"); err != nil {
		return next, classify(err)
	}
	defer func() {
		if err != nil {
			hangUp(conn) // nothing of it is committed
		}
	}()
	head, err := query(ctx, conn, "SELECT owner, queue, epoch FROM "+l.progress+" WHERE instance = $1 AND lane = -1 FOR UPDATE", claim.Instance)
	if err != nil {
		return next, classify(err)
	}
	var old *sink.State
	if len(head) == 1 {
		old = &sink.State{Owner: string(head[0][0]), Queue: number(head[0][1]), Epoch: number(head[0][2])}
		if !claim.Held || old.Owner == claim.Owner {
			if _, err := query(ctx, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = $1 AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()`, appName(claim.Instance)); err != nil {
				return next, classify(err)
			}
		}
		lanes, err := query(ctx, conn, "SELECT batch, watermark, ids FROM "+l.progress+" WHERE instance = $1 AND lane >= 0 ORDER BY lane FOR UPDATE", claim.Instance)
		if err != nil {
			return next, classify(err)
		}
		for _, r := range lanes {
			ids, err := bytea(r[2])
			if err != nil {
				return next, err
			}
			old.Lanes = append(old.Lanes, sink.LaneState{Batch: number(r[0]), Watermark: number(r[1]), IDs: ids})
		}
	}
	if next, err = claim.Next(old); err != nil {
		return next, err
	}
	if _, err := query(ctx, conn, "DELETE FROM "+l.progress+" WHERE instance = $1", claim.Instance); err != nil {
		return next, classify(err)
	}
	for i := -1; i < len(next.Lanes); i++ {
		s := sink.LaneState{IDs: sink.AppendIDs(nil, nil)}
		if i >= 0 {
			s = next.Lanes[i]
		}
		if _, err := query(ctx, conn, "INSERT INTO "+l.progress+" (instance, lane, sink, owner, queue, epoch, batch, watermark, ids) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
			claim.Instance, strconv.Itoa(i), claim.Sink, next.Owner, text(next.Queue), text(next.Epoch), text(s.Batch), text(s.Watermark),
			fmt.Sprintf(`\x%x`, s.IDs)); err != nil {
			return next, classify(err)
		}
	}
	if err := exec(ctx, conn, "COMMIT"); err != nil {
		return next, classify(err)
	}
	return next, nil
}

func text(n uint64) string { return strconv.FormatUint(n, 10) }

// number reads what text wrote; the columns are bigint, so it is a number.
func number(b []byte) uint64 {
	n, _ := strconv.ParseUint(string(b), 10, 64)
	return n
}

// bytea reads PostgreSQL's hexadecimal form.
func bytea(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != '\\' || b[1] != 'x' {
		return nil, &sink.Error{Class: sink.Down, Row: -1, Reason: "PostgreSQL gave a bytea that is not in hexadecimal form; leave bytea_output at hex"}
	}
	out := make([]byte, 0, len(b)/2)
	for i := 2; i+1 < len(b); i += 2 {
		n, err := strconv.ParseUint(string(b[i:i+2]), 16, 8)
		if err != nil {
			return nil, &sink.Error{Class: sink.Down, Row: -1, Reason: "PostgreSQL gave a bytea that cannot be read", Err: err}
		}
		out = append(out, byte(n))
	}
	return out, nil
}
