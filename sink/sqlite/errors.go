package sqlite

import (
	"errors"
	"strings"

	"modernc.org/sqlite"

	"github.com/surgetank/surgetank/sink"
)

// rowError classifies an error of an insert that was prepared. Two more things are known of it than
// of others:
//
//   - An error in general comes out of a trigger's SQL or a generated column: the statement itself
//     was accepted.
//   - A constraint names its table and columns. Another table is a trigger's matter. A column that
//     the sink does not fill and that allows no null is the table's fault.
func (t *table) rowError(err error) error {
	e, ok := classify(err).(*sink.Error)
	if !ok {
		return nil
	}
	var lite *sqlite.Error
	if !errors.As(err, &lite) {
		return e
	}
	switch {
	case lite.Code()&0xff == codeError:
		e.Class = sink.Suspect
	case e.Class == sink.BadRow && lite.Code()&0xff == codeConstraint:
		name, column, ok := failedColumn(lite.Error())
		parts, _ := sink.SplitTable(t.spec.Table.Table) // checked by New
		switch {
		case !ok:
		case !strings.EqualFold(name, parts[0]):
			e.Class = sink.Suspect
		case lite.Code() == codeNotNull && !t.fills(column):
			e.Class = sink.TableFault
		}
	}
	return e
}

// fills tells whether the sink gives a column its value.
func (t *table) fills(column string) bool {
	for _, c := range t.columns {
		if strings.EqualFold(c.Name, column) {
			return true
		}
	}
	return false
}

// failedColumn takes the first column out of SQLite's words, as in "NOT NULL constraint failed:
// t.c" and "UNIQUE constraint failed: t.a, t.b". A CHECK constraint names no column.
func failedColumn(words string) (table, column string, ok bool) {
	_, rest, ok := strings.Cut(words, "NOT NULL constraint failed: ")
	if !ok {
		if _, rest, ok = strings.Cut(words, "UNIQUE constraint failed: "); !ok {
			return "", "", false
		}
	}
	rest, _, _ = strings.Cut(rest, " (")
	rest, _, _ = strings.Cut(rest, ", ")
	i := strings.LastIndexByte(rest, '.')
	if i < 0 {
		return "", "", false // an index on an expression
	}
	return rest[:i], rest[i+1:], true
}
