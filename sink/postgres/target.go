// Package postgres writes the messages of a queue into a table of a PostgreSQL database.
//
// A batch is one round trip: one simple-protocol query. It locks the table against changes of its
// columns and compares the columns with those that the rows were made for. Then it updates the
// lane's progress and copies the rows. PostgreSQL runs the query as one transaction, so all of it
// commits or none of it does:
//
//	sink → server   Query "LOCK TABLE t …; EXECUTE surgetank_guard (…); WITH moved AS (UPDATE surgetank_progress …) SELECT …; COPY t FROM STDIN"
//	                CopyData … CopyDone
//	server → sink   one answer: committed, or the error that rolled it back
//
// Rows are usually copied straight into the table. If COPY is not enough, the same query copies
// them into a temporary staging table first: with on_conflict, for missing fields that get their
// column's default, and with row-level security.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// Target is one table of one database. Make it with New.
type Target struct {
	spec   sink.Spec
	config *pgconn.Config
	table  []string                // schema and name, or name
	first  *conn                   // connection of an unfinished Open
	lanes  []*lane                 // lanes of the last Open
	keys   map[string]sink.KeyForm // see readKeys
}

// New makes a target for a spec of kind "postgres" without opening it. It is a sink.Factory.
func New(spec sink.Spec) (sink.Target, error) {
	if spec.Kind != "postgres" {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "the postgres target was given settings for %s", spec.Kind)
	}
	config, err := parseDSN(spec.Address)
	if refused := (*surgetank.Error)(nil); errors.As(err, &refused) {
		return nil, refused
	}
	if err != nil {
		// The cause may quote the address. In an unreadable address the password cannot be located.
		return nil, surgetank.FieldErrorf("postgres.dsn", "postgres.dsn cannot be read; write postgres://user:password@host:5432/database, with %%-escapes for / ? # @ : %% in the password, or host=… user=… password='…' dbname=…")
	}
	parts, err := sink.SplitTable(spec.Table.Table)
	if err != nil {
		return nil, surgetank.FieldErrorf("postgres.table", "postgres.table: %s", err)
	}
	if len(spec.Table.Columns) > maxColumns {
		return nil, surgetank.FieldErrorf("postgres.columns", "postgres.columns: at most %d columns", maxColumns)
	}
	// A lost peer must be noticed sooner than after the system's two hours.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	config.DialFunc = dialer.DialContext
	return &Target{spec: spec, config: config, table: parts}, nil
}

// maxColumns leaves room for the staging table's own columns: PostgreSQL's limit is 1600.
const maxColumns = 1500

// Check connects, creates missing tables as configured, and compares the table and the permissions
// with the settings.
func (t *Target) Check(ctx context.Context) error {
	c, err := t.connect(ctx, "surgetank check")
	if err != nil {
		return t.unreachable(err)
	}
	defer goodbye(c.PgConn)
	if t.spec.Table.Create {
		if err := t.create(ctx, c.PgConn); err != nil {
			return err
		}
	}
	l, err := t.read(ctx, c.PgConn)
	if err != nil {
		return err
	}
	if err := t.makeProgress(ctx, c.PgConn, l.found.schema); err != nil {
		return err
	}
	return t.permissions(ctx, c.PgConn, l)
}

// unreachable converts an error of the connection to a *surgetank.Error. It returns
// a *surgetank.Error unchanged.
func (t *Target) unreachable(err error) error {
	var known *surgetank.Error
	if errors.As(err, &known) {
		return err
	}
	return &surgetank.Error{Code: surgetank.CodeInvalid, Field: "postgres.dsn", Err: err,
		Message: fmt.Sprintf("PostgreSQL at %s cannot be used: %v; check the address and that the server runs", t.spec.Redacted().Address, err)}
}

// Open makes this opening the owner of the progress. Lane 0 keeps the connection; the other lanes
// connect when they have rows to write. So only one connection probes a database that is down or
// refuses connections.
func (t *Target) Open(ctx context.Context, claim sink.Claim) (sink.State, []sink.Lane, error) {
	first, err := t.connect(ctx, appName(claim.Instance))
	if err != nil {
		return sink.State{}, nil, err
	}
	t.first = first
	if t.spec.Table.Create {
		if err := t.createAgain(ctx, first.PgConn, claim); err != nil {
			return sink.State{}, nil, err
		}
	}
	l, err := t.read(ctx, first.PgConn)
	if err != nil {
		return sink.State{}, nil, err
	}
	// If surgetank_progress is missing, the claim knows whether the table contained progress of
	// this sink.
	if err := t.makeProgress(ctx, first.PgConn, l.found.schema); err != nil {
		return sink.State{}, nil, err
	}
	if err := t.permissions(ctx, first.PgConn, l); err != nil {
		return sink.State{}, nil, err
	}
	if err := t.readKeys(ctx, first.PgConn); err != nil {
		return sink.State{}, nil, err
	}
	state, err := l.takeOver(ctx, first.PgConn, claim)
	if err != nil {
		return sink.State{}, nil, err
	}
	lanes := make([]sink.Lane, claim.Lanes)
	for i := range lanes {
		lane := newLane(t, l, claim, i)
		t.lanes = append(t.lanes, lane)
		lanes[i] = lane
	}
	t.lanes[0].conn, t.first = first, nil
	return state, lanes, nil
}

// Close closes all connections. No lane may be in use.
func (t *Target) Close() {
	if t.first != nil {
		hangUp(t.first.PgConn)
	}
	for _, l := range t.lanes {
		if l.conn != nil {
			hangUp(l.conn.PgConn)
		}
	}
	t.first, t.lanes = nil, nil
}

// Forget removes an instance's progress when its sink is deleted.
func (t *Target) Forget(ctx context.Context, instance string) error {
	c, err := t.connect(ctx, "surgetank check")
	if err != nil {
		return err
	}
	defer goodbye(c.PgConn)
	table, err := t.find(ctx, c.PgConn)
	if err != nil {
		return err
	}
	if _, err := query(ctx, c.PgConn, "DELETE FROM "+progressName(table.schema)+" WHERE instance = $1", instance); err != nil {
		return classify(err)
	}
	return nil
}
