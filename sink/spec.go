package sink

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
)

// Spec holds the settings of a sink. ParseSpec reads them, Encode writes them.
type Spec struct {
	Queue string // full name
	Kind  string // the kind of target: "postgres" or "sqlite"
	// Address is the location of the target: a DSN or a file path. A DSN may contain a password;
	// display only Redacted.
	Address string
	Table   TableSpec
	Batch   BatchSpec
	Lanes   int // 0: the kind's default
	// Brake is how many messages in sequence may be parked with none written between them. 0:
	// DefaultBrake. BrakeOff: no limit.
	Brake int
}

// TableSpec describes the table that a sink fills.
type TableSpec struct {
	Table      string // may be schema.table; a part with a dot or quotes is written "like ""this"""
	Columns    []Column
	OnConflict *OnConflict // nil: a row that already exists is an error of the message
	Create     bool        // create the table if it does not exist
}

// Column is one column and the source of its value.
type Column struct {
	Name string
	From Source
	// Type is the type that create_table gives the column, in the database's words; empty: a type
	// that fits the source. An existing table keeps its own types.
	Type string
}

// OnConflict says what happens to a row whose keys already exist in the table.
type OnConflict struct {
	Keys   []string
	Update bool // true: the other columns get the new values; false: the existing row stays unchanged
	// Add are columns of numbers whose new values are added to the values of the existing row. Rows
	// of one batch with the same keys are added first and written once. Only with Update.
	Add []string
}

// BatchSpec limits the batches of each lane.
type BatchSpec struct {
	Max  int           // messages; 0: DefaultBatchMax
	Wait time.Duration // how long a batch's first message waits for more; 0: DefaultBatchWait
}

// Limits and defaults.
const (
	DefaultBatchMax  = 1000
	DefaultBatchWait = 20 * time.Millisecond
	DefaultBrake     = 50
	MaxBrake         = 1_000_000
	BrakeOff         = -1
	MaxBatchMax      = 20000
	MaxBatchWait     = time.Minute
	MaxLanes         = 64
	MaxColumns       = 500
	MaxSpecBytes     = 256 << 10
)

// WithDefaults returns the settings with defaults for all unset fields.
func (s Spec) WithDefaults() Spec {
	if s.Batch.Max == 0 {
		s.Batch.Max = DefaultBatchMax
	}
	if s.Batch.Wait == 0 {
		s.Batch.Wait = DefaultBatchWait
	}
	if s.Brake == 0 {
		s.Brake = DefaultBrake
	}
	if s.Lanes == 0 {
		s.Lanes = kinds[s.Kind].lanes
	}
	if s.Table.Create {
		s.Table.Columns = withMessageID(s.Table.Columns)
	}
	return s
}

// withMessageID adds a column message_id to a table that is to be created, so every row names its
// message. It adds nothing if a column already has the id.
func withMessageID(columns []Column) []Column {
	for _, c := range columns {
		if c.From.kind == fromID || c.Name == "message_id" {
			return columns
		}
	}
	return append(slices.Clone(columns), Column{Name: "message_id", From: Source{expr: "message.id", kind: fromID}})
}

// kinds are the targets that a spec may name. A program can open the kinds for which its manager
// has a factory.
var kinds = map[string]struct {
	address string // name of the address in the settings
	lanes   int    // default
	file    bool   // the address is a file path
}{
	"postgres": {"dsn", 4, false},
	"sqlite":   {"path", 1, true}, // a SQLite file has one writer at a time
}

// Validate rejects settings that cannot work with any target. Errors name fields as in the file.
func (s Spec) Validate() error {
	if err := fullname.Validate(s.Queue); err != nil {
		return surgetank.FieldErrorf("queue", "queue: %s", err)
	}
	kind, ok := kinds[s.Kind]
	if !ok {
		return surgetank.FieldErrorf("postgres", "a sink needs a target: postgres or sqlite")
	}
	field := func(name string) string { return s.Kind + "." + name }
	switch {
	case s.Address == "":
		return surgetank.FieldErrorf(field(kind.address), "%s is empty; say where the database is", field(kind.address))
	case strings.ContainsRune(s.Address, 0):
		return surgetank.FieldErrorf(field(kind.address), "%s holds a NUL character", field(kind.address))
	case s.Batch.Max < 1 || s.Batch.Max > MaxBatchMax:
		return surgetank.FieldErrorf("batch.max", "batch.max must be between 1 and %d messages, not %d", MaxBatchMax, s.Batch.Max)
	case s.Batch.Wait < 0 || s.Batch.Wait > MaxBatchWait:
		return surgetank.FieldErrorf("batch.wait", "batch.wait must be between 0 and %v, not %v", MaxBatchWait, s.Batch.Wait)
	case s.Brake != BrakeOff && (s.Brake < 1 || s.Brake > MaxBrake):
		return surgetank.FieldErrorf("brake", "brake must be off or between 1 and %d messages, not %d", MaxBrake, s.Brake)
	case s.Lanes < 1 || s.Lanes > MaxLanes:
		return surgetank.FieldErrorf("lanes", "lanes must be between 1 and %d, not %d", MaxLanes, s.Lanes)
	}
	return s.Table.validate(field)
}

func (t TableSpec) validate(field func(string) string) error {
	if _, err := SplitTable(t.Table); err != nil {
		return surgetank.FieldErrorf(field("table"), "%s: %s", field("table"), err)
	}
	if len(t.Columns) == 0 || len(t.Columns) > MaxColumns {
		return surgetank.FieldErrorf(field("columns"), "%s must name between 1 and %d columns, not %d", field("columns"), MaxColumns, len(t.Columns))
	}
	seen := map[string]bool{}
	for _, c := range t.Columns {
		if err := surgetank.ValidateName("column", c.Name); err != nil {
			return surgetank.FieldErrorf(field("columns"), "%s: %s", field("columns"), err)
		}
		if seen[c.Name] {
			return surgetank.FieldErrorf(field("columns."+c.Name), "%s is given twice", field("columns."+c.Name))
		}
		seen[c.Name] = true
		if c.Type != "" && (len(c.Type) > maxTypeBytes || strings.ContainsFunc(c.Type, func(r rune) bool { return !strings.ContainsRune(typeCharacters, r) }) || strings.TrimSpace(c.Type) == "") {
			path := field("columns." + c.Name + ".type")
			return surgetank.FieldErrorf(path, "%s: %.60q is not the name of a type", path, c.Type)
		}
	}
	if t.OnConflict == nil {
		return nil
	}
	if len(t.OnConflict.Keys) == 0 {
		return surgetank.FieldErrorf(field("on_conflict.keys"), "%s is empty; name the columns of a unique index", field("on_conflict.keys"))
	}
	keys := map[string]bool{}
	for _, k := range t.OnConflict.Keys {
		if !seen[k] {
			return surgetank.FieldErrorf(field("on_conflict.keys"), "%s names %q, which is not among the columns", field("on_conflict.keys"), k)
		}
		if keys[k] {
			return surgetank.FieldErrorf(field("on_conflict.keys"), "%s names %q twice", field("on_conflict.keys"), k)
		}
		keys[k] = true
	}
	return t.validateAdd(field("on_conflict.add"), seen, keys)
}

// validateAdd checks the columns whose values are added.
func (t TableSpec) validateAdd(path string, columns, keys map[string]bool) error {
	added := map[string]bool{}
	for _, a := range t.OnConflict.Add {
		switch {
		case !columns[a]:
			return surgetank.FieldErrorf(path, "%s names %q, which is not among the columns", path, a)
		case keys[a]:
			return surgetank.FieldErrorf(path, "%s names %q, which is a key", path, a)
		case added[a]:
			return surgetank.FieldErrorf(path, "%s names %q twice", path, a)
		}
		added[a] = true
	}
	return nil
}

// A type's name becomes part of CREATE TABLE. A target asks its database whether the text is a
// type. These characters exclude comments, quoted text and further statements before the database
// sees the text.
const (
	maxTypeBytes   = 200
	typeCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ .,()[]\""
)

// IsKey reports whether a column is a key of on_conflict.
func (t TableSpec) IsKey(column string) bool {
	if t.OnConflict == nil {
		return false
	}
	for _, k := range t.OnConflict.Keys {
		if k == column {
			return true
		}
	}
	return false
}

// Adds reports whether the values of a column are added to those of an existing row.
func (t TableSpec) Adds(column string) bool {
	return t.OnConflict != nil && slices.Contains(t.OnConflict.Add, column)
}

// SplitTable splits a table's name into one part, or into schema and table. A part in double quotes
// may contain any text, with "" for a quote. An unquoted part is used unchanged, including its
// case.
func SplitTable(name string) ([]string, error) {
	var parts []string
	rest := name
	for {
		part := ""
		if strings.HasPrefix(rest, `"`) {
			rest = rest[1:]
			for {
				i := strings.IndexByte(rest, '"')
				if i < 0 {
					return nil, fmt.Errorf("the quotes in %.80q are not closed", name)
				}
				part += rest[:i]
				rest = rest[i+1:]
				if !strings.HasPrefix(rest, `"`) {
					break
				}
				part += `"`
				rest = rest[1:]
			}
		} else {
			i := strings.IndexByte(rest, '.')
			if i < 0 {
				i = len(rest)
			}
			part, rest = rest[:i], rest[i:]
			if strings.ContainsRune(part, '"') {
				return nil, fmt.Errorf("%.80q has quotes in the middle of a name", name)
			}
		}
		if err := surgetank.ValidateName("table", part); err != nil {
			return nil, err
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		if rest[0] != '.' {
			return nil, fmt.Errorf("%.80q has something between the closing quote and the dot", name)
		}
		rest = rest[1:]
	}
	if len(parts) > 2 {
		return nil, fmt.Errorf("%.80q has more than a schema and a table", name)
	}
	return parts, nil
}

// QuoteName writes an identifier in SQL's double quotes.
func QuoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// QuoteTable writes the parts of SplitTable as SQL.
func QuoteTable(parts []string) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = QuoteName(p)
	}
	return strings.Join(quoted, ".")
}
