package failpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryPointIsReachedSomewhere reads the sources. A crash test of a point that no code reaches
// would test nothing.
func TestEveryPointIsReachedSomewhere(t *testing.T) {
	names := map[string]bool{} // of the constants
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "points.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, n := range s.(*ast.ValueSpec).Names {
				names[n.Name] = true
			}
		}
	}
	if len(names) != len(All) || len(names) < 40 {
		t.Errorf("there are %d points and %d in All; at least 40 are wanted", len(names), len(All))
	}
	seen := map[Point]bool{}
	for _, p := range All {
		if seen[p] || strings.Contains(string(p), "=") {
			t.Errorf("%q is twice in All, or has a = in it", p)
		}
		seen[p] = true
	}
	reached := map[string]bool{}
	err = filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, after := range strings.Split(string(b), "failpoint.Reach(failpoint.")[1:] {
			name, _, _ := strings.Cut(after, ")")
			reached[name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range names {
		if !reached[n] {
			t.Errorf("no code reaches %s", n)
		}
	}
}
