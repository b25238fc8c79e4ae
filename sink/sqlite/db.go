package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// db is one connection, used by one goroutine at a time. It calls the driver directly: for one
// connection, database/sql's pool and conversions would cost more than the statements.
type db struct {
	conn driver.Conn
	path string
	file os.FileInfo // identity of the open file
	wal  os.FileInfo // identity of its write-ahead log
}

// busyWait sets how long SQLite waits for another process's transaction before it returns
// SQLITE_BUSY.
const busyWait = "PRAGMA busy_timeout = 5000"

// open opens a file. It creates the file only if create is true. The error is a *surgetank.Error.
func open(ctx context.Context, path string, create bool) (*db, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, surgetank.FieldErrorf("sqlite.path", "sqlite.path %q: %v", path, err)
	}
	slash := filepath.ToSlash(abs)
	if !strings.HasPrefix(slash, "/") {
		slash = "/" + slash // C:/…
	}
	mode := "rw"
	if create {
		mode = "rwc"
	}
	before, stat := os.Stat(abs)
	conn, err := (&sqlite.Driver{}).Open((&url.URL{Scheme: "file", Path: slash, RawQuery: "mode=" + mode}).String())
	if err != nil {
		return nil, unusable(path, err)
	}
	d := &db{conn: conn, path: abs}
	for _, pragma := range []string{busyWait, "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON"} {
		if err := d.exec(ctx, pragma); err != nil {
			d.close()
			return nil, unusable(path, err)
		}
	}
	// Reading opens the write-ahead log.
	rows, err := d.query(ctx, "SELECT journal_mode FROM pragma_journal_mode, (SELECT count(*) FROM sqlite_schema)")
	if err != nil {
		d.close()
		return nil, unusable(path, err)
	}
	if len(rows) != 1 || rows[0][0] != "wal" {
		d.close()
		return nil, surgetank.Errorf(surgetank.CodeInvalid, "the SQLite file %s cannot be put into WAL mode; put it on a local file system that supports shared memory", path)
	}
	if d.file, err = os.Stat(abs); err == nil && stat == nil && !os.SameFile(before, d.file) {
		err = errors.New("it was replaced at the same moment")
	}
	if err == nil {
		d.wal, err = os.Stat(abs + walSuffix)
	}
	if err != nil {
		d.close()
		return nil, unusable(path, err)
	}
	return d, nil
}

const walSuffix = "-wal"

// same fails if the open files were deleted, moved or replaced, so that the path no longer leads to
// them. SQLite would continue to write to the deleted files, and its commits would be lost when the
// files are closed.
func (d *db) same() error {
	for i, open := range [...]os.FileInfo{d.file, d.wal} {
		path := d.path
		if i == 1 {
			path += walSuffix
		}
		now, err := os.Stat(path)
		switch {
		case err != nil:
			return &sink.Error{Class: sink.Down, Row: -1, Err: err, Reason: fmt.Sprintf("the SQLite file %s is gone while the sink uses it: %v", path, err)}
		case !os.SameFile(now, open):
			return &sink.Error{Class: sink.Stale, Row: -1, Reason: fmt.Sprintf("the SQLite file %s was replaced while the sink used it", path)}
		}
	}
	return nil
}

func unusable(path string, err error) error {
	return &surgetank.Error{Code: surgetank.CodeInvalid, Field: "sqlite.path", Err: err,
		Message: fmt.Sprintf("the SQLite file %s cannot be opened: %v; check the path and its permissions, or let create_table make it", path, err)}
}

func (d *db) close() {
	// An error here has no consequence: committed data is on disk.
	_ = d.conn.Close()
}

// rollback ends a transaction that is no longer needed. It fails only if there is no transaction.
func (d *db) rollback() { _ = d.exec(context.Background(), "ROLLBACK") }

func named(args []driver.Value) []driver.NamedValue {
	list := make([]driver.NamedValue, len(args))
	for i, a := range args {
		list[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return list
}

func (d *db) exec(ctx context.Context, query string, args ...driver.Value) error {
	_, err := d.conn.(driver.ExecerContext).ExecContext(ctx, query, named(args))
	return err
}

// changes runs a statement and returns how many rows it changed.
func (d *db) changes(ctx context.Context, query string, args ...driver.Value) (int64, error) {
	res, err := d.conn.(driver.ExecerContext).ExecContext(ctx, query, named(args))
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (d *db) query(ctx context.Context, query string, args ...driver.Value) (out [][]driver.Value, err error) {
	rows, err := d.conn.(driver.QueryerContext).QueryContext(ctx, query, named(args))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for {
		row := make([]driver.Value, len(rows.Columns()))
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = append([]byte{}, b...)
			}
		}
		out = append(out, row)
	}
}

// SQLite's primary result codes (https://sqlite.org/rescode.html) that decide about a batch.
const (
	codeError      = 1
	codeBusy       = 5
	codeLocked     = 6
	codeNoMemory   = 7
	codeTooBig     = 18
	codeConstraint = 19
	codeMismatch   = 20

	// Extended codes of codeConstraint.
	codeForeignKey = codeConstraint | 3<<8
	codeNotNull    = codeConstraint | 5<<8
	codeTrigger    = codeConstraint | 7<<8
)

// classify returns the class of an error of a batch. An unknown error is Down: no message is parked
// or lost, and the sink's status shows the error.
func classify(err error) error {
	if err == nil {
		return nil
	}
	var known *sink.Error
	if errors.As(err, &known) {
		return known
	}
	out := &sink.Error{Class: sink.Down, Row: -1, Reason: "SQLite: " + err.Error(), Err: err}
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case codeBusy, codeLocked:
			out.Class = sink.Retry
		case codeNoMemory:
			out.Class = sink.TooLarge
		case codeTooBig, codeConstraint, codeMismatch:
			out.Class = sink.BadRow
		}
		switch e.Code() {
		case codeForeignKey:
			out.Class = sink.Reference
		case codeTrigger: // RAISE, which does not show whether the row or the table is at fault
			out.Class = sink.Suspect
		}
	}
	return out
}

// schemaVersion returns a number in the file that grows with every change of a table's columns.
func (d *db) schemaVersion(ctx context.Context) (int64, error) {
	rows, err := d.query(ctx, "PRAGMA schema_version")
	if err != nil {
		return 0, err
	}
	if len(rows) == 1 {
		if n, ok := rows[0][0].(int64); ok {
			return n, nil
		}
	}
	return 0, errors.New("SQLite gave no schema_version")
}
