package lint

import (
	"flag"
	"fmt"
	"go/parser"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/lint/prose"
)

var shrinkFlag = flag.Bool("shrink", false, "take rooms that obey off the list in testdata/rooms.txt")

// roomsFile lists the rooms whose prose does not obey the rules yet. A room is the directory of a
// package, or a document.
const roomsFile = "testdata/rooms.txt"

// documents returns the Markdown files of the module. Results of benchmarks are records and stay
// unchanged, so they are left out.
func documents(t *testing.T) map[string]string {
	t.Helper()
	top, list := root(t), map[string]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != top && (d.Name() == "testdata" || d.Name() == "results" || strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		list[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil || len(list) < 10 {
		t.Fatalf("found %d documents, %v", len(list), err)
	}
	return list
}

// problems checks all prose. It returns the problems of each room.
func problems(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/banned.txt")
	if err != nil {
		t.Fatal(err)
	}
	var rules prose.Rules
	if rules.Banned, err = prose.ParseBanned(string(b)); err != nil {
		t.Fatalf("testdata/banned.txt: %v", err)
	}
	rooms := map[string][]string{}
	note := func(room, file string, found []prose.Problem) {
		rooms[room] = rooms[room] // adds the room, even without problems
		for _, p := range found {
			rooms[room] = append(rooms[room], fmt.Sprintf("%s:%d: %s", file, p.Line, p.What))
		}
	}
	docs := documents(t)
	_, files := load(t, parser.SkipObjectResolution)
	x := newTree(t, files, docs)
	for name, text := range docs {
		blocks := prose.Markdown(text)
		note(name, name, append(rules.Check(blocks, 0, true), x.inMarkdown(name, blocks)...))
	}
	for _, f := range files {
		src, err := os.ReadFile(filepath.Join(root(t), f.path))
		if err != nil {
			t.Fatal(err)
		}
		comments, err := prose.Comments(src)
		if err != nil {
			t.Fatal(err)
		}
		room := f.pkg
		if room == "" {
			room = "."
		}
		for _, c := range comments {
			note(room, f.path, append(rules.Check(c.Blocks, prose.Width(c.Indent)+2, !c.Trailing), x.inComment(f.pkg, c.Blocks)...))
		}
	}
	return rooms
}

// TestProse checks the rules for comments and documents: short sentences, no banned phrases, line
// width, and references to existing things. A room in roomsFile may break the rules. When it obeys
// them, it must be removed from the list, so the list can only shrink.
func TestProse(t *testing.T) {
	b, err := os.ReadFile(roomsFile)
	if err != nil {
		t.Fatal(err)
	}
	rooms := problems(t)
	var kept []string
	excused := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		name := strings.TrimSpace(line)
		if name == "" || strings.HasPrefix(name, "#") {
			kept = append(kept, line)
			continue
		}
		found, exists := rooms[name]
		switch {
		case exists && len(found) > 0:
			excused[name] = true
			kept = append(kept, line)
		case *shrinkFlag:
		case exists:
			t.Errorf("%s obeys the rules for prose now; take it off the list in internal/lint/%s (go test ./internal/lint -run Prose -shrink)", name, roomsFile)
		default:
			t.Errorf("internal/lint/%s lists %s, which is no package and no document", roomsFile, name)
		}
	}
	if *shrinkFlag {
		if err := os.WriteFile(roomsFile, []byte(strings.Join(kept, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		if excused[room] {
			continue
		}
		found := rooms[room]
		for _, p := range found[:min(len(found), 20)] {
			t.Error(p)
		}
		if len(found) > 20 {
			t.Errorf("%s: and %d more problems", room, len(found)-20)
		}
	}
}
