package lint

import (
	"go/ast"
	"go/parser"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// ofTests are packages that no shipped program links. Their goroutines end with a test.
var ofTests = []string{"test", "bench", "brokertest", "sink/sinktest", "internal/door/doortest", "internal/sim", "internal/lint", "internal/pgtest", "internal/natstest", "internal/jetlog/fenced/model",
	"internal/server/child", "internal/commitlog/commitlogtest", "internal/queue/model"}

// goroutineRow matches the first cell of a row: the function that starts goroutines, and its number
// of go statements.
var goroutineRow = regexp.MustCompile("^\\| `([a-z/]+\\.[A-Za-z.]+)`(?: ×(\\d+))? \\|")

// goroutineTable returns the rows under "## Goroutines" in ARCHITECTURE.md: for each starting
// function, the number of statements.
func goroutineTable(t *testing.T) map[string]int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## Goroutines\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]int{}
	for line := range strings.Lines(section) {
		if m := goroutineRow.FindStringSubmatch(line); m != nil {
			n := 1
			if m[2] != "" {
				n, _ = strconv.Atoi(m[2])
			}
			rows[m[1]] += n
		}
	}
	if len(rows) == 0 {
		t.Fatal("ARCHITECTURE.md has no table of goroutines")
	}
	return rows
}

// startsGoroutine reports whether a statement starts a goroutine, now or later: go, WaitGroup.Go,
// errgroup's Go, time.AfterFunc, context.AfterFunc.
func startsGoroutine(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		return ok && (sel.Sel.Name == "Go" && len(n.Args) == 1 || sel.Sel.Name == "AfterFunc" && len(n.Args) == 2)
	}
	return false
}

// funcName returns the name of a function, or TYPE.NAME for a method.
func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	typ := f.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
}

// TestGoroutinesAreListed: the table in ARCHITECTURE.md lists exactly the statements that start a
// goroutine.
func TestGoroutinesAreListed(t *testing.T) {
	rows, found := goroutineTable(t), map[string]int{}
	fset, files := load(t, parser.SkipObjectResolution)
	for _, f := range files {
		skip := f.test
		for _, dir := range ofTests {
			skip = skip || f.pkg == dir || strings.HasPrefix(f.pkg, dir+"/")
		}
		if skip {
			continue
		}
		for _, decl := range f.ast.Decls {
			name := f.pkg + ".init"
			if fn, ok := decl.(*ast.FuncDecl); ok {
				name = f.pkg + "." + funcName(fn)
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				if n != nil && startsGoroutine(n) {
					if found[name]++; found[name] == rows[name]+1 {
						t.Errorf("%s: %s starts a goroutine that is not in the table of ARCHITECTURE.md; say there what it does and what ends it", fset.Position(n.Pos()), name)
					}
				}
				return true
			})
		}
	}
	for name, n := range rows {
		if found[name] < n {
			t.Errorf("ARCHITECTURE.md says that %s starts %d goroutines, and it starts %d", name, n, found[name])
		}
	}
}
