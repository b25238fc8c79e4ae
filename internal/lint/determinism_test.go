package lint

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// unorderedMark is a mark in a comment on the line of a map range or the line above. It says that
// the order has no effect, and is followed by the reason.
const unorderedMark = "unordered:"

// impure are imports that a deterministic package must not have.
var impure = map[string]string{
	"context": "cancellation arrives at arbitrary moments", "sync": "one goroutine owns the machine", "sync/atomic": "one goroutine owns the machine",
	"os": "no I/O", "net": "no I/O", "net/http": "no I/O", "io/fs": "no I/O", "path/filepath": "no I/O", "log": "no I/O", "log/slog": "no I/O",
	"crypto/rand": "randomness is injected", "runtime": "no scheduling", "unsafe": "no memory layout", "hash/maphash": "its seed differs in every process",
}

// impureCalls are functions of otherwise allowed packages whose results are not deterministic.
var impureCalls = map[string]func(name string) bool{
	"time": func(n string) bool {
		switch n {
		case "Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local", "LoadLocation":
			return true
		}
		return false
	},
	// A generator made with New from an injected seed is allowed, but not the package's global
	// generator.
	"math/rand": isGlobalRand, "math/rand/v2": isGlobalRand,
	// These functions return a map's content in random order. slices.Sorted(maps.Keys(m)) is
	// recognised and allowed.
	"maps": func(n string) bool { return n == "Keys" || n == "Values" || n == "All" },
}

func isGlobalRand(n string) bool {
	return !strings.HasPrefix(n, "New") && n != "Rand" && n != "Source" && n != "PCG" && n != "ChaCha8"
}

// deterministic are the packages that must be deterministic.
var deterministic = []string{"internal/queue", "internal/adapt", "internal/breaker", "internal/lease/rules"}

// TestQueueIsDeterministic checks the machine's promise: the same commands and the same seed
// produce the same bytes, on every computer and at any time. The simulator and every replay depend
// on it.
func TestQueueIsDeterministic(t *testing.T) {
	fset, files := load(t, parser.ParseComments)
	for _, path := range deterministic {
		var pkg []*ast.File
		for _, f := range files {
			if f.pkg == path && !f.test {
				pkg = append(pkg, f.ast)
			}
		}
		if len(pkg) == 0 {
			t.Fatalf("%s is gone; the determinism test has nothing to hold", path)
		}
		for _, problem := range nondeterminism(t, fset, path, pkg) {
			t.Error(problem)
		}
	}
}

// nondeterminism lists the code of a package whose result could differ between two runs.
func nondeterminism(t *testing.T, fset *token.FileSet, path string, files []*ast.File) []string {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	if _, err := conf.Check(path, fset, files, info); err != nil {
		t.Fatalf("type check of %s: %v", path, err)
	}
	var problems []string
	for _, f := range files {
		c := checker{fset: fset, info: info, file: f, problems: &problems}
		for _, spec := range f.Imports {
			if why, bad := impure[strings.Trim(spec.Path.Value, `"`)]; bad {
				c.add(spec.Pos(), "imports %s: %s", spec.Path.Value, why)
			}
		}
		for _, decl := range f.Decls {
			c.sorts = callsSort(info, decl)
			ast.Walk(&c, decl)
		}
	}
	return problems
}

type checker struct {
	fset     *token.FileSet
	info     *types.Info
	file     *ast.File
	sorts    bool // the current function sorts something
	problems *[]string
}

func (c *checker) add(pos token.Pos, format string, args ...any) {
	*c.problems = append(*c.problems, fmt.Sprintf("%s: %s", c.fset.Position(pos), fmt.Sprintf(format, args...)))
}

func (c *checker) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.GoStmt:
		c.add(n.Pos(), "starts a goroutine; one goroutine owns the machine, and it is the caller's")
	case *ast.SelectStmt:
		c.add(n.Pos(), "select chooses at random among ready cases")
	case *ast.SendStmt:
		c.add(n.Pos(), "sends on a channel; outputs are returned as data")
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			c.add(n.Pos(), "receives from a channel; inputs are arguments")
		}
	case *ast.CallExpr:
		if pkg, name := pkgFunc(c.info, n.Fun); (pkg == "slices" || pkg == "sort") && strings.HasPrefix(name, "Sorted") {
			return nil // slices.Sorted(maps.Keys(m)) is in a fixed order
		}
	case *ast.SelectorExpr:
		if pkg, name := pkgFunc(c.info, n); pkg != "" {
			if bad := impureCalls[pkg]; bad != nil && bad(name) {
				c.add(n.Pos(), "uses %s.%s; time, randomness and order come in as arguments", pkg, name)
			}
		}
	case *ast.RangeStmt:
		if tv, ok := c.info.Types[n.X]; ok {
			if _, isMap := tv.Type.Underlying().(*types.Map); isMap && !c.orderIrrelevant(n) {
				c.add(n.Pos(), "ranges over a map, whose order differs in every run; collect and sort the keys, or say why the order cannot matter in a comment %q on this line or the one above",
					unorderedMark+" …")
			}
		}
	}
	return c
}

// orderIrrelevant allows four kinds of map range:
//
//   - a range with the mark
//   - a range that only counts (no key or value)
//   - a range that only fills another map under the same keys
//   - a range that only appends to a slice, in a function that sorts
func (c *checker) orderIrrelevant(n *ast.RangeStmt) bool {
	if n.Key == nil && n.Value == nil {
		return true
	}
	line := c.fset.Position(n.Pos()).Line
	for _, group := range c.file.Comments {
		for _, comment := range group.List {
			at := c.fset.Position(comment.End()).Line
			if (at == line || at == line-1) && strings.Contains(comment.Text, unorderedMark) {
				return true
			}
		}
	}
	if len(n.Body.List) != 1 {
		return false
	}
	stmt := n.Body.List[0]
	if cond, ok := stmt.(*ast.IfStmt); ok && cond.Else == nil && len(cond.Body.List) == 1 {
		stmt = cond.Body.List[0]
	}
	assign, ok := stmt.(*ast.AssignStmt)
	if !ok || len(assign.Rhs) != 1 {
		return false
	}
	if target, ok := assign.Lhs[0].(*ast.IndexExpr); ok && assign.Tok == token.ASSIGN {
		_, toMap := c.info.Types[target.X].Type.Underlying().(*types.Map)
		key, byKey := target.Index.(*ast.Ident)
		over, named := n.Key.(*ast.Ident)
		return toMap && byKey && named && key.Name == over.Name
	}
	call, ok := assign.Rhs[0].(*ast.CallExpr)
	if !ok || !c.sorts {
		return false
	}
	fun, ok := call.Fun.(*ast.Ident)
	return ok && fun.Name == "append"
}

// pkgFunc returns the package and name of a qualified identifier, or empty strings.
func pkgFunc(info *types.Info, e ast.Expr) (pkg, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	if p, ok := info.Uses[id].(*types.PkgName); ok {
		return p.Imported().Path(), sel.Sel.Name
	}
	return "", ""
}

func callsSort(info *types.Info, n ast.Node) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			pkg, name := pkgFunc(info, call.Fun)
			found = found || pkg == "sort" || pkg == "slices" && strings.HasPrefix(name, "Sort")
		}
		return !found
	})
	return found
}

// TestDeterminismCheckSees tests the check itself with code that breaks every rule once.
func TestDeterminismCheckSees(t *testing.T) {
	const src = `package p
import ("context"; "maps"; "math/rand/v2"; "slices"; "sort"; "time")
var _ context.Context
func good(m map[string]int, r *rand.Rand) (keys []string) {
	for k := range m { keys = append(keys, k) }
	sort.Strings(keys)
	for range m { r.Int() }
	copied := map[string]int{}
	for k, v := range m { if v > 0 { copied[k] = v } }
	// unordered: a sum is the same in any order
	for _, v := range m { _ = v }
	_ = slices.Sorted(maps.Keys(m))
	return keys
}
func bad(m map[string]int, c chan int) {
	_ = time.Now()
	_ = rand.Int()
	go good(nil, nil)
	select {}
	c <- 1
	<-c
	for k := range m { _ = k }
	for k := range maps.Keys(m) { _ = k }
}
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	got := nondeterminism(t, fset, "p", []*ast.File{f})
	lines := map[string]bool{}
	for _, p := range got {
		lines[strings.SplitN(p, ":", 3)[1]] = true
	}
	for _, want := range []string{"2", "16", "17", "18", "19", "20", "21", "22", "23"} {
		if !lines[want] {
			t.Errorf("line %s was not reported", want)
		}
	}
	if len(got) != 9 {
		t.Errorf("%d problems, want 9:\n%s", len(got), strings.Join(got, "\n"))
	}
}
