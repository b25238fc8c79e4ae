package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/lint/prose"
)

var (
	decisionFile = regexp.MustCompile(`^(\d{4})-.*\.md$`)
	// indexLine matches a line of the index: number and file of a note, and the mark of a
	// superseded note.
	indexLine = regexp.MustCompile(`(?m)^- \[(\d{4})\]\(([^)]*)\): .*?( \*\*Superseded.*)?$`)
)

// TestDecisionsAreInTheIndex: docs/decisions/README.md lists each note once. A superseded note is
// marked in the note and in the index.
func TestDecisionsAreInTheIndex(t *testing.T) {
	dir := filepath.Join(root(t), "docs", "decisions")
	b, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	marks := map[string]string{} // the marks in the index, by file
	for _, m := range indexLine.FindAllStringSubmatch(unwrapped(string(b)), -1) {
		number, name, mark := m[1], m[2], strings.TrimSpace(m[3])
		if _, twice := marks[name]; twice {
			t.Errorf("docs/decisions/README.md lists %s twice", name)
		}
		if !strings.HasPrefix(name, number+"-") {
			t.Errorf("docs/decisions/README.md gives %s the number %s", name, number)
		}
		marks[name] = mark
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]string{}
	for _, e := range entries {
		if e.Name() == "README.md" {
			continue
		}
		m := decisionFile.FindStringSubmatch(e.Name())
		if m == nil {
			t.Errorf("docs/decisions/%s: the name of a decision is NNNN-title.md", e.Name())
			continue
		}
		if numbers[m[1]] != "" {
			t.Errorf("docs/decisions: %s and %s have one number", numbers[m[1]], e.Name())
		}
		numbers[m[1]] = e.Name()
		mark, listed := marks[e.Name()]
		if !listed {
			t.Errorf("docs/decisions/%s is not in docs/decisions/README.md; add it under its topic", e.Name())
			continue
		}
		delete(marks, e.Name())
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if said := superseded(unwrapped(string(text))); said != strings.Trim(mark, "*.") {
			t.Errorf("docs/decisions/%s is marked %q, and docs/decisions/README.md marks it %q", e.Name(), said, mark)
		}
	}
	for name := range marks {
		t.Errorf("docs/decisions/README.md lists %s, which does not exist", name)
	}
}

// unwrapped returns a document with each paragraph and each list item on one line.
func unwrapped(text string) string {
	var b strings.Builder
	for _, x := range prose.Markdown(text) {
		b.WriteString(strings.Join(x.Wrap(1<<20), "\n") + "\n")
	}
	return b.String()
}

// superseded returns the mark below the title of a note, as "Superseded by [NNNN](FILE)", or "" if
// there is none.
func superseded(note string) string {
	_, rest, _ := strings.Cut(note, "\n")
	mark, _, ok := strings.Cut(strings.TrimSpace(rest), ":** ")
	if !ok || !strings.HasPrefix(mark, "**Superseded") {
		return ""
	}
	return strings.TrimPrefix(mark, "**")
}
