package translate

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/jsonpath"
)

// This file converts header values to text, to numbers, and to the identity of a message: its group
// or its dedup id.

// numberOf returns the decimal text of a number of any AMQP type, by the rules of
// jsonpath.CanonicalNumber. The integer 1, the float 1.0 and the decimal 1.00 have the same text.
// It returns false for other types, for NaN and for infinities.
func numberOf(v wire.Value) (string, bool) {
	if n, ok := v.Int(); ok {
		return strconv.FormatInt(n, 10), true
	}
	switch v.Tag {
	case 'L': // can be above the range of int64
		return strconv.FormatUint(binary.BigEndian.Uint64(v.Data), 10), true
	case 'f', 'd':
		f, _ := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return "", false
		}
		return jsonpath.CanonicalNumber(strconv.FormatFloat(f, 'g', -1, 64)), true
	case 'D': // a scale and digits; clients write the digits as a signed number
		digits := strconv.Itoa(int(int32(binary.BigEndian.Uint32(v.Data[1:]))))
		return jsonpath.CanonicalNumber(digits + "e-" + strconv.Itoa(int(v.Data[0]))), true
	}
	return "", false
}

// textOf returns a scalar header value as text. It returns false for void, tables, arrays, NaN and
// infinities.
func textOf(v wire.Value) (string, bool) {
	if n, ok := numberOf(v); ok {
		return n, true
	}
	switch v.Tag {
	case 'S', 'x':
		return string(v.Data), true
	case 't':
		b, _ := v.Bool()
		return strconv.FormatBool(b), true
	case 'T':
		t, _ := v.Time()
		return t.Format(time.RFC3339), true
	}
	return "", false
}

// identityOf returns the text of the header with a message's group or dedup id. Void counts as not
// given. It returns an error for a value without a text, and for a text that cannot be stored
// unchanged. Otherwise the message would lose its group or id. what names the option in errors.
func identityOf(header, what string, v wire.Value) (string, error) {
	if v.Tag == 'V' {
		return "", nil
	}
	text, ok := textOf(v)
	if !ok {
		return "", wire.Errorf(wire.CodePreconditionFailed, "invalid message: header '%s' (the %s) is of type %s; expected text or a number", header, what, v.TypeName())
	}
	if text == "" {
		return "", nil
	}
	if err := surgetank.ValidateName(what, text); err != nil {
		return "", wire.Errorf(wire.CodePreconditionFailed, "invalid message: header '%s': %v", header, err)
	}
	return text, nil
}

// delayOf parses x-delay: milliseconds as a number of any type, or as a decimal text. Void and
// negative numbers mean no delay. Anything else is an error, because a message that asks for a
// delay must not be delivered at once.
func delayOf(v wire.Value) (time.Duration, error) {
	if v.Tag == 'V' {
		return 0, nil
	}
	text, ok := numberOf(v)
	if s, isText := v.Str(); isText {
		text = strings.TrimSpace(string(s))
		_, err := strconv.ParseFloat(text, 64)
		ok = (err == nil || errors.Is(err, strconv.ErrRange)) && strings.Trim(text, "+-.eE0123456789") == ""
	}
	if !ok {
		return 0, wire.Errorf(wire.CodePreconditionFailed, "invalid message: header 'x-delay' is '%s' of type %s; expected a number of milliseconds", ShowValue(v), v.TypeName())
	}
	ms, _ := strconv.ParseFloat(text, 64) // a number that is too large becomes infinite
	if ms <= 0 {
		return 0, nil
	}
	return time.Duration(min(ms, maxMillis) * float64(time.Millisecond)), nil
}
