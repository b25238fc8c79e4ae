package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/test/hostile"
)

// TestSecurityRulesHaveTheirTests reads the tables of docs/security.md: every rule names a test,
// and every named test exists.
func TestSecurityRulesHaveTheirTests(t *testing.T) {
	_, files := load(t, parser.SkipObjectResolution)
	tests := map[string]bool{}
	for _, f := range files {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[f.pkg+" "+fn.Name.Name] = true
			}
		}
	}
	for _, c := range hostile.Cases() {
		tests[fmt.Sprintf("test/hostile AMQP %d", c.Number)] = true
	}
	for _, c := range hostile.HTTPCases() {
		tests[fmt.Sprintf("test/hostile HTTP %d", c.Number)] = true
	}
	campaign, err := os.ReadFile(filepath.Join(root(t), "test", "faults", "list.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`id: "(\w+)"`).FindAllSubmatch(campaign, -1) {
		tests["test/faults "+string(m[1])] = true
	}
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	rules, named := 0, 0
	for n, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "rule" {
			continue
		}
		rules++
		where, here := "", 0
		for _, name := range strings.Split(cells[4], ",") {
			name = strings.TrimSpace(name)
			if rest, ok := strings.CutPrefix(name, "`"); ok {
				where, name, _ = strings.Cut(rest, "` ")
			}
			if name == "" {
				continue
			}
			here++
			if !tests[where+" "+name] {
				t.Errorf("docs/security.md:%d: there is no test %s in %s; a rule without its test is a wish", n+1, name, where)
			}
		}
		if named += here; here == 0 {
			t.Errorf("docs/security.md:%d: the rule %q names no test", n+1, strings.TrimSpace(cells[1]))
		}
	}
	if rules < 30 {
		t.Fatalf("found %d rules in docs/security.md; the reading of its tables is broken", rules)
	}
	t.Logf("%d rules name %d tests", rules, named)
}

// formatted are functions with a format parameter. The value is its position.
var formatted = map[string]int{"Sprintf": 0, "Errorf": 0, "Printf": 0, "Appendf": 1, "Fprintf": 1, "Logf": 0, "Fatalf": 0}

// TestFormatsAreConstant: outside text is never used as a format. A wrapper (a function whose last
// parameter is ...any) may pass on its own format parameter. go vet recognises wrappers and checks
// their callers.
func TestFormatsAreConstant(t *testing.T) {
	fset, files := load(t, parser.SkipObjectResolution)
	calls := 0
	for _, f := range files {
		if f.test || strings.HasPrefix(f.pkg, "test/") || strings.HasPrefix(f.pkg, "bench") {
			continue // these programs have no clients
		}
		passed := wrapped(f.ast)
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			at, ok := formatted[sel.Sel.Name]
			if !ok {
				return true
			}
			if id, isPackage := sel.X.(*ast.Ident); isPackage && (id.Name == "wire" || id.Name == "surgetank") && sel.Sel.Name == "Errorf" {
				at = 1 // the format follows the code
			}
			if at >= len(call.Args) {
				return true
			}
			if calls++; !constant(call.Args[at], passed) {
				t.Errorf("%s: the format of %s is not a constant; what comes from outside must never be one", fset.Position(call.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
	if calls < 100 {
		t.Fatalf("found %d formats; the search is broken", calls)
	}
}

// wrapped returns the parts of a file in which a wrapper's parameters are visible, by the
// parameters' names.
func wrapped(f *ast.File) map[string][]ast.Node {
	passed := map[string][]ast.Node{}
	ast.Inspect(f, func(n ast.Node) bool {
		var typ *ast.FuncType
		switch fn := n.(type) {
		case *ast.FuncDecl:
			typ = fn.Type
		case *ast.FuncLit:
			typ = fn.Type
		default:
			return true
		}
		params := typ.Params.List
		if len(params) == 0 {
			return true
		}
		if _, variadic := params[len(params)-1].Type.(*ast.Ellipsis); variadic {
			for _, p := range params[:len(params)-1] {
				for _, name := range p.Names {
					passed[name.Name] = append(passed[name.Name], n)
				}
			}
		}
		return true
	})
	return passed
}

func constant(e ast.Expr, passed map[string][]ast.Node) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return e.Kind == token.STRING
	case *ast.BinaryExpr:
		return e.Op == token.ADD && constant(e.X, passed) && constant(e.Y, passed)
	case *ast.ParenExpr:
		return constant(e.X, passed)
	case *ast.Ident:
		for _, wrapper := range passed[e.Name] {
			if e.Pos() >= wrapper.Pos() && e.Pos() < wrapper.End() {
				return true
			}
		}
	}
	return false
}

// TestNothingDangerousIsUsed: no code uses the packages and settings that caused known security
// holes in other servers.
func TestNothingDangerousIsUsed(t *testing.T) {
	fset, files := load(t, parser.SkipObjectResolution)
	why := map[string]string{
		"encoding/gob":   "objects of a stranger's choosing must not be made",
		"expvar":         "it shows the command line to everybody",
		"net/http/pprof": "importing it opens a profiler on the default mux",
		"plugin":         "no code is loaded at run time",
		"math/rand":      "use crypto/rand for what must not be guessed, math/rand/v2 for the rest",
	}
	for _, f := range files {
		if f.test {
			continue
		}
		for path, pos := range imports(f) {
			if reason := why[path]; reason != "" {
				t.Errorf("%s: imports %s: %s", fset.Position(pos), path, reason)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name == "InsecureSkipVerify" {
				t.Errorf("%s: TLS must never be left unchecked", fset.Position(id.Pos()))
			}
			return true
		})
	}
}
