// Package postgres writes the messages of a queue into a table of a PostgreSQL database.
//
// A batch is one round trip: one simple-protocol query that moves the lane's progress and copies the rows, which
// PostgreSQL runs as one transaction. All of it commits or none of it does:
//
//	sink → server   Query "WITH moved AS (UPDATE surgetank_progress …) SELECT 1/count(*) …; COPY t FROM STDIN"
//	                CopyData … CopyDone
//	server → sink   one answer: committed, or the error that undid it
//
// Rows go straight into the table. They take the way over a temporary staging table, within the same query, where COPY is not
// enough: with on_conflict, for fields that are missing and take their column's default, and under row-level security.
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
	table  []string // schema and name, or name
	conns  []*pgconn.PgConn
}

// New makes a target for a spec of kind "postgres"; nothing is opened yet. It is a sink.Factory.
func New(spec sink.Spec) (sink.Target, error) {
	if spec.Kind != "postgres" {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "the postgres target was given settings for %s", spec.Kind)
	}
	config, err := parseDSN(spec.Address)
	if refused := (*surgetank.Error)(nil); errors.As(err, &refused) {
		return nil, refused
	}
	if err != nil {
		// The cause may quote the address, and in an address that cannot be read nobody knows what the password is.
		return nil, surgetank.FieldErrorf("postgres.dsn", "postgres.dsn cannot be read; write postgres://user:password@host:5432/database, with %%-escapes for / ? # @ : %% in the password, or host=… user=… password='…' dbname=…")
	}
	parts, err := sink.SplitTable(spec.Table.Table)
	if err != nil {
		return nil, surgetank.FieldErrorf("postgres.table", "postgres.table: %s", err)
	}
	if len(spec.Table.Columns) > maxColumns {
		return nil, surgetank.FieldErrorf("postgres.columns", "postgres.columns: at most %d columns", maxColumns)
	}
	// A peer that is gone must be noticed without waiting for the system's two hours.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	config.DialFunc = dialer.DialContext
	return &Target{spec: spec, config: config, table: parts}, nil
}

// maxColumns leaves room below PostgreSQL's 1600 for the staging table's own columns.
const maxColumns = 1500

// settings are made on every connection. Times without a zone are taken as UTC. A commit is on disk before it is answered, whatever
// the database's default: the message is acked after it and would be lost with it. The server ends a
// connection whose peer is gone instead of keeping its locks.
const settings = `SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET bytea_output = 'hex';
SET client_min_messages = warning; SET idle_in_transaction_session_timeout = '60s';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`

// connect opens one connection. name is what the database's administrator sees.
func (t *Target) connect(ctx context.Context, name string) (*pgconn.PgConn, error) {
	config := t.config.Copy()
	config.RuntimeParams["application_name"] = name
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, classify(err)
	}
	if err := exec(ctx, conn, settings); err != nil {
		hangUp(conn)
		return nil, classify(err)
	}
	return conn, nil
}

// hangUp drops a connection without waiting for the server.
func hangUp(conn *pgconn.PgConn) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = conn.Close(ctx) // the socket is closed in any case, and the server undoes what was not committed
}

func exec(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}

// query runs one statement with text parameters; nil is null.
func query(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) ([][][]byte, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	r := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	return r.Rows, r.Err
}

// appName is the name of an instance's connections, by which a new opening finds those an older one left.
func appName(instance string) string { return "surgetank sink " + instance[:min(len(instance), 32)] }

// Check connects, makes what is to be made, and compares the table with the settings.
func (t *Target) Check(ctx context.Context) error {
	conn, err := t.connect(ctx, "surgetank check")
	if err != nil {
		return unreachable(t.spec, err)
	}
	defer hangUp(conn)
	_, err = t.prepare(ctx, conn)
	return err
}

func unreachable(spec sink.Spec, err error) error {
	return &surgetank.Error{Code: surgetank.CodeInvalid, Field: "postgres.dsn", Err: err,
		Message: fmt.Sprintf("PostgreSQL at %s cannot be used: %v; check the address and that the server runs", spec.Redacted().Address, err)}
}

// Open takes the progress over and connects the lanes. While the database is down, or refuses, this is the one connection that
// probes it.
func (t *Target) Open(ctx context.Context, claim sink.Claim) (sink.State, []sink.Lane, error) {
	first, err := t.add(ctx, claim)
	if err != nil {
		return sink.State{}, nil, err
	}
	layout, err := t.prepare(ctx, first)
	if err != nil {
		return sink.State{}, nil, err
	}
	state, err := layout.takeOver(ctx, first, claim)
	if err != nil {
		return sink.State{}, nil, err
	}
	lanes := make([]sink.Lane, claim.Lanes)
	for i := range lanes {
		conn := first
		if i > 0 {
			if conn, err = t.add(ctx, claim); err != nil {
				return sink.State{}, nil, err
			}
		}
		lanes[i] = newLane(conn, layout, claim.Instance, i)
	}
	return state, lanes, nil
}

func (t *Target) add(ctx context.Context, claim sink.Claim) (*pgconn.PgConn, error) {
	conn, err := t.connect(ctx, appName(claim.Instance))
	if err == nil {
		t.conns = append(t.conns, conn)
	}
	return conn, err
}

// Close drops all connections.
func (t *Target) Close() {
	for _, c := range t.conns {
		hangUp(c)
	}
	t.conns = nil
}

// Forget removes an instance's progress, when its sink is deleted.
func (t *Target) Forget(ctx context.Context, instance string) error {
	conn, err := t.connect(ctx, "surgetank check")
	if err != nil {
		return err
	}
	defer hangUp(conn)
	table, err := t.find(ctx, conn)
	if err != nil {
		return err
	}
	if _, err := query(ctx, conn, "DELETE FROM "+progressName(table.schema)+" WHERE instance = $1", instance); err != nil {
		return classify(err)
	}
	return nil
}
