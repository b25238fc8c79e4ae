package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

// ParseDuration parses a duration in Go's form ("1.5s", "20m", "24h"). "0" needs no unit.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a duration; write it with its unit, such as 500ms, 1.5s, 20m or 24h", s)
	}
	if d > surgetank.MaxDuration {
		return 0, fmt.Errorf("%v is too long; at most 10 years (87600h) are allowed", d)
	}
	return d, nil
}

// FormatDuration writes a duration for ParseDuration. Unlike Duration.String it leaves out zero
// parts: 10m, not 10m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var units = []struct {
	name string
	n    float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// ParseSize parses a number of bytes: "4096", "512MiB", "1.5GB".
func ParseSize(s string) (int64, error) {
	bad := fmt.Errorf("%.40q is not a size; write bytes, or a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 512MiB", s)
	digits, factor := s, 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, factor = strings.TrimRight(rest, " "), u.n
			break
		}
	}
	if factor == 1 {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 {
			return 0, bad
		}
		return n, nil
	}
	f, err := plainFloat(digits)
	if err != nil || f < 0 {
		return 0, bad
	}
	if f *= factor; f > 1<<62 {
		return 0, fmt.Errorf("%.40q is too large a size", s)
	}
	return int64(math.Round(f)), nil
}

// FormatSize writes bytes for ParseSize, with the largest unit that divides the number.
func FormatSize(n int64) string {
	for _, u := range units[:4] {
		if unit := int64(u.n); n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// ParseRate parses deliveries per time: "2000/s", "30/m", "500/h", or a number per second. 0 is no
// limit.
func ParseRate(s string) (surgetank.Rate, error) {
	bad := fmt.Errorf("%.40q is not a rate; write a number per second, or such as 2000/s, 30/m or 500/h", s)
	digits, per, divided := strings.Cut(s, "/")
	seconds := 1.0
	if divided {
		switch strings.TrimSpace(per) {
		case "s", "sec", "second":
		case "m", "min", "minute":
			seconds = 60
		case "h", "hour":
			seconds = 3600
		default:
			return 0, bad
		}
	}
	f, err := plainFloat(strings.TrimSpace(digits))
	if err != nil {
		return 0, bad
	}
	return checkRate(f / seconds)
}

func checkRate(f float64) (surgetank.Rate, error) {
	if !(f >= 0 && f <= 1e9) {
		return 0, fmt.Errorf("want a rate between 0 (no limit) and 1e9 per second, not %v", f)
	}
	return surgetank.Rate(f), nil
}

// FormatRate writes a rate for ParseRate, exactly.
func FormatRate(r surgetank.Rate) string {
	return strconv.FormatFloat(float64(r), 'f', -1, 64) + "/s"
}

// plainFloat parses a decimal number. It refuses other forms that strconv.ParseFloat accepts:
// hexadecimal, underscores, inf and nan.
func plainFloat(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.+-eE") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

func durationOf(v any) (time.Duration, error) {
	switch v := v.(type) {
	case string:
		return ParseDuration(v)
	default:
		if n, err := number(v); err == nil && n == 0 {
			return 0, nil
		}
	}
	return 0, fmt.Errorf("want a duration with its unit, such as 500ms, 1.5s, 20m or 24h, not %s", shownAs(v))
}

func timeOf(v any) (time.Time, error) {
	if s, ok := v.(string); ok {
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("want a time such as 2030-01-02T15:04:05Z, not %s", shownAs(v))
}

func sizeOf(v any) (int64, error) {
	if s, ok := v.(string); ok {
		return ParseSize(s)
	}
	return wholeNumber(v)
}

func rateOf(v any) (surgetank.Rate, error) {
	if s, ok := v.(string); ok {
		return ParseRate(s)
	}
	f, err := number(v)
	if err != nil {
		return 0, fmt.Errorf("want a rate, such as 2000/s, not %s", shownAs(v))
	}
	return checkRate(f)
}

// wholeNumber converts the number types of JSON and YAML decoders.
func wholeNumber(v any) (int64, error) {
	switch v := v.(type) {
	case int:
		return int64(v), nil
	case int64:
		return v, nil
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v), nil
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		if f, err := v.Float64(); err == nil {
			return wholeNumber(f)
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), nil
		}
	}
	return 0, fmt.Errorf("want a whole number, not %s", shownAs(v))
}

func number(v any) (float64, error) {
	switch v := v.(type) {
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case uint64:
		return float64(v), nil
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return f, nil
		}
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v, nil
		}
	}
	return 0, errors.New("want a number, not " + shownAs(v))
}

// shownAs formats a value of the tree for an error.
func shownAs(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%.40q", v)
	case map[string]any, []any, nil:
		return kind(v)
	case json.Number:
		return fmt.Sprintf("%.40s", string(v))
	}
	return fmt.Sprintf("%.40v", v)
}
