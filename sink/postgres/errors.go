package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// classify returns the meaning of an error for the batch. It uses the SQLSTATE (PostgreSQL
// documentation, appendix A) and the place where the error was raised:
//
//	53200, 53400, 57014, 25P04             memory, temporary files, cancelled or timed out: smaller batches
//	40, 53, 55P03                          deadlock, serialization, resources, lock: the same batch again
//	08, HV, from a statement               a foreign table's server: the table's fault
//	any other, inside a trigger's or       Suspect: it may be the row's fault or the whole table's
//	function's SQL
//	23503                                  Reference: the missing row may come
//	23514 without a constraint             no partition: the table's fault
//	21, 22, 23, 44, 54                     the row's fault beyond doubt; 21 needs two rows of a batch, a single row never causes it
//	42501, 0A                              Suspect: row-level security, or a permission that was revoked
//	2200H                                  a sequence has no more numbers: the table's fault
//	25, 42, 55, 57, 58 and similar         target down: wait, lose nothing
//	all others from a statement            Suspect
//	no SQLSTATE                            the connection: target down
//
// An error of class 53 is also Busy: the server has too little of something.
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
	e := &sink.Error{Class: classOf(pg), Row: -1, Reason: words(pg), Err: err, Busy: strings.HasPrefix(pg.Code, "53")}
	if e.Class.OfRow() {
		e.Row = copyLine(pg.Where)
	}
	return e
}

// classOf returns the class of an error by its SQLSTATE, as in the table at classify.
func classOf(pg *pgconn.PgError) sink.Class {
	if len(pg.Code) != 5 {
		return sink.Down
	}
	switch pg.Code {
	case "53200", "53400", "57014", "25P04":
		return sink.TooLarge
	case "53300", "40003": // too many connections; completion unknown: only new connections get these
		return sink.Down
	case "55P03":
		return sink.Retry
	case "40002": // integrity constraint at the commit
		return sink.Suspect
	}
	class := pg.Code[:2]
	if class == "40" || class == "53" {
		return sink.Retry
	}
	if severity(pg) != "ERROR" {
		return sink.Down // the error ends the connection
	}
	switch {
	case class == "08" || class == "HV":
		return sink.TableFault
	case class == "57":
		return sink.Down
	case inside(pg.Where):
		return sink.Suspect
	case pg.Code == "23503":
		return sink.Reference
	case pg.Code == "23514" && pg.ConstraintName == "":
		if pg.Routine == "ExecPartitionCheckEmitError" {
			return sink.Suspect // the sink's table is itself a partition, and the row belongs to another one
		}
		return sink.TableFault
	case pg.Code == "2200H": // a sequence has no more numbers
		return sink.TableFault
	case pg.Code == "42501", class == "0A" && pg.Routine != "DoCopy": // DoCopy: row-level security was switched on; the next opening detects it
		return sink.Suspect
	}
	switch class {
	case "21", "22", "23", "44", "54":
		return sink.BadRow
	case "01", "02", "03", "0A", "0B", "25", "26", "28", "2D", "34", "3B", "3D", "3F", "42", "55", "58", "72":
		return sink.Down
	}
	return sink.Suspect
}

// rowError classifies an error of rows that were sent to the table. If a column that the sink does
// not fill allows no null, the row is not at fault. If the value of such a column already exists,
// it came from a default, and the next try has another value.
func (l *layout) rowError(err error) error {
	e := classify(err)
	var known *sink.Error
	var pg *pgconn.PgError
	if !errors.As(e, &known) || known.Class != sink.BadRow || !errors.As(err, &pg) {
		return e
	}
	switch {
	case pg.Code == "23502" && pg.ColumnName != "" && !l.fills(pg.ColumnName):
		known.Class = sink.TableFault
	case pg.Code == "23505":
		if m := keyOf.FindStringSubmatch(pg.Detail); m != nil && !l.fills(strings.Split(m[1], ", ")...) {
			known.Class = sink.Suspect
		}
	}
	return known
}

// keyOf matches the columns in "Key (a, b)=(1, 2) already exists", in any language.
var keyOf = regexp.MustCompile(`\(([^()]+)\)=\(`)

// fills reports whether the sink fills one of these columns.
func (l *layout) fills(names ...string) bool {
	for _, c := range l.columns {
		if slices.Contains(names, c.Name) {
			return true
		}
	}
	return false
}

// severity returns the untranslated severity of the error.
func severity(pg *pgconn.PgError) string {
	if pg.SeverityUnlocalized != "" {
		return pg.SeverityUnlocalized
	}
	return pg.Severity
}

// inside reports whether an error was raised inside a function, and so in a trigger's SQL. Then its
// context has more than the positions in the COPY and in a JSON value. The context is in the
// database's language, except for these two words.
func inside(where string) bool {
	if i := strings.Index("\n"+where, "\nCOPY "); i >= 0 {
		where = where[:i]
	}
	for line := range strings.Lines(where) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "JSON") && !strings.Contains(line, "COPY") {
			return true
		}
	}
	return false
}

// words returns the database's message in one line.
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

// copyLine returns the row that COPY complains about, from 0, or -1 if unknown. It is only a hint
// where to split: a row is parked only after it failed alone.
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
