package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// conn is one connection. With a pooler like PgBouncer, two transactions of one connection may run
// in different sessions of the server. So with a pooler no state may stay in a session: each
// transaction sets the settings and creates the staging table again.
type conn struct {
	*pgconn.PgConn
	pooled bool
}

// startup are settings sent with the start of the connection. PgBouncer applies them in every mode.
var startup = map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on", "TimeZone": "UTC", "DateStyle": "ISO, YMD"}

// settings are set once on a connection without a pooler. Times without a zone are read as UTC. A
// commit is on disk before the answer, whatever the database's default, because the message is
// acked after it. Each statement sees earlier commits, which the guard of a batch needs. If the
// peer of a connection is gone, the server ends the connection, so that it keeps no locks.
const settings = `SET bytea_output = 'hex'; SET client_min_messages = warning; SET idle_in_transaction_session_timeout = '60s';
SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off;
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`

// localSettings are set at the start of each transaction through a pooler.
const localSettings = `SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SELECT set_config('standard_conforming_strings', 'on', true),
set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true), set_config('bytea_output', 'hex', true),
set_config('client_min_messages', 'warning', true), set_config('idle_in_transaction_session_timeout', '60s', true),
set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true); `

// connect opens one connection. name identifies the connection to the database's administrator.
func (t *Target) connect(ctx context.Context, name string) (*conn, error) {
	config := t.config.Copy()
	for k, v := range startup {
		config.RuntimeParams[k] = v
	}
	config.RuntimeParams["application_name"] = name
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, classify(err)
	}
	c := &conn{PgConn: pg}
	// The server sends its process id at the start; a pooler sends an invented number.
	rows, err := query(ctx, pg, "SELECT pg_backend_pid()")
	switch {
	case err != nil:
	case number(rows[0][0]) == uint64(pg.PID()):
		err = exec(ctx, pg, settings)
	default:
		c.pooled = true
		if err := takesTransactions(ctx, pg); err != nil {
			hangUp(pg)
			return nil, refused("postgres.dsn", "the connection pooler at %s does not keep a transaction together: %v; set its pool_mode to transaction or session",
				t.spec.Redacted().Address, err)
		}
	}
	if err != nil {
		hangUp(pg)
		return nil, classify(err)
	}
	return c, nil
}

// takesTransactions fails if a pooler pools single statements.
func takesTransactions(ctx context.Context, pg *pgconn.PgConn) error {
	for _, sql := range []string{"BEGIN", "SELECT 1", "ROLLBACK"} {
		if err := exec(ctx, pg, sql); err != nil {
			return err
		}
	}
	return nil
}

// hangUp closes a connection without waiting for the server's answer.
func hangUp(pg *pgconn.PgConn) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = pg.Close(ctx) // the socket is closed in any case, and the server rolls back uncommitted work
}

// goodbyeWait limits the wait for the server's side of an orderly close.
const goodbyeWait = time.Second

// goodbye closes a connection in order, so the server logs nothing and frees the slot at once.
func goodbye(pg *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWait)
	defer cancel()
	_ = pg.Close(ctx) // the socket is closed in any case
}

func exec(ctx context.Context, pg *pgconn.PgConn, sql string) error {
	_, err := pg.Exec(ctx, sql).ReadAll()
	return err
}

// query runs one statement with text parameters. A nil value is null.
func query(ctx context.Context, pg *pgconn.PgConn, sql string, args ...string) ([][][]byte, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	r := pg.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	return r.Rows, r.Err
}

// appName is the name of an instance's connections. A new opening finds connections of older
// openings by this name.
func appName(instance string) string { return "surgetank sink " + instance[:min(len(instance), 32)] }
