package lint

import (
	"go/parser"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/surgetank/surgetank/internal/lint/prose"
)

// tree contains the files, declarations and headings that prose can refer to.
type tree struct {
	paths    map[string]bool            // files and directories, from the module's root
	tails    map[string]bool            // the ends of these paths
	names    map[string]map[string]bool // declarations of packages
	headings map[string]map[string]bool // anchors by document
}

func newTree(t *testing.T, files []file, documents map[string]string) *tree {
	t.Helper()
	x := &tree{paths: map[string]bool{".": true}, tails: map[string]bool{}, names: declared(files), headings: map[string]map[string]bool{}}
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil // the .git file of a work tree
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		x.paths[rel] = true
		for tail := rel; ; {
			x.tails[tail] = true
			_, rest, ok := strings.Cut(tail, "/")
			if !ok {
				return nil
			}
			tail = rest
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range documents {
		x.headings[name] = anchors(text)
	}
	return x
}

// anchors returns the anchors of a document's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	list := map[string]bool{}
	for _, b := range prose.Markdown(text) {
		if b.Kind != prose.Heading {
			continue
		}
		list[strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case c == '-', c == '_', unicode.IsLetter(c), unicode.IsDigit(c):
				return unicode.ToLower(c)
			}
			return -1
		}, strings.TrimSpace(strings.TrimLeft(b.Lines[0], "# ")))] = true
	}
	return list
}

// has reports whether a path exists relative to the root, relative to dir, or as the end of a path.
func (x *tree) has(dir, ref string) bool {
	ref = strings.TrimSuffix(ref, "/")
	return x.paths[path.Clean(ref)] || x.paths[path.Join(dir, ref)] || x.tails[ref]
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan = regexp.MustCompile("`([^`]+)`")
	// filePath matches a path whose first part is a directory of this module, or a file name with
	// the extension of a source or text file.
	filePath = regexp.MustCompile(`^(?:(?:internal|docs|test|cmd|sink|client|embedded|worker|brokertest|bench|scripts|\.ci)/[\w./-]*|[\w/-][\w./-]*\.(?:go|md))$`)
	example  = regexp.MustCompile(`NNNN|NAME|FILE|DIR|TITLE`)
	// fileInText matches a file's name inside a comment.
	fileInText = regexp.MustCompile("(?:^|[\\s(\"'`])((?:[\\w-]+/)*[\\w-][\\w.-]*\\.(?:go|md))(?:$|[\\s)\"'`,.;:])")
	docLink    = regexp.MustCompile(`\[\*?((?:([a-z]\w*)\.)?([A-Z]\w+(?:\.[A-Z]\w*)?))\](?:$|[^(:\w])`)
)

// inMarkdown returns the references of a document to missing things.
func (x *tree) inMarkdown(name string, blocks []prose.Block) (found []prose.Problem) {
	dir := path.Dir(name)
	bad := func(line int, ref string) {
		found = append(found, prose.Problem{Line: line, What: ref + " does not exist"})
	}
	for _, b := range blocks {
		if b.Kind == prose.Verbatim {
			continue
		}
		for i, text := range b.Lines {
			line := b.Line + i
			for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(text, ""), -1) {
				file, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(file, ":") {
					continue // a URL
				}
				to := path.Join(dir, file)
				if file == "" {
					to = name
				}
				if !x.paths[to] || anchor != "" && x.headings[to] != nil && !x.headings[to][anchor] {
					bad(line, m[1])
				}
			}
			for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
				ref := m[1]
				if n := codeName.FindStringSubmatch(m[0]); n != nil && !extensions[n[2]] {
					if unicode.IsUpper(rune(n[2][0])) && !x.names[n[1]][n[2]] {
						bad(line, ref)
					}
				} else if filePath.MatchString(ref) && !example.MatchString(ref) && !x.has(dir, strings.TrimSuffix(ref, "/...")) {
					bad(line, ref)
				}
			}
		}
	}
	return found
}

// inComment returns the references of a comment to missing things. Links to other packages are not
// checked.
func (x *tree) inComment(pkg string, blocks []prose.Block) (found []prose.Problem) {
	for _, b := range blocks {
		if b.Kind != prose.Text {
			continue
		}
		for i, text := range b.Lines {
			for _, m := range fileInText.FindAllStringSubmatch(text, -1) {
				if !example.MatchString(m[1]) && !x.has(pkg, m[1]) {
					found = append(found, prose.Problem{Line: b.Line + i, What: m[1] + " does not exist"})
				}
			}
			for _, m := range docLink.FindAllStringSubmatch(codeSpan.ReplaceAllString(text, ""), -1) {
				if m[2] == "" && !x.names[pkg][m[3]] {
					found = append(found, prose.Problem{Line: b.Line + i, What: "[" + m[1] + "] is not declared in this package"})
				}
			}
		}
	}
	return found
}

func TestAnchors(t *testing.T) {
	got := anchors("# The `end` of it, now\n\n```\n# no\n```\n## B_2 – c\n")
	if len(got) != 2 || !got["the-end-of-it-now"] || !got["b_2--c"] {
		t.Error(got)
	}
}

// TestReferencesSee tests the check itself: it must report exactly the broken references.
func TestReferencesSee(t *testing.T) {
	_, files := load(t, parser.SkipObjectResolution)
	x := newTree(t, files, map[string]string{"docs/a.md": "# One two\n"})
	x.paths["docs/a.md"] = true
	for text, want := range map[string]int{
		"[a](a.md#one-two) [b](#here) `queue.go` `internal/queue/record.go` `internal/queue` `docs/` `slots.go`": 1, // #here
		"[a](gone.md) [b](a.md#gone) [c](https://example.org/gone.md)":                                           2,
		"`internal/gone` `internal/queue/gone.go` `gone.md` `docs/decisions/NNNN-title.md` `*.go`":               3,
		"`internal/queue.Machine.Step` `internal/queue.Gone` `client.Dial` `client.Gone`":                        2,
		"```\n[a](gone.md)\n```": 0,
	} {
		x.headings["docs/b.md"] = map[string]bool{}
		x.paths["docs/b.md"] = true
		if got := x.inMarkdown("docs/b.md", prose.Markdown(text)); len(got) != want {
			t.Errorf("%q has %d bad references, want %d: %v", text, len(got), want, got)
		}
	}
	comments, err := prose.Comments([]byte("package p\n\n// A sees [Machine], [Machine.Step], [Gone], [Gone.Step], [context.Context] and a[N].\n// See replay.go, docs/format.md, gone.go and https://example.org/gone.md.\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := x.inComment("internal/queue", comments[0].Blocks); len(got) != 3 {
		t.Errorf("%d bad references, want 3: %v", len(got), got)
	}
}
