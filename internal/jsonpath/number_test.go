package jsonpath

import (
	"math/big"
	"testing"
)

func TestCanonicalNumber(t *testing.T) {
	for want, spellings := range map[string][]string{
		"1":                              {"1", "1.0", "1e0", "1E+0", "10e-1", "0.1e1", "1.000"},
		"-7":                             {"-7", "-7.0", "-70e-1"},
		"0":                              {"0", "-0", "0.0", "0e99", "0e99999999999999999999", "-0.00e-5"},
		"1.5":                            {"1.5", "1.50", "15e-1"},
		"0.001":                          {"0.001", "1e-3", "1.0e-3"},
		"120000":                         {"120000", "1.2e5", "12e4"},
		"123456789012345678901234567890": {"123456789012345678901234567890", "123456789012345678901234567890.0"},
		"1e400":                          {"1e400", "10e399", "1.0E400"},
		"1e-400":                         {"1e-400", "0.1e-399"},
		"12.5e":                          {"12.5e"}, // not a number, so unchanged
		"01":                             {"01"},
		"":                               {""},
		"x":                              {"x"},
		"NaN":                            {"NaN"},
		"1e99999999999999999":            {"1e99999999999999999"},
	} {
		for _, s := range spellings {
			if got := CanonicalNumber(s); got != want {
				t.Errorf("CanonicalNumber(%q) = %q, want %q", s, got, want)
			}
		}
	}
}

// FuzzCanonicalNumber: the canonical text is the same number, and a second call does not change it.
func FuzzCanonicalNumber(f *testing.F) {
	for _, s := range []string{"1", "-1.50e3", "0.000001", "1e-50", "123e45", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := CanonicalNumber(s)
		if again := CanonicalNumber(c); again != c {
			t.Fatalf("%q gives %q, which gives %q", s, c, again)
		}
		if len(s) > 40 || c == s {
			return
		}
		var a, b big.Float
		if _, _, err := a.SetPrec(4096).Parse(s, 10); err != nil || a.IsInf() {
			return // the exponent is too large for the exact comparison
		}
		if _, _, err := b.SetPrec(4096).Parse(c, 10); err != nil {
			t.Fatalf("%q gives %q, which is no number: %v", s, c, err)
		}
		var d big.Float
		if d.Sub(&a, &b); d.Sign() != 0 && d.MantExp(nil) > a.MantExp(nil)-4000 {
			t.Fatalf("%q gives %q, another number", s, c)
		}
	})
}
