package sink

import (
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/jsonpath"
)

// Source says where a column's value comes from. ParseSource makes one.
type Source struct {
	expr   string
	kind   sourceKind
	path   jsonpath.Path
	header string
}

type sourceKind uint8

const (
	fromPath sourceKind = iota + 1 // $.json.path, or $ for the whole JSON body
	fromBody
	fromID
	fromTime
	fromGroup
	fromAttempt
	fromSeq
	fromQueue
	fromKey
	fromHeader
	fromToken
)

var messageSources = map[string]sourceKind{
	"body":                  fromBody,
	"message.id":            fromID,
	"message.time":          fromTime,
	"message.group":         fromGroup,
	"message.attempt":       fromAttempt,
	"message.seq":           fromSeq,
	"message.queue":         fromQueue,
	"message.key":           fromKey,
	"message.fencing_token": fromToken,
}

// ParseSource reads the source of a column:
//   - "$.json.path", a field of the JSON body, or "$", the whole JSON body
//   - "body", the body unchanged
//   - "message.id", "message.time", "message.group", "message.attempt", "message.seq",
//     "message.queue", "message.key" or "message.fencing_token"
//   - "header.NAME"
func ParseSource(s string) (Source, error) {
	if name, ok := strings.CutPrefix(s, "header."); ok && name != "" {
		return Source{expr: s, kind: fromHeader, header: name}, nil
	}
	if kind, ok := messageSources[s]; ok {
		return Source{expr: s, kind: kind}, nil
	}
	if !strings.HasPrefix(s, "$") {
		return Source{}, surgetank.Errorf(surgetank.CodeInvalid,
			"%.60q is not a source; write $.json.path, $, body, message.id, message.time, message.group, message.attempt, message.seq, message.queue, message.key, message.fencing_token or header.NAME", s)
	}
	p, err := jsonpath.Parse(s)
	if err != nil {
		return Source{}, surgetank.Errorf(surgetank.CodeInvalid, "%w", err)
	}
	return Source{expr: s, kind: fromPath, path: p}, nil
}

// String returns the text that ParseSource read.
func (s Source) String() string { return s.expr }

// Shape is the kind of value that a source produces. It is used for create_table and for checks
// against a table.
type Shape uint8

const (
	ShapeJSON    Shape = iota + 1 // any JSON value at a path
	ShapeWhole                    // the whole body, as JSON
	ShapeBytes                    // the body unchanged
	ShapeText                     // id, group, queue, key, header
	ShapeTime                     // message.time
	ShapeInteger                  // attempt, seq, fencing token
)

// Shape returns the kind of value that the source produces.
func (s Source) Shape() Shape {
	switch s.kind {
	case fromPath:
		if s.expr == "$" {
			return ShapeWhole
		}
		return ShapeJSON
	case fromBody:
		return ShapeBytes
	case fromTime:
		return ShapeTime
	case fromAttempt, fromSeq, fromToken:
		return ShapeInteger
	}
	return ShapeText
}

// Cell is the value of one column for one message, before the target converts it to a type of its
// own. It shares the message's memory.
type Cell struct {
	Kind  CellKind
	JSON  jsonpath.Value // CellJSON
	Text  string         // CellText
	Bytes []byte         // CellBytes
	Int   int64          // CellInt
	Time  time.Time      // CellTime
}

// CellKind says which field of a Cell is used.
type CellKind uint8

const (
	CellMissing CellKind = iota // the path or header does not exist
	CellNull                    // JSON null, or a message without a group or key
	CellJSON
	CellText
	CellBytes
	CellInt
	CellTime
)

// Extractor reads the cells of all columns from messages. It belongs to one goroutine.
type Extractor struct {
	columns []Column
	paths   *jsonpath.Set
	slots   []int // column of each path
	values  []jsonpath.Value
	cells   []Cell
}

// NewExtractor makes an extractor for columns.
func NewExtractor(columns []Column) *Extractor {
	x := &Extractor{columns: columns, cells: make([]Cell, len(columns))}
	var paths []jsonpath.Path
	for i, c := range columns {
		if c.From.kind == fromPath {
			paths = append(paths, c.From.path)
			x.slots = append(x.slots, i)
		}
	}
	x.paths = jsonpath.NewSet(paths...)
	x.values = make([]jsonpath.Value, len(paths))
	return x
}

// Cells returns one cell for each column. They are valid until the next call. If a column needs
// JSON and the body is not JSON, the error is an *Error of class BadRow.
func (x *Extractor) Cells(d *surgetank.Delivery) ([]Cell, error) {
	if len(x.slots) > 0 {
		if err := x.paths.Scan(d.Body, x.values); err != nil {
			return nil, &Error{Class: BadRow, Row: -1, Reason: err.Error(), Err: err}
		}
		for i, v := range x.values {
			c := Cell{Kind: CellJSON, JSON: v}
			switch v.Kind {
			case jsonpath.Missing:
				c.Kind = CellMissing
			case jsonpath.Null:
				c.Kind = CellNull
			}
			x.cells[x.slots[i]] = c
		}
	}
	for i := range x.columns {
		if from := &x.columns[i].From; from.kind != fromPath {
			x.cells[i] = from.ofMessage(d)
		}
	}
	return x.cells, nil
}

func (s *Source) ofMessage(d *surgetank.Delivery) Cell {
	switch s.kind {
	case fromBody:
		return Cell{Kind: CellBytes, Bytes: d.Body}
	case fromID:
		return Cell{Kind: CellText, Text: d.ID.String()}
	case fromTime:
		return Cell{Kind: CellTime, Time: d.Time.UTC()}
	case fromAttempt:
		return Cell{Kind: CellInt, Int: int64(d.Attempt)}
	case fromSeq:
		return Cell{Kind: CellInt, Int: int64(d.ID.Seq)}
	case fromToken:
		if d.FencingToken == 0 {
			return Cell{Kind: CellNull}
		}
		return Cell{Kind: CellInt, Int: d.FencingToken}
	case fromQueue:
		return Cell{Kind: CellText, Text: d.Queue}
	case fromGroup:
		return textOrNull(d.Group)
	case fromKey:
		return textOrNull(d.Key)
	case fromHeader:
		for i := range d.Headers {
			if strings.EqualFold(d.Headers[i].Name, s.header) {
				return Cell{Kind: CellText, Text: d.Headers[i].Value}
			}
		}
	}
	return Cell{}
}

func textOrNull(s string) Cell {
	if s == "" {
		return Cell{Kind: CellNull}
	}
	return Cell{Kind: CellText, Text: s}
}
