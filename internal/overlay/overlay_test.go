package overlay

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const source = "// Package p.\npackage p\n\nfunc f() int { return 1 + 2 }\n"

func TestWrite(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Write(root, dir, "x", []Edit{
		{File: "p.go", Old: "2", New: "3 + a.B"},
		{File: "p.go", Old: "return", New: "b.C(); return", Imports: []string{"m/b", "m/a"}},
		{File: "p.go", Old: "func f()", Before: "type t = ", After: "+"},
		{File: "p.go", Old: "func", Before: "/**/", After: "-"},
		{File: "q/new.go", New: "package q\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(b, &overlay); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"p.go":     "// Package p.\npackage p; import \"m/a\"; import \"m/b\"\n\ntype t = /**/func- f()+ int { b.C(); return 1 + 3 + a.B }\n",
		"q/new.go": "package q\n",
	} {
		got, err := os.ReadFile(overlay.Replace[filepath.Join(root, file)])
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", file, got, err, want)
		}
	}
}

func TestBadEdits(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, edits := range map[string][]Edit{
		"0 times":        {{File: "p.go", Old: "return 2"}},
		"2 times":        {{File: "p.go", Old: "package p\n"}, {File: "p.go", Old: "ack"}},
		"overlap":        {{File: "p.go", Old: "return 1"}, {File: "p.go", Old: "1 + 2"}},
		"no such file":   {{File: "q.go", Old: "return"}},
		"p.go: the file": {{File: "p.go", Old: "gone"}, {File: "p.go", Old: "return"}},
	} {
		if _, err := Write(root, t.TempDir(), "x", edits); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", edits, err, want)
		}
	}
}
