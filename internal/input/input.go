// Package input splits text into messages: lines, the rows of a CSV, or JSON values.
// `surgetank publish` and the HTTP interface use it, so a file leads to the same messages in both.
//
// # Text
//
// A UTF-8 byte order mark is removed. UTF-16 with a byte order mark is converted to UTF-8. UTF-16
// without a mark and UTF-32 are errors. A line ends with LF or CRLF. The last line needs no line
// end.
//
// A carriage return that is not part of a CRLF is an error, so that no body contains one by
// accident. If the data contain carriage returns, write them in JSON as \r.
//
// # Errors
//
// A *LineError names the line. The input is read in pieces, so a mistake is found after earlier
// messages were returned.
package input

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
)

// Format is how an input is split into messages.
type Format string

const (
	Lines  Format = "lines"  // every line that is not empty is a body, unchanged
	CSV    Format = "csv"    // every row is a body: a JSON object of strings, with the names of the header row
	NDJSON Format = "ndjson" // every line that is not blank is a body, and must be a JSON value
	JSON   Format = "json"   // every value, and every element of a top-level array, is a body, without space between tokens
)

// ParseFormat parses a format's name. "" is Lines.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case "":
		return Lines, nil
	case Lines, CSV, NDJSON, JSON:
		return f, nil
	}
	return "", surgetank.FieldErrorf("format", "format is lines, csv, ndjson or json, not %.40q", s)
}

// Message is one message of an input.
type Message struct {
	Body []byte
	// N is the number of the message in its input. It is the same each time the input is read. With
	// JSON, N counts the values from 1. In the other formats, N is the number of the line where the
	// message begins.
	N    int64
	Line int64 // the line where the message begins, from 1
}

// LineError is a mistake in a line of an input. The text of Err does not contain the line number.
type LineError struct {
	Line int64
	Err  *surgetank.Error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Err.Message) }
func (e *LineError) Unwrap() error { return e.Err }

// Options describe how to read. Format and Max are required.
type Options struct {
	Format Format
	Max    int  // the most bytes of a body
	Comma  rune // separator of the fields of a CSV; 0: a comma
}

// Check returns an error if the options contradict each other.
func (o Options) Check() error {
	switch {
	case o.Comma != 0 && o.Format != CSV:
		return surgetank.FieldErrorf("delimiter", "a delimiter separates the fields of a CSV; it needs the format csv")
	case o.Comma == '"' || o.Comma == '\r' || o.Comma == '\n' || o.Comma == utf8.RuneError || o.Comma != 0 && !utf8.ValidRune(o.Comma):
		return surgetank.FieldErrorf("delimiter", "the delimiter of a CSV is one character, not a quote and not a line end")
	}
	return nil
}

// ParseDelimiter parses a CSV's delimiter: one character, or "tab". It returns 0 for "".
func ParseDelimiter(s string) (rune, error) {
	if s == "tab" || s == `\t` {
		return '\t', nil
	}
	r, size := utf8.DecodeRuneInString(s)
	if len(s) != size {
		return 0, surgetank.FieldErrorf("delimiter", "the delimiter of a CSV is one character, or the word tab, not %.40q", s)
	}
	if s == "" {
		return 0, nil
	}
	return r, nil
}

// Reader reads one input. Only one goroutine may use it. Options.Max limits its memory, for any
// input.
type Reader struct {
	o    Options
	in   *counter
	cut  func() (Message, error)
	line int64
	buf  *bufio.Reader
	csv  table
	json values
}

// NewReader returns a reader. o must be valid.
func NewReader(r io.Reader, o Options) *Reader {
	rd := &Reader{o: o, in: &counter{r: &text{in: r}}}
	switch o.Format {
	case CSV:
		rd.csv.init(rd)
		rd.cut = rd.csv.next
	case JSON:
		rd.json.init(rd)
		rd.cut = rd.json.next
	default:
		rd.buf = bufio.NewReaderSize(rd.in, 256<<10)
		rd.cut = rd.nextLine
	}
	return rd
}

// Next returns the next message, or io.EOF after the last. The caller owns the body.
func (r *Reader) Next() (Message, error) { return r.cut() }

// Count returns the highest possible Message.N of the input. Call it after io.EOF.
func (r *Reader) Count() int64 {
	if r.o.Format == JSON {
		return r.json.n
	}
	return r.in.count()
}

func lineErrorf(line int64, code surgetank.Code, format string, args ...any) *LineError {
	e := surgetank.Errorf(code, format, args...)
	e.Field = "line"
	return &LineError{line, e}
}

// nextLine is Next for the formats with one message in each line.
func (r *Reader) nextLine() (Message, error) {
	for {
		line, err := r.readLine()
		if err != nil {
			return Message{}, err
		}
		body, e := Line(line, r.o.Format)
		if e != nil {
			return Message{}, &LineError{r.line, e}
		}
		if len(body) > 0 {
			return Message{Body: body, N: r.line, Line: r.line}, nil
		}
	}
}

// readLine reads to the next line end and removes the LF. It returns io.EOF after the last line.
func (r *Reader) readLine() ([]byte, error) {
	r.line++
	var long []byte
	for {
		part, err := r.buf.ReadSlice('\n')
		if len(long)+len(part) > r.o.Max+2 {
			return nil, tooLong(r.line, r.o.Max)
		}
		long = append(long, part...)
		switch {
		case err == nil:
			return r.fits(long[:len(long)-1])
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(long) > 0:
			return r.fits(long)
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, readError(r.line, err)
		}
	}
}

func (r *Reader) fits(line []byte) ([]byte, error) {
	if n := len(line); n > r.o.Max && (n > r.o.Max+1 || line[n-1] != '\r') {
		return nil, tooLong(r.line, r.o.Max)
	}
	return line, nil
}

func tooLong(line int64, most int) *LineError {
	return lineErrorf(line, surgetank.CodeTooLarge, "it has more than %d bytes; split it, or raise the server's max_message", most)
}

// readError adds the line to an error of reading. An error of the decoder is a mistake in the text.
// Any other error means that the input could not be read.
func readError(line int64, err error) error {
	var e *surgetank.Error
	if errors.As(err, &e) {
		return &LineError{line, e}
	}
	return fmt.Errorf("reading the input: %w", err)
}

// Line returns the body of a line without its LF. It removes a carriage return at the end. If the
// body is empty, the line is not a message. The format must be Lines or NDJSON.
func Line(line []byte, f Format) ([]byte, *surgetank.Error) {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[: n-1 : n-1]
	}
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, loneReturn("")
	}
	if f != NDJSON {
		return line, nil
	}
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return nil, nil
	}
	switch {
	case !utf8.Valid(line):
		return nil, notUTF8("")
	case !json.Valid(line):
		err := json.Unmarshal(line, new(json.RawMessage)) // Unmarshal returns the reason
		return nil, surgetank.FieldErrorf("line", "it is not a JSON value: %v", err)
	}
	return line, nil
}

func loneReturn(where string) *surgetank.Error {
	return surgetank.FieldErrorf("line", "%sa carriage return is not followed by a line feed, so it ends no line; write line ends as LF or CRLF, or send JSON, which has \\r for one inside a text", where)
}

func notUTF8(where string) *surgetank.Error {
	return surgetank.FieldErrorf("line", "%sthe text is not UTF-8; convert it, as with: iconv -f ISO-8859-1 -t UTF-8", where)
}
