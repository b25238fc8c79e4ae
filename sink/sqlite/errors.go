package sqlite

import (
	"errors"
	"strings"

	"modernc.org/sqlite"

	"github.com/surgetank/surgetank/sink"
)

// rowError classifies an error of a prepared insert. Such an error has more meaning than other
// errors:
//
//   - A general error comes from a trigger's SQL or a generated column, because the statement
//     itself was accepted.
//   - A constraint names its table and columns. If it names another table, a trigger caused the
//     error. If a column that the sink does not fill allows no null, the table is at fault.
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

// fills reports whether the sink fills a column.
func (t *table) fills(column string) bool {
	for _, c := range t.columns {
		if strings.EqualFold(c.Name, column) {
			return true
		}
	}
	return false
}

// failedColumn returns the first column in SQLite's message, as in "NOT NULL constraint failed:
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
