package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/surgetank/surgetank"

// file is one Go file of the module, for any operating system.
type file struct {
	path string // from the module's root, with slashes
	pkg  string // import path below the module; "" is the root package
	test bool
	ast  *ast.File
}

// root returns the module's directory.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's directory")
		}
		dir = up
	}
}

// load parses every Go file of the module. Nested modules and testdata are left out.
func load(t *testing.T, mode parser.Mode) (*token.FileSet, []file) {
	t.Helper()
	top, fset := root(t), token.NewFileSet()
	var files []file
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path == top {
				return nil
			}
			if name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(fset, rel, src, mode)
		if err != nil {
			return err
		}
		pkg := ""
		if i := strings.LastIndexByte(rel, '/'); i >= 0 {
			pkg = rel[:i]
		}
		files = append(files, file{rel, pkg, strings.HasSuffix(name, "_test.go"), parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Fatalf("found %d Go files below %s; the walk is broken", len(files), top)
	}
	return fset, files
}

// imports returns the import paths of a file with their positions.
func imports(f file) map[string]token.Pos {
	m := map[string]token.Pos{}
	for _, spec := range f.ast.Imports {
		if path, err := strconv.Unquote(spec.Path.Value); err == nil {
			m[path] = spec.Pos()
		}
	}
	return m
}

// own returns the part of an import path below the module, and whether the module contains it.
func own(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}
