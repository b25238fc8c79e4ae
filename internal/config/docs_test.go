package config

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDocumentedFilesAreGood: every configuration file in the documentation can be applied
// unchanged.
func TestDocumentedFilesAreGood(t *testing.T) {
	block := regexp.MustCompile("(?s)(?:```yaml\n|<<'YAML'\n)(.*?)(?:```|YAML\n)")
	env := func(name string) (string, bool) { return "postgres://user:password@host/database", true }
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllSubmatch(text, -1) {
			found++
			if _, err := Parse(filepath.Base(page), m[1], env); err != nil {
				t.Errorf("%v\nin\n%s", err, m[1])
			}
		}
	}
	if found < 2 {
		t.Errorf("%d files found in the documentation; the pattern is broken", found)
	}
}
