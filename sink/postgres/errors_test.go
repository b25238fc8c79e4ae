package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

func TestWhatAnErrorMeans(t *testing.T) {
	l := &layout{columns: []column{{Column: sink.Column{Name: "v"}}}}
	for _, c := range []struct {
		pg   pgconn.PgError
		want sink.Class
	}{
		{pgconn.PgError{Code: "23502", ColumnName: "v"}, sink.BadRow},
		{pgconn.PgError{Code: "23502", ColumnName: "tenant"}, sink.TableFault},
		{pgconn.PgError{Code: "23505", Detail: "Key (v)=(1) already exists."}, sink.BadRow},
		{pgconn.PgError{Code: "23505", Detail: "Schlüssel »(id, w)=(1, 2)« existiert bereits."}, sink.Suspect},
		{pgconn.PgError{Code: "23514", ConstraintName: "c"}, sink.BadRow},
		{pgconn.PgError{Code: "23514"}, sink.TableFault},
		{pgconn.PgError{Code: "23503"}, sink.Reference},
		{pgconn.PgError{Code: "22P02", Where: "COPY t, line 3, column v: \"a\nb\""}, sink.BadRow},
		{pgconn.PgError{Code: "22P02", Where: "COPY t, Zeile 3, Spalte v: »x«"}, sink.BadRow},
		{pgconn.PgError{Code: "22P05", Where: "JSON data, line 1: {\"a\nCOPY t, line 1, column v: \"x\""}, sink.BadRow},
		{pgconn.PgError{Code: "22012", Where: "PL/pgSQL function f() line 1 at PERFORM\nCOPY t, line 1"}, sink.Suspect},
		{pgconn.PgError{Code: "42P01", Where: "PL/pgSQL-Funktion f() Zeile 1 bei SQL-Anweisung"}, sink.Suspect},
		{pgconn.PgError{Code: "42P01"}, sink.Down},
		{pgconn.PgError{Code: "2200H"}, sink.TableFault},
		{pgconn.PgError{Code: "0A000"}, sink.Suspect},
		{pgconn.PgError{Code: "0A000", Routine: "DoCopy"}, sink.Down},
		{pgconn.PgError{Code: "XX000"}, sink.Suspect},
		{pgconn.PgError{Code: "XX000", Severity: "PANIC"}, sink.Down},
		{pgconn.PgError{Code: "ZZ001"}, sink.Suspect},
		{pgconn.PgError{Code: "57014"}, sink.TooLarge},
		{pgconn.PgError{Code: "53200"}, sink.TooLarge},
		{pgconn.PgError{Code: "53100"}, sink.Retry},
		{pgconn.PgError{Code: "25P04", Severity: "FATAL"}, sink.TooLarge},
		{pgconn.PgError{Code: "57P01", Severity: "FATAL"}, sink.Down},
		{pgconn.PgError{Code: "25006"}, sink.Down},
		{pgconn.PgError{Code: "40P01"}, sink.Retry},
		{pgconn.PgError{Code: "55P03"}, sink.Retry},
		{pgconn.PgError{Code: "08001"}, sink.TableFault},
		{pgconn.PgError{Code: "08P01", Severity: "FATAL"}, sink.Down},
	} {
		if c.pg.Severity == "" {
			c.pg.Severity = "ERROR"
		}
		if e, ok := l.rowError(&c.pg).(*sink.Error); !ok || e.Class != c.want {
			t.Errorf("%s in %q: %v, want %v", c.pg.Code, c.pg.Where, e.Class, c.want)
		}
	}
}

// A server that has too little of something asks for less load. A deadlock does not.
func TestWhatIsBusy(t *testing.T) {
	for code, want := range map[string]bool{"53100": true, "53200": true, "53300": true, "40P01": false, "55P03": false, "57P01": false} {
		if e, ok := classify(&pgconn.PgError{Code: code, Severity: "ERROR"}).(*sink.Error); !ok || e.Busy != want {
			t.Errorf("%s: busy %v, want %v", code, e.Busy, want)
		}
	}
}
