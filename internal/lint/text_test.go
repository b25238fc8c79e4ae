package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// doorWords are words of one protocol. A queue rule that needs one belongs to that protocol's door.
var doorWords = regexp.MustCompile(`(?i)amqp|rabbit|http|exchange|webhook|postgres|sqlite`)

// TestNoProtocolWordsBelowTheDoors checks names and string literals, but not comments. Exempt are
// settings, permissions and policies, because they use the words of the doors' users, and
// failpoints, because they name files of all layers.
func TestNoProtocolWordsBelowTheDoors(t *testing.T) {
	fset, files := load(t, 0)
	for _, f := range files {
		layer, _, ok := layerOf(f.pkg)
		if f.test || !ok || layer >= 40 || f.pkg == "internal/auth" || f.pkg == "internal/policy" || f.pkg == "internal/settings" || f.pkg == "internal/failpoint" {
			continue
		}
		paths := map[token.Pos]bool{}
		for _, spec := range f.ast.Imports {
			paths[spec.Path.Pos()] = true
			if doorWords.MatchString(spec.Path.Value) {
				t.Errorf("%s: %s imports %s; layers 0 to 3 know no protocol", fset.Position(spec.Pos()), f.pkg, spec.Path.Value)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			word := ""
			switch n := n.(type) {
			case *ast.Ident:
				word = n.Name
			case *ast.BasicLit:
				if n.Kind == token.STRING && !paths[n.Pos()] {
					word, _ = strconv.Unquote(n.Value)
				}
			}
			if m := doorWords.FindString(word); m != "" {
				t.Errorf("%s: %q in %s; layers 0 to 3 know no protocol: say it as a queue rule, or move it into the door", fset.Position(n.Pos()), m, f.pkg)
			}
			return true
		})
	}
}

// maxLines is the most lines of a file. A longer file surely contains more than one idea. The aim
// is half of it.
const maxLines = 800

func TestFilesStayReadable(t *testing.T) {
	fset, files := load(t, parser.ParseComments)
	for _, f := range files {
		if ast.IsGenerated(f.ast) {
			continue
		}
		if n := fset.File(f.ast.FileStart).LineCount(); n > maxLines {
			t.Errorf("%s has %d lines; split it by idea, at most %d are allowed", f.path, n, maxLines)
		}
	}
}

// TestTestsDoNotSleep: tests sleep only in a synctest bubble, where time is simulated. A real sleep
// is too short on a busy computer and too long on a fast one.
func TestTestsDoNotSleep(t *testing.T) {
	fset, files := load(t, parser.SkipObjectResolution)
	for _, f := range files {
		if !f.test {
			continue
		}
		if _, virtual := imports(f)["testing/synctest"]; virtual {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" {
					t.Errorf("%s: time.Sleep in a test; wait for a signal, move a clock.Manual, or use testing/synctest", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// TestPackagesSayWhatTheyAre: every package has a package comment, where newcomers start reading.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	_, files := load(t, parser.ParseComments)
	has := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		has[f.pkg] = has[f.pkg] || f.ast.Doc != nil && len(strings.TrimSpace(f.ast.Doc.Text())) > 0
	}
	for pkg, ok := range has {
		if !ok {
			t.Errorf("package %q has no package comment; say what it owns and who calls it", pkg)
		}
	}
}
