package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// classify says what an error means for the batch, by its SQLSTATE (PostgreSQL documentation, appendix A):
//
//	22, 23, 44     data exception, integrity constraint, check option     the row's fault
//	54             program limit exceeded: a value too long for its index the row's fault
//	P0             raised by a trigger                                    the row's fault
//	21             two rows of a batch hit one row by on_conflict         split; a row alone never does
//	40, 53, 55     deadlock, serialization, resources, lock               the same batch again
//	57014          cancelled or statement_timeout                         the same batch again
//	all others     connection, shutdown, schema changed, permission …     target down: wait, lose nothing
func classify(err error) error {
	if err == nil {
		return nil
	}
	var known *sink.Error
	if errors.As(err, &known) {
		return known
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return &sink.Error{Class: sink.Down, Row: -1, Reason: "PostgreSQL: " + err.Error(), Err: err}
	}
	e := &sink.Error{Class: sink.Down, Row: -1, Reason: words(pg), Err: err}
	if len(pg.Code) != 5 {
		return e
	}
	switch pg.Code[:2] {
	case "21", "22", "23", "44", "54", "P0":
		e.Class, e.Row = sink.BadRow, copyLine(pg.Where)
	case "40", "53", "55":
		e.Class = sink.Retry
	}
	switch pg.Code {
	case "57014":
		e.Class = sink.Retry
	case "53300": // too many connections: only a new connection gets it
		e.Class = sink.Down
	case "55000", "55006", "55P02": // a state that does not pass by itself
		e.Class = sink.Down
	case "40002": // integrity constraint at the commit
		e.Class = sink.BadRow
	}
	return e
}

// words gives the database's own words in one line.
func words(pg *pgconn.PgError) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SQLSTATE %s", pg.Code)
	switch {
	case pg.ConstraintName != "":
		fmt.Fprintf(&b, " (%s)", pg.ConstraintName)
	case pg.ColumnName != "":
		fmt.Fprintf(&b, " (%s)", pg.ColumnName)
	}
	b.WriteString(": " + pg.Message)
	if pg.Detail != "" {
		b.WriteString(": " + pg.Detail)
	}
	if where, _, _ := strings.Cut(pg.Where, "\n"); where != "" {
		b.WriteString(" [" + where + "]")
	}
	return b.String()
}

var lineOf = regexp.MustCompile(`(?m)^COPY .*?, line (\d+)`)

// copyLine finds the row that COPY complains about, from 0; -1 when it does not say. It is only a hint where to
// split: a row is parked after it failed alone.
func copyLine(where string) int {
	m := lineOf.FindStringSubmatch(where)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n - 1
}
