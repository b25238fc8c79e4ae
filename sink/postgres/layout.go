package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank/sink"
)

// layout holds the statements for one table and its settings, as the table was at one moment. It is
// immutable.
type layout struct {
	found    found
	name     string // the table's name in the settings, as SQL
	print    string // the table's fingerprint, as guard computes it
	key      string // layouts with the same key turn messages into the same rows, by the same statements
	columns  []column
	lock     string // locks the definition of the table until the transaction ends
	progress string // the progress table
	direct   bool   // rows may be copied straight into the table
	defaults []int  // the columns that have a default, by index
	copyInto string // COPY into the table
	stage    string // CREATE of the staging table, without its ON COMMIT clause
	copyBy   string // COPY into the staging table
	insert   string // INSERT from the staging table into the table
}

const stageName = "pg_temp.surgetank_stage"

// targetName is the table's name in an insert that reads the existing row.
const targetName = "surgetank_target"

func newLayout(spec sink.TableSpec, f found, columns []column, name, print string) *layout {
	l := &layout{found: f, name: name, print: print, columns: columns, progress: progressName(f.schema), direct: spec.OnConflict == nil && !f.rowSecurity}
	var list, stage []string
	for i, c := range columns {
		list = append(list, sink.QuoteName(c.Name))
		stage = append(stage, fmt.Sprintf("c%d %s", i, c.stageType))
		if c.fallback != "" {
			l.defaults = append(l.defaults, i)
		}
	}
	into := f.sql() + " (" + strings.Join(list, ", ") + ")"
	l.copyInto = "COPY " + into + " FROM STDIN"
	if spec.OnConflict != nil && spec.OnConflict.Add != nil {
		into = f.sql() + " AS " + targetName + " (" + strings.Join(list, ", ") + ")"
	}
	l.stage = "CREATE TEMP TABLE IF NOT EXISTS surgetank_stage (n int, missing text, " + strings.Join(stage, ", ") + ")"
	l.copyBy = "COPY " + stageName + " FROM STDIN"
	l.insert = "INSERT INTO " + into + " " + l.fromStage(spec) + conflict(spec, columns)
	l.lock = "LOCK TABLE ONLY " + f.sql() + " IN ROW EXCLUSIVE MODE"
	if !f.lockable {
		l.lock = "EXPLAIN " + l.probe() // takes the same lock, and needs no more rights than the insert itself
	}
	l.key = strings.Join([]string{l.copyInto, l.stage, l.insert, l.lock, strconv.FormatBool(l.direct)}, "; ")
	for _, c := range columns {
		l.key += fmt.Sprintf("; %d %d %t", c.kind, c.element, c.notNull)
	}
	return l
}

// fromStage selects the rows of the staging table. A missing field gets its column's default: the
// column missing has one character, 0 or 1, for each column with a default. If on_conflict updates,
// the last of the rows with the same keys is used, because one INSERT may change a row only once.
// If on_conflict adds, this row gets the sums of all rows with its keys. Rows are ordered by their
// keys, so two lanes lock rows in the same order.
func (l *layout) fromStage(spec sink.TableSpec) string {
	values := make([]string, len(l.columns))
	for i, c := range l.columns {
		values[i] = fmt.Sprintf("s.c%d%s", i, c.cast)
	}
	for k, i := range l.defaults {
		values[i] = fmt.Sprintf("CASE WHEN substr(s.missing, %d, 1) = '1' THEN %s ELSE %s END", k+1, l.columns[i].fallback, values[i])
	}
	selected := "SELECT " + strings.Join(values, ", ")
	if spec.OnConflict == nil {
		return selected + " FROM " + stageName + " s ORDER BY s.n"
	}
	var keys, nulls []string
	for i, c := range l.columns {
		if spec.IsKey(c.Name) {
			keys = append(keys, fmt.Sprintf("s.c%d", i))
			nulls = append(nulls, fmt.Sprintf("s.c%d IS NULL", i))
		}
	}
	order := strings.Join(keys, ", ")
	if !spec.OnConflict.Update {
		return selected + " FROM " + stageName + " s ORDER BY " + order + ", s.n"
	}
	same := "PARTITION BY " + order + ", CASE WHEN " + strings.Join(nulls, " OR ") + " THEN s.n END"
	sums := ""
	for i, c := range l.columns {
		if spec.Adds(c.Name) {
			sums += fmt.Sprintf(", sum(%s) OVER (%s) AS a%d", values[i], same, i)
			values[i] = fmt.Sprintf("s.a%d", i)
		}
	}
	return "SELECT " + strings.Join(values, ", ") + " FROM (SELECT s.*, row_number() OVER (" + same + " ORDER BY s.n DESC) AS newest" + sums +
		" FROM " + stageName + " s) s WHERE s.newest = 1 ORDER BY " + order
}

func conflict(spec sink.TableSpec, columns []column) string {
	if spec.OnConflict == nil {
		return ""
	}
	var sets []string
	for _, c := range columns {
		if !spec.IsKey(c.Name) {
			q := sink.QuoteName(c.Name)
			value := "EXCLUDED." + q
			if spec.Adds(c.Name) { // null adds nothing
				value = "CASE WHEN EXCLUDED." + q + " IS NULL THEN " + targetName + "." + q + " WHEN " + targetName + "." + q +
					" IS NULL THEN EXCLUDED." + q + " ELSE " + targetName + "." + q + " + EXCLUDED." + q + " END"
			}
			sets = append(sets, q+" = "+value)
		}
	}
	head := " ON CONFLICT (" + names(spec.OnConflict.Keys) + ") DO "
	if !spec.OnConflict.Update || len(sets) == 0 {
		return head + "NOTHING"
	}
	return head + "UPDATE SET " + strings.Join(sets, ", ")
}

// probe returns the INSERT without rows and staging table, for EXPLAIN.
func (l *layout) probe() string {
	var list []string
	for i, c := range l.columns {
		list = append(list, fmt.Sprintf("NULL::%s AS c%d", c.stageType, i))
	}
	rows := "(SELECT 1 AS n, ''::text AS missing, " + strings.Join(list, ", ") + " WHERE false)"
	return strings.Replace(l.insert, stageName, rows, 1)
}

// advance returns the statements that update a lane's progress. update must change exactly one row;
// otherwise another opening has changed the progress. before must run first, because Open locks the
// rows in this order.
func (l *layout) advance(claim *sink.Claim, lane int, p sink.Progress) (before, update string) {
	update = fmt.Sprintf(`UPDATE %s SET batch = batch + 1, watermark = %d, entry = %d, applied = %d, ids = '\x%x', updated = now() WHERE instance = %s AND lane = %d AND owner = %s AND epoch = %d AND batch = %d`,
		l.progress, p.Watermark, p.Entry, p.Applied, p.IDs, literal(claim.Instance), lane, literal(claim.Owner), p.Epoch, p.Batch)
	if p.Settled != nil {
		before = fmt.Sprintf(`UPDATE %s SET ids = '\x%x' WHERE instance = %s AND lane = -1 AND owner = %s AND epoch = %d; `, l.progress, p.Settled, literal(claim.Instance), literal(claim.Owner), p.Epoch)
	}
	return before, update
}

// literal writes a text constant; standard_conforming_strings is on.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
