//go:build linux

package main

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/test/targets/judge"
)

// lite is a target in an SQLite file, in a directory of its own.
type lite struct {
	w    *world
	path string
}

func (w *world) newSQLite(parent string) (database, error) {
	dir := filepath.Join(parent, "sqlite")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &lite{w: w, path: filepath.Join(dir, "t.db")}, nil
}

func (l *lite) close() {}

func (l *lite) spec(*world) map[string]any { return map[string]any{"path": l.path} }

// liteColumns are the initial columns of the table. Migrations rebuild the table with other
// columns.
var liteColumns = []string{"n INTEGER", "g TEXT", "k TEXT", "v REAL", "s TEXT CHECK (length(s) <= 14)", "i INTEGER CHECK (i >= 0)", "j TEXT",
	"d TEXT DEFAULT 'd0'", "u TEXT NOT NULL"}

const liteTrigger = "CREATE TRIGGER note BEFORE INSERT ON rows_t BEGIN INSERT INTO audit_t (n) VALUES (NEW.n); END;"

func (l *lite) index() string {
	switch l.w.plan.mode {
	case judge.Nothing:
		return "CREATE UNIQUE INDEX rows_key ON rows_t (n);"
	case judge.Update:
		return "CREATE UNIQUE INDEX rows_key ON rows_t (k);"
	}
	return ""
}

func (l *lite) create(*world) error {
	return l.exec("PRAGMA journal_mode = WAL; CREATE TABLE audit_t (at INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER);" +
		"CREATE TABLE rows_t (" + strings.Join(liteColumns, ", ") + ");" + l.index() + liteTrigger)
}

// rebuild returns SQLite's usual statements for changing a table: create a new table, copy the
// rows, rename the new table.
func (l *lite) rebuild(columns []string) string {
	return "BEGIN IMMEDIATE; CREATE TABLE rows_new (" + strings.Join(columns, ", ") + "); INSERT INTO rows_new SELECT * FROM rows_t;" +
		"DROP TABLE rows_t; ALTER TABLE rows_new RENAME TO rows_t;" + l.index() + liteTrigger + "COMMIT;"
}

// open opens the file as another program would. Only the mode for creation makes a new file.
func (l *lite) open(mode string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+l.path+"?mode="+mode+"&_pragma=busy_timeout(20000)&_pragma=synchronous(off)")
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

func (l *lite) exec(statements string) (err error) {
	db, err := l.open("rwc")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(l.w.ctx, statements)
	return err
}

func (l *lite) query(q string) (list [][]string, err error) {
	db, err := l.open("rw")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(l.w.ctx, q)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Err(), rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		row := make([]string, len(columns))
		into := make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, nil
}

func (l *lite) applied() ([]int, error) { return l.list("SELECT n FROM audit_t ORDER BY at") }
func (l *lite) gone() ([]int, error)    { return l.list("SELECT n FROM gone_t") }

func (l *lite) list(sql string) ([]int, error) {
	rows, err := l.query(sql)
	if err != nil {
		return nil, err
	}
	return numbers(rows)
}

func (l *lite) rows(*world) ([]judge.Row, error) {
	rows, err := l.query(`SELECT n, coalesce(k,''), coalesce(CAST(v AS TEXT),''), coalesce(s,''), coalesce(CAST(i AS TEXT),''), coalesce(j,''), coalesce(d,''), coalesce(u,'') FROM rows_t`)
	if err != nil {
		return nil, err
	}
	return rowsOf(rows)
}

// An SQLite file has no processes of its own.
func (l *lite) kill() error    { return nil }
func (l *lite) start() error   { return nil }
func (l *lite) restart() error { return nil }

// files lists the database's files.
func (l *lite) files() []string { return []string{l.path, l.path + "-wal", l.path + "-shm"} }

// save copies the database with VACUUM INTO, or copies its files while no server has them open.
func (l *lite) save(to, how string) (*savedTarget, error) {
	s := &savedTarget{how: how, path: to}
	if how == "dump" {
		return s, l.exec("VACUUM INTO '" + to + "'")
	}
	if err := l.w.first().stop(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return nil, err
	}
	for _, f := range l.files() {
		if _, err := os.Stat(f); err == nil {
			if err := pgtest.CopyTree(f, filepath.Join(to, filepath.Base(f))); err != nil {
				return nil, err
			}
		}
	}
	return s, l.w.first().start()
}

// remove deletes the database's files, as a user does.
func (l *lite) remove() error {
	for _, f := range l.files() {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// restore replaces the database by a copy. A dump is restored while the server runs, files while it
// does not.
func (l *lite) restore(s *savedTarget) error {
	if s.how == "dump" {
		beside := l.path + ".restored"
		if err := pgtest.CopyTree(s.path, beside); err != nil {
			return err
		}
		if err := l.remove(); err != nil {
			return err
		}
		return os.Rename(beside, l.path)
	}
	if err := l.w.first().stop(); err != nil {
		return err
	}
	if err := l.remove(); err != nil {
		return err
	}
	for _, f := range l.files() {
		saved := filepath.Join(s.path, filepath.Base(f))
		if _, err := os.Stat(saved); err == nil {
			if err := pgtest.CopyTree(saved, f); err != nil {
				return err
			}
		}
	}
	return l.w.first().start()
}
