package sink

import (
	"fmt"
	"testing"

	"github.com/surgetank/surgetank"
)

// TestEqualKeysHashAlike: values that the database calls equal have the same hash, and other values
// have different hashes.
func TestEqualKeysHashAlike(t *testing.T) {
	from, err := ParseSource("$.k")
	if err != nil {
		t.Fatal(err)
	}
	spec := TableSpec{Columns: []Column{{Name: "k", From: from}}, OnConflict: &OnConflict{Keys: []string{"k"}}}
	of := func(form KeyForm, value string) uint64 {
		k := newKeyer(spec, map[string]KeyForm{"k": form})
		return k.of(&surgetank.Delivery{Message: surgetank.Message{Body: fmt.Appendf(nil, `{"k":%s}`, value)}})
	}
	for form, classes := range map[KeyForm][][]string{
		KeyInteger: {{`1`, `1.0`, `1e0`, `"1"`, `" 1 "`, `"+1"`, `"01"`, `"0x1"`, `"0b1"`, `10e-1`}, {`-1`, `"-1"`, `-1.00`}, {`0`, `-0`, `0.0`, `"-0"`}, {`10`, `"010"`, `"1_0"`},
			{`1000000000000000000`, `1e18`, `"1000000000000000000"`}, {`1000000000000000001`}},
		KeyText:  {{`"a"`, `"a  "`}, {`"A"`}, {`1`, `"1"`}, {`1.0`}},
		KeyUUID:  {{`"6ba7b810-9dad-11d1-80b4-00c04fd430c8"`, `"{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}"`, `"6ba7b8109dad11d180b400c04fd430c8"`}, {`"7ba7b810-9dad-11d1-80b4-00c04fd430c8"`}},
		KeyLoose: {{`1`, `1.0`, `"1"`, `" 1"`, `true`, `1e0`}, {`"a"`, `"A"`, `"a "`}, {`0`, `-0.0`, `false`}},
	} {
		seen := map[uint64]string{}
		for _, class := range classes {
			for _, value := range class {
				if of(form, value) != of(form, class[0]) {
					t.Errorf("form %d: %s and %s differ", form, value, class[0])
				}
			}
			if other, ok := seen[of(form, class[0])]; ok {
				t.Errorf("form %d: %s and %s are taken for one key", form, other, class[0])
			}
			seen[of(form, class[0])] = class[0]
		}
	}
	if newKeyer(spec, map[string]KeyForm{"other": KeyText}) != nil {
		t.Error("a key of unknown form got a keyer")
	}
}

func TestTheLimitFindsTheTargetsOwn(t *testing.T) {
	l := newLimit(1000)
	tries, failed := 0, 0
	for range 2000 {
		tries++
		if l.size() > 37 {
			failed++
			l.tooLarge(l.size())
		} else {
			l.committed(l.size())
		}
	}
	if l.size() > 37 || l.size() < 15 || failed > tries/20 {
		t.Errorf("limit %d; %d of %d batches were too large", l.size(), failed, tries)
	}
	for range 10_000 {
		l.committed(l.size())
	}
	if l.size() != 1000 {
		t.Errorf("limit %d after nothing was too large", l.size())
	}
	for range 20 {
		l.tooLarge(l.size())
	}
	if l.size() != 1 {
		t.Errorf("limit %d", l.size())
	}
}
