package jsonpath

import (
	"strconv"
	"strings"
)

// maxPlain is the most digits before the point, or zeros after it, that CanonicalNumber writes. For
// more it writes an exponent.
const maxPlain = 40

// CanonicalNumber returns the same text for all spellings of a decimal number: 1, 1.0, 10e-1 and
// 1E0 all become "1". The value is not rounded. It returns a text unchanged if the text is not a
// JSON number, or if its exponent has more than 15 digits.
func CanonicalNumber(s string) string {
	sc := scanner{b: []byte(s)}
	if s == "" || s[0] != '-' && (s[0] < '0' || s[0] > '9') || !sc.number() || sc.i != len(s) {
		return s
	}
	rest, negative := strings.CutPrefix(s, "-")
	mantissa, exponent := rest, 0
	if at := strings.IndexAny(rest, "eE"); at >= 0 {
		mantissa = rest[:at]
		e, err := strconv.Atoi(rest[at+1:])
		if err != nil || e > 1e15 || e < -1e15 {
			if strings.Trim(mantissa, "0.") == "" {
				return "0"
			}
			return s
		}
		exponent = e
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	exponent -= len(fraction)
	digits := strings.TrimLeft(whole+fraction, "0")
	short := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(short)
	if short == "" {
		return "0"
	}
	// The value is now short × 10^exponent, and short neither begins nor ends with zero.
	var out string
	switch point := len(short) + exponent; {
	case exponent >= 0 && point <= maxPlain:
		out = short + strings.Repeat("0", exponent)
	case exponent < 0 && point > 0:
		out = short[:point] + "." + short[point:]
	case exponent < 0 && -point <= maxPlain:
		out = "0." + strings.Repeat("0", -point) + short
	default:
		out = short + "e" + strconv.Itoa(exponent)
	}
	if negative {
		out = "-" + out
	}
	return out
}
