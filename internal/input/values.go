package input

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/msgopt"
)

// table reads a CSV (RFC 4180). Its first row names the columns.
type table struct {
	r      *Reader
	csv    *csv.Reader
	header []string
	keys   [][]byte // the column names as JSON, with the punctuation before and after each name
}

// ahead is the most bytes that the readers of records read beyond a record.
const ahead = 64 << 10

func (t *table) init(r *Reader) {
	t.r = r
	t.csv = csv.NewReader(bufio.NewReaderSize(r.in, ahead))
	t.csv.ReuseRecord = true
	t.csv.FieldsPerRecord = -1
	if r.o.Comma != 0 {
		t.csv.Comma = r.o.Comma
	}
}

// row reads one record and returns the line where it begins.
func (t *table) row() ([]string, int64, error) {
	t.r.in.until = t.r.in.n + int64(t.r.o.Max) + ahead
	row, err := t.csv.Read()
	var p *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return nil, 0, io.EOF
	case errors.As(err, &p):
		return nil, 0, badRow(p)
	case errors.Is(err, errLong):
		return nil, 0, lineErrorf(t.nextLine(), surgetank.CodeTooLarge, "the row has more than %d bytes; is a quote missing at its end?", t.r.o.Max)
	case err != nil:
		return nil, 0, readError(t.nextLine(), err)
	}
	line, _ := t.csv.FieldPos(0)
	for i, v := range row {
		where := "field " + strconv.Itoa(i+1) + ": "
		switch {
		case strings.IndexByte(v, '\r') >= 0:
			return nil, 0, &LineError{int64(line), loneReturn(where)}
		case strings.IndexByte(v, 0) >= 0:
			return nil, 0, lineErrorf(int64(line), surgetank.CodeInvalid, "%sit holds a NUL byte; is the input text?", where)
		case !utf8.ValidString(v):
			return nil, 0, &LineError{int64(line), notUTF8(where)}
		}
	}
	return row, int64(line), nil
}

// nextLine returns the approximate line of the row that could not be read: the line after the last
// readable row.
func (t *table) nextLine() int64 {
	if t.header == nil {
		return 1
	}
	return t.r.line + 1
}

// badRow describes what is wrong with the quotes of a row.
func badRow(p *csv.ParseError) error {
	switch {
	case errors.Is(p.Err, csv.ErrBareQuote):
		return lineErrorf(int64(p.Line), surgetank.CodeInvalid, `column %d: a field that does not begin with a quote holds one; put the field in quotes and write each quote inside it twice`, p.Column)
	case errors.Is(p.Err, csv.ErrQuote) && p.Line != p.StartLine:
		return lineErrorf(int64(p.StartLine), surgetank.CodeInvalid, `a quote in this row is not closed, or is followed by something other than a delimiter (line %d, column %d)`, p.Line, p.Column)
	case errors.Is(p.Err, csv.ErrQuote):
		return lineErrorf(int64(p.Line), surgetank.CodeInvalid, `column %d: a quote is not closed, or is followed by something other than a delimiter; write each quote inside a field twice`, p.Column)
	}
	return lineErrorf(int64(p.Line), surgetank.CodeInvalid, "column %d: %v", p.Column, p.Err)
}

// names reads the header row.
func (t *table) names(row []string, line int64) error {
	seen := map[string]int{}
	for i, name := range row {
		if name == "" {
			return lineErrorf(line, surgetank.CodeInvalid, "the header has no name for column %d; each column needs one", i+1)
		}
		if j, twice := seen[name]; twice {
			return lineErrorf(line, surgetank.CodeInvalid, "the header names columns %d and %d both %.60q; each needs a name of its own", j, i+1, name)
		}
		seen[name] = i + 1
		lead := byte(',')
		if i == 0 {
			lead = '{'
		}
		t.keys = append(t.keys, append(msgopt.AppendText([]byte{lead}, name), ':'))
	}
	if t.r.o.Comma == 0 && len(row) == 1 && strings.ContainsAny(row[0], ";\t") {
		return lineErrorf(line, surgetank.CodeInvalid, "the header %.60q has one column, as if another delimiter than the comma were meant; name it (--delimiter ';', ?delimiter=tab)", row[0])
	}
	t.header, t.r.line = append([]string(nil), row...), line
	return nil
}

func (t *table) next() (Message, error) {
	if t.header == nil {
		row, line, err := t.row()
		if err == nil {
			err = t.names(row, line)
		}
		if err != nil {
			return Message{}, err
		}
	}
	row, line, err := t.row()
	if err != nil {
		return Message{}, err
	}
	if len(row) != len(t.header) {
		return Message{}, lineErrorf(line, surgetank.CodeInvalid, "the row has %d fields, and the header has %d; a field with the delimiter in it needs quotes", len(row), len(t.header))
	}
	size := 1
	for i, v := range row {
		size += len(t.keys[i]) + len(v) + 2
	}
	if size > t.r.o.Max {
		return Message{}, tooLong(line, t.r.o.Max)
	}
	body := make([]byte, 0, size)
	for i, v := range row {
		body = msgopt.AppendText(append(body, t.keys[i]...), v)
	}
	if body = append(body, '}'); len(body) > t.r.o.Max { // escapes made the body longer
		return Message{}, tooLong(line, t.r.o.Max)
	}
	t.r.line = line
	return Message{Body: body, N: line, Line: line}, nil
}

// values reads a sequence of JSON values. It reads the elements of a top-level array one by one.
type values struct {
	r      *Reader
	dec    *json.Decoder
	inside bool // the next value is inside a top-level array
	n      int64
}

func (v *values) init(r *Reader) {
	v.r, r.in.keep = r, true
	v.dec = json.NewDecoder(r.in)
}

func (v *values) next() (Message, error) {
	for {
		v.r.in.until = v.r.in.n + int64(v.r.o.Max) + ahead
		if !v.dec.More() {
			at := v.dec.InputOffset()
			tok, err := v.dec.Token()
			switch {
			case errors.Is(err, io.EOF) && !v.inside:
				return Message{}, io.EOF
			case err != nil:
				return Message{}, v.failed(at, err)
			case tok != json.Delim(']'):
				return Message{}, lineErrorf(v.r.in.line(at), surgetank.CodeInvalid, "%v stands where a value should", tok)
			}
			v.inside = false
			continue
		}
		if !v.inside && v.peek() == '[' {
			if _, err := v.dec.Token(); err != nil {
				return Message{}, v.failed(v.dec.InputOffset(), err)
			}
			v.inside = true
			continue
		}
		var raw json.RawMessage
		at := v.dec.InputOffset()
		if err := v.dec.Decode(&raw); err != nil {
			return Message{}, v.failed(at, err)
		}
		v.n++
		line := v.r.in.line(v.dec.InputOffset() - int64(len(raw)))
		if !utf8.Valid(raw) {
			return Message{}, &LineError{line, notUTF8("")}
		}
		var body bytes.Buffer
		if err := json.Compact(&body, raw); err != nil {
			return Message{}, v.failed(at, err)
		}
		if body.Len() > v.r.o.Max {
			return Message{}, tooLong(line, v.r.o.Max)
		}
		return Message{Body: body.Bytes(), N: v.n, Line: line}, nil
	}
}

// peek returns the first byte of the next value.
func (v *values) peek() byte {
	b, ok := v.dec.Buffered().(io.ByteReader)
	for ok {
		c, err := b.ReadByte()
		if err != nil {
			return 0
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c
		}
	}
	return 0
}

// failed adds a line to an error: the line of the value that could not be read.
func (v *values) failed(at int64, err error) error {
	line := v.r.in.line(at)
	var e *surgetank.Error
	var s *json.SyntaxError
	switch {
	case errors.Is(err, errLong):
		return lineErrorf(line, surgetank.CodeTooLarge, "the JSON value that begins here has more than %d bytes; split it, or raise the server's max_message", v.r.o.Max)
	case errors.As(err, &e):
		return &LineError{line, e}
	case errors.As(err, &s):
		return lineErrorf(line, surgetank.CodeInvalid, "what begins here is not a JSON value: %v", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return lineErrorf(line, surgetank.CodeInvalid, "the JSON that begins here has no end; is the input complete?")
	}
	return readError(line, err)
}
