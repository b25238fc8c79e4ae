package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// progressName is the name of the progress table. It is in the schema of the target table, so it
// does not depend on search_path.
func progressName(schema string) string {
	return sink.QuoteName(schema) + ".surgetank_progress"
}

// createProgress creates the progress table. The row of lane -1 has the progress of the sink as a
// whole and is the lock of takeOver. fillfactor leaves room for updates in place. Autovacuum runs
// often because every batch makes one dead row.
func createProgress(schema string) string {
	return "CREATE TABLE IF NOT EXISTS " + progressName(schema) + ` (
	instance text NOT NULL, lane int NOT NULL, sink text NOT NULL, owner text NOT NULL, queue bigint NOT NULL, epoch bigint NOT NULL,
	batch bigint NOT NULL, watermark bigint NOT NULL, ids bytea NOT NULL, updated timestamptz NOT NULL DEFAULT now(), ` + timelineColumns("") + `,
	PRIMARY KEY (instance, lane)) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0)`
}

// timelineColumns are the columns for comparing the histories of queue and target. Tables of older
// versions lack them.
func timelineColumns(before string) string {
	return before + `incarnation bigint NOT NULL DEFAULT 0, ` + before + `entry bigint NOT NULL DEFAULT 0, ` +
		before + `applied bigint NOT NULL DEFAULT 0, ` + before + `known bytea NOT NULL DEFAULT ''`
}

// upgradeProgress adds the columns that a progress table of an older version lacks.
func upgradeProgress(schema string) string {
	return "ALTER TABLE " + progressName(schema) + " " + timelineColumns("ADD COLUMN IF NOT EXISTS ")
}

// takeOver makes this opening the owner of the progress: after that, no commit of an older opening
// can succeed.
//
//	read without locks             do queue and target contradict each other? Then stop without a change
//	lock the row of lane -1        of two openings one waits
//	another owner has taken it?    then stop, too
//	end the old connections        they may hang on a broken network while they have locks
//	lock the lanes' rows           waits for commits in flight, and then sees them
//	write the next epoch           later commits of old lanes find no row of their epoch, and fail
func (l *layout) takeOver(ctx context.Context, conn *pgconn.PgConn, claim sink.Claim) (next sink.State, err error) {
	seen, err := l.stored(ctx, conn, claim.Instance)
	if err != nil {
		return next, err
	}
	if _, err := claim.Next(seen); err != nil {
		return next, err
	}
	if err := exec(ctx, conn, "BEGIN ISOLATION LEVEL READ COMMITTED"); err != nil {
		return next, classify(err)
	}
	defer func() {
		if err != nil {
			hangUp(conn) // nothing was committed
		}
	}()
	head, err := query(ctx, conn, "SELECT owner FROM "+l.progress+" WHERE instance = $1 AND lane = -1 FOR UPDATE", claim.Instance)
	if err != nil {
		return next, classify(err)
	}
	if len(head) == 1 {
		if claim.LastEpoch == 0 || string(head[0][0]) == claim.Owner {
			if _, err := query(ctx, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = $1 AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()`, appName(claim.Instance)); err != nil {
				return next, classify(err)
			}
		}
		if _, err := query(ctx, conn, "SELECT 1 FROM "+l.progress+" WHERE instance = $1 AND lane >= 0 ORDER BY lane FOR UPDATE", claim.Instance); err != nil {
			return next, classify(err)
		}
	}
	old, err := l.stored(ctx, conn, claim.Instance)
	if err != nil {
		return next, err
	}
	if next, err = claim.Next(old); err != nil {
		return next, err
	}
	if _, err := query(ctx, conn, "DELETE FROM "+l.progress+" WHERE instance = $1", claim.Instance); err != nil {
		return next, classify(err)
	}
	for i := -1; i < len(next.Lanes); i++ {
		s, known, incarnation := sink.LaneState{Entry: next.Before.Entry, Applied: next.Base, IDs: next.Settled}, next.Known, next.Before.Incarnation
		if i >= 0 {
			s, known, incarnation = next.Lanes[i], nil, next.Incarnation
		}
		if _, err := query(ctx, conn, "INSERT INTO "+l.progress+` (instance, lane, sink, owner, queue, epoch, batch, watermark, ids, incarnation, entry, applied, known)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
			claim.Instance, strconv.Itoa(i), claim.Sink, next.Owner, text(next.Queue), text(next.Epoch), text(s.Batch), text(s.Watermark),
			fmt.Sprintf(`\x%x`, s.IDs), text(incarnation), text(s.Entry), text(s.Applied), fmt.Sprintf(`\x%x`, known)); err != nil {
			return next, classify(err)
		}
	}
	if err := exec(ctx, conn, "COMMIT"); err != nil {
		return next, classify(err)
	}
	return next, nil
}

// stored reads the progress of all lanes of an instance in one snapshot. It returns nil if there is
// none.
func (l *layout) stored(ctx context.Context, conn *pgconn.PgConn, instance string) (*sink.State, error) {
	rows, err := query(ctx, conn, `SELECT lane, owner, queue, epoch, batch, watermark, ids, incarnation, entry, applied, known,
		(extract(epoch FROM updated) * 1000000)::bigint FROM `+l.progress+" WHERE instance = $1 ORDER BY lane", instance)
	if err != nil {
		return nil, classify(err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if string(rows[0][0]) != "-1" {
		return nil, &sink.Error{Class: sink.Refused, Row: -1, Reason: fmt.Sprintf(
			"table %s lacks the row of lane -1 of this sink; restore it, or delete the sink and set it again", l.progress)}
	}
	s := &sink.State{}
	for i, r := range rows {
		ids, err := bytea(r[6])
		if err != nil {
			return nil, err
		}
		if at := time.UnixMicro(int64(number(r[11]))); at.After(s.Updated) {
			s.Updated = at
		}
		if i > 0 {
			s.Incarnation = number(r[7])
			s.Lanes = append(s.Lanes, sink.LaneState{Batch: number(r[4]), Watermark: number(r[5]), Entry: number(r[8]), Applied: number(r[9]), IDs: ids})
			continue
		}
		s.Owner, s.Queue, s.Epoch, s.Settled = string(r[1]), number(r[2]), number(r[3]), ids
		s.Before, s.Base = sink.Position{Incarnation: number(r[7]), Entry: number(r[8])}, number(r[9])
		if s.Known, err = bytea(r[10]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// text writes a number for a bigint column. The column is signed and incarnations use all 64 bits,
// so a large incarnation becomes negative.
func text(n uint64) string { return strconv.FormatInt(int64(n), 10) }

// number reads what text wrote. The column is bigint, so the value is always a number.
func number(b []byte) uint64 {
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return uint64(n)
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
