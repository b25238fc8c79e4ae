package load

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

func TestBody(t *testing.T) {
	b := Body("p1-12", 0, 400)
	if v, whole := ReadBody(b); v != "p1-12" || !whole || !json.Valid(b) {
		t.Errorf("%s %v from %s", v, whole, b)
	}
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 1
		if v, whole := ReadBody(bad); whole {
			t.Errorf("byte %d changed, unnoticed: %s", i, v)
		}
		if v, whole := ReadBody(b[:i]); whole {
			t.Errorf("cut at byte %d, unnoticed: %s", i, v)
		}
	}
	if !bytes.Equal(b, Body("p1-12", 0, 400)) {
		t.Error("a repeated message has another body")
	}
	if n := len(Body("p1-12", 60_000, 60_000)); n < 60_000 {
		t.Errorf("a body of %d bytes", n)
	}
}
