//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// postgres is a target in the round's own PostgreSQL server. The table is in a database d, so a
// dump can be restored under another name and then renamed to d.
type postgres struct {
	w       *world
	s       *pgtest.Server
	standby *pgtest.Server
}

func (w *world) newPostgres(parent string) (database, error) {
	if err := os.Chmod(parent, 0o755); err != nil { // the server runs as another user
		return nil, err
	}
	s, err := pgtest.NewFrom(w.pgBin, w.template, parent)
	if err != nil {
		return nil, err
	}
	p := &postgres{w: w, s: s}
	return p, p.admin("CREATE DATABASE d")
}

func (p *postgres) close() {
	if p.standby != nil {
		p.standby.End()
	}
	p.s.Close()
}

func (p *postgres) spec(*world) map[string]any { return map[string]any{"dsn": p.s.DSN("d")} }

// audit creates the table of writes, and the trigger that fills this table. The trigger runs in the
// transaction of the write, before conflicts are checked.
const audit = `CREATE TABLE audit_t (at bigserial PRIMARY KEY, n bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit_t (n) VALUES (NEW.n); RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT ON rows_t FOR EACH ROW EXECUTE FUNCTION note();`

// calm and slow are bodies of the trigger. With slow, each row makes its statement longer.
const (
	calmTrigger = `CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit_t (n) VALUES (NEW.n); RETURN NEW; END $$`
	slowTrigger = `CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit_t (n) VALUES (NEW.n); PERFORM pg_sleep(0.003); RETURN NEW; END $$`
)

func (p *postgres) create(w *world) error {
	sql := `CREATE TABLE rows_t (n bigint, g text, k text, v numeric(12,2), s varchar(14), i integer CHECK (i >= 0), j jsonb,
		d text DEFAULT 'd0', u text NOT NULL)`
	switch {
	case w.plan.partitioned:
		sql += " PARTITION BY RANGE (n);" + partitions(0, w.upto)
	case w.plan.mode == judge.Nothing:
		sql += "; CREATE UNIQUE INDEX ON rows_t (n);"
	case w.plan.mode == judge.Update:
		sql += "; CREATE UNIQUE INDEX ON rows_t (k);"
	default:
		sql += ";"
	}
	return p.exec(sql + audit)
}

// width is the number of messages in a partition.
const width = 100

// partitions returns statements that create the partitions for a range of numbers.
func partitions(from, to int) (sql string) {
	for n := from; n < to; n += width {
		sql += fmt.Sprintf("CREATE TABLE rows_%d PARTITION OF rows_t FOR VALUES FROM (%d) TO (%d);", n, n, n+width)
	}
	return sql
}

func (p *postgres) exec(sql string) error  { return p.in("d", sql) }
func (p *postgres) admin(sql string) error { return p.in("postgres", sql) }

func (p *postgres) in(database, sql string) error {
	ctx, cancel := context.WithTimeout(p.w.ctx, 20*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, p.s.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, s := range []string{"SET statement_timeout = 0", "SET lock_timeout = 0", sql} { // only the sink must have the round's time-outs
		if _, err := conn.Exec(ctx, s).ReadAll(); err != nil {
			return fmt.Errorf("%.60s: %w", s, err)
		}
	}
	return nil
}

func (p *postgres) applied() ([]int, error) { return p.list("SELECT n FROM audit_t ORDER BY at") }
func (p *postgres) gone() ([]int, error)    { return p.list("SELECT n FROM gone_t") }

func (p *postgres) list(sql string) ([]int, error) {
	rows, err := pgtest.Query(p.s.DSN("d"), sql)
	if err != nil {
		return nil, err
	}
	return numbers(rows)
}

func numbers(rows [][]string) ([]int, error) {
	list := make([]int, len(rows))
	for i, r := range rows {
		n, err := strconv.Atoi(r[0])
		if err != nil {
			return nil, err
		}
		list[i] = n
	}
	return list, nil
}

func (p *postgres) rows(*world) ([]judge.Row, error) {
	rows, err := pgtest.Query(p.s.DSN("d"), `SELECT n, coalesce(k,''), coalesce(v::text,''), coalesce(s,''), coalesce(i::text,''), coalesce(j::text,''), coalesce(d,''), coalesce(u,'') FROM rows_t`)
	if err != nil {
		return nil, err
	}
	return rowsOf(rows)
}

// rowsOf converts the columns n, k, v, s, i, j, d, u to rows.
func rowsOf(rows [][]string) ([]judge.Row, error) {
	list := make([]judge.Row, len(rows))
	for i, r := range rows {
		n, err := strconv.Atoi(r[0])
		if err != nil {
			return nil, err
		}
		list[i] = judge.Row{N: n, Key: r[1], Cells: map[string]string{"v": r[2], "s": r[3], "i": r[4], "j": r[5], "d": r[6], "u": r[7]}}
	}
	return list, nil
}

func (p *postgres) kill() error  { return p.s.Kill() }
func (p *postgres) start() error { return p.s.Start() }

func (p *postgres) restart() error {
	if err := p.s.Stop(); err != nil {
		return err
	}
	return p.s.Start()
}

// cut closes the connections of the sinks.
func (p *postgres) cut() error {
	return p.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'd'")
}

// program runs one of PostgreSQL's programs against the server.
func (p *postgres) program(name string, args ...string) error {
	_, port, _ := cutLast(p.s.Addr())
	args = append([]string{"-h", "127.0.0.1", "-p", port, "-U", "postgres"}, args...)
	out, err := exec.CommandContext(p.w.ctx, filepath.Join(p.w.pgBin, name), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func (p *postgres) save(to, how string) (*savedTarget, error) {
	s := &savedTarget{how: how, path: to}
	switch how {
	case "dump":
		return s, p.program("pg_dump", "-Fc", "-f", to, "d")
	case "files":
		if err := p.s.Kill(); err != nil {
			return nil, err
		}
		if err := pgtest.CopyTree(p.s.DataDir(), to); err != nil {
			return nil, err
		}
		return s, p.s.Start()
	}
	var err error
	if p.standby, err = p.s.Standby(); err != nil {
		return nil, err
	}
	p.w.advance(20)
	return s, p.standby.StopFollowing(p.w.ctx)
}

func (p *postgres) restore(s *savedTarget) error {
	switch s.how {
	case "dump":
		if err := p.admin("CREATE DATABASE d2"); err != nil {
			return err
		}
		if err := p.program("pg_restore", "-d", "d2", s.path); err != nil {
			return err
		}
		// If a client connects before the renaming, the renaming fails and is tried again.
		for try := 0; ; try++ {
			err := p.admin("DROP DATABASE IF EXISTS d WITH (FORCE)")
			if err == nil {
				err = p.admin("ALTER DATABASE d2 RENAME TO d")
			}
			if err == nil || try == 20 {
				return err
			}
		}
	case "files":
		if err := p.s.Kill(); err != nil {
			return err
		}
		if err := os.RemoveAll(p.s.DataDir()); err != nil {
			return err
		}
		if err := pgtest.CopyTree(s.path, p.s.DataDir()); err != nil {
			return err
		}
		return p.s.Start()
	}
	err := p.s.TakeOver(p.w.ctx, p.standby)
	p.standby = nil
	return err
}

// cutLast splits an address at its last colon into host and port.
func cutLast(addr string) (host, port string, ok bool) {
	for i := len(addr) - 1; i >= 0; i-- {
		if addr[i] == ':' {
			return addr[:i], addr[i+1:], true
		}
	}
	return addr, "", false
}
