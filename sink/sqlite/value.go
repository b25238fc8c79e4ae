package sqlite

import (
	"database/sql/driver"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/surgetank/surgetank/sink"
)

// A value keeps its form in every column. Declared types such as STRING, UUID and DATETIME have
// NUMERIC affinity. In such a column SQLite converts text to a number: 01234 would become 1234.
// Only a BLOB is stored there unchanged. So:
//
//	column                 JSON number                              text
//	TEXT                   its digits                               itself
//	BLOB, no type          a number, its digits if it has too many  itself
//	INTEGER                a number, rejected if it has too many    a number if JSON would write it so; itself if it
//	                       digits                                   is not a number; else rejected
//	REAL, FLOAT, DOUBLE    the nearest double                       the same
//	NUMERIC, DECIMAL       a number, a BLOB of its digits if it     a number if JSON would write it so, else itself, as
//	                       has too many                             a BLOB if SQLite would change it
//	any other              the same                                 itself, as a BLOB if SQLite would change it

// value converts a cell to the value that SQLite stores.
func (c *column) value(cell *sink.Cell) (driver.Value, error) {
	switch cell.Kind {
	case sink.CellText:
		return c.text(cell.Text)
	case sink.CellInt:
		return cell.Int, nil
	case sink.CellTime:
		return cell.Time.Format(timeFormat), nil
	case sink.CellBytes:
		if c.affinity == affinityNone {
			return cell.Bytes, nil
		}
		if !utf8.Valid(cell.Bytes) {
			return nil, sink.BadRowf("column %q holds text, but the body is not UTF-8; a BLOB column takes any body", c.Name)
		}
		return c.text(string(cell.Bytes))
	case sink.CellJSON:
		return c.json(cell.JSON)
	}
	return nil, nil
}

func (c *column) json(v sink.JSON) (driver.Value, error) {
	switch v.Kind() {
	case sink.JSONTrue, sink.JSONFalse:
		if c.affinity == affinityText {
			return string(v.Raw()), nil
		}
		return int64(v.Kind() - sink.JSONFalse), nil
	case sink.JSONNumber:
		return c.number(string(v.Raw()))
	case sink.JSONString:
		s, ok := v.Text()
		if !ok {
			return nil, sink.BadRowf("column %q: %s holds half of a surrogate pair, which is no character", c.Name, c.From)
		}
		return c.text(s)
	}
	return string(v.Raw()), nil // objects and arrays unchanged
}

// text converts text.
func (c *column) text(s string) (driver.Value, error) {
	if c.affinity == affinityNone || c.affinity == affinityText {
		return s, nil
	}
	if seen, _, _ := strings.Cut(s, "\x00"); !likeNumber(seen) { // SQLite reads only up to a NUL character
		return s, nil
	}
	switch c.affinity {
	case affinityInteger, affinityReal:
		if !jsonNumber(s) {
			return nil, sink.BadRowf("column %q is declared %s, where SQLite would make another number of the text %.60q; send a number, or declare the column TEXT", c.Name, c.declared, s)
		}
		return c.number(s)
	case affinityDecimal:
		if jsonNumber(s) {
			return c.number(s)
		}
	}
	if plainInteger(s) {
		return s, nil // SQLite stores an integer with the same digits
	}
	return []byte(s), nil
}

// number converts a JSON number.
func (c *column) number(s string) (driver.Value, error) {
	if c.affinity == affinityText {
		return s, nil
	}
	if !strings.ContainsAny(s, ".eE") {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	fits := err == nil && !math.IsInf(f, 0)
	switch {
	case fits && (c.affinity == affinityReal || exact(s, f)):
		return f, nil
	case c.affinity == affinityNone:
		return s, nil
	case c.affinity == affinityDecimal || c.affinity == affinityOther:
		return []byte(s), nil
	case !strings.ContainsAny(s, ".eE"):
		return nil, sink.BadRowf("column %q: %.60s is above the 64 bits of SQLite's integers; a TEXT column keeps every digit", c.Name, s)
	case fits:
		return nil, sink.BadRowf("column %q: %.60s has more digits than SQLite's numbers hold; a TEXT column keeps every digit", c.Name, s)
	}
	return nil, sink.BadRowf("column %q: %.60s is out of the range of SQLite's numbers; a TEXT column keeps it", c.Name, s)
}

// exact reports whether the nearest double prints as the same JSON number.
func exact(s string, f float64) bool {
	digits, exponent, ok := decimal(s)
	again, power, _ := decimal(strconv.FormatFloat(f, 'e', -1, 64))
	return ok && digits == again && (exponent == power || digits == "")
}

// decimal splits a number. It returns its digits with the sign, without zeros at either end, and
// the power of ten of the last digit.
func decimal(s string) (digits string, exponent int, ok bool) {
	mantissa := s
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		n, err := strconv.Atoi(s[i+1:])
		if err != nil {
			return "", 0, false
		}
		mantissa, exponent = s[:i], n
	}
	sign := ""
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	all := strings.TrimLeft(whole+fraction, "0")
	digits = strings.TrimRight(all, "0")
	if digits == "" {
		return "", 0, true
	}
	return sign + digits, exponent - len(fraction) + len(all) - len(digits), true
}

// likeNumber reports whether SQLite reads text as a number: with or without sign, fraction,
// exponent and surrounding spaces.
func likeNumber(s string) bool {
	s = strings.Trim(s, " \t\n\v\f\r")
	if s != "" && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	whole := countDigits(s)
	s = s[whole:]
	fraction := 0
	if s != "" && s[0] == '.' {
		fraction = countDigits(s[1:])
		s = s[1+fraction:]
	}
	if whole+fraction == 0 {
		return false
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '-' || s[0] == '+') {
			s = s[1:]
		}
		n := countDigits(s)
		return n > 0 && n == len(s)
	}
	return s == ""
}

func countDigits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

// jsonNumber reports whether a text that likeNumber accepts has the form of a JSON number.
func jsonNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	whole := countDigits(s)
	if whole == 0 || whole > 1 && s[0] == '0' {
		return false
	}
	s = s[whole:]
	if s != "" && s[0] == '.' {
		n := countDigits(s[1:])
		if n == 0 {
			return false
		}
		s = s[1+n:]
	}
	return s == "" || (s[0] == 'e' || s[0] == 'E') && countDigits(s[len(s)-1:]) == 1
}

// plainInteger reports whether a number has the form in which SQLite prints an integer of 64 bits.
func plainInteger(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == s
}
