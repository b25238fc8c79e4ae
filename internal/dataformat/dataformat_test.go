package dataformat

import (
	"regexp"
	"strings"
	"testing"
)

func TestLevelsFollowEachOther(t *testing.T) {
	for i, l := range levels {
		if i > 0 && l.Number != levels[i-1].Number+1 {
			t.Errorf("level %d comes after level %d", l.Number, levels[i-1].Number)
		}
		if l.Number == 0 || l.Adds == "" || !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(l.Since) {
			t.Errorf("level %+v is incomplete", l)
		}
	}
}

func TestCheck(t *testing.T) {
	for level := Oldest().Number; level <= Written().Number; level++ {
		if err := Check(level, ""); err != nil {
			t.Error(err)
		}
	}
	if err := Check(Written().Number+1, "9.8.7"); err == nil || !strings.Contains(err.Error(), "use Surgetank 9.8.7 or newer") {
		t.Errorf("a newer level: %v", err)
	}
	if err := Check(Oldest().Number-1, ""); err == nil || !strings.Contains(err.Error(), "older version") {
		t.Errorf("an older level: %v", err)
	}
}
