package lint

import (
	"go/ast"
	"go/parser"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declared returns the names that each package declares, including in tests: functions, types,
// constants, variables, fields and methods, as NAME or TYPE.NAME.
func declared(files []file) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, f := range files {
		names := all[f.pkg]
		if names == nil {
			names = map[string]bool{}
			all[f.pkg] = names
		}
		for _, decl := range f.ast.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				names[funcName(decl)] = true
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							names[id.Name] = true
						}
					case *ast.TypeSpec:
						names[spec.Name.Name] = true
						declaredBy(spec, names)
					}
				}
			}
		}
	}
	return all
}

// declaredBy adds the fields of a struct and the methods of an interface.
func declaredBy(spec *ast.TypeSpec, names map[string]bool) {
	var list *ast.FieldList
	switch typ := spec.Type.(type) {
	case *ast.StructType:
		list = typ.Fields
	case *ast.InterfaceType:
		list = typ.Methods
	default:
		return
	}
	for _, field := range list.List {
		for _, id := range field.Names {
			names[spec.Name.Name+"."+id.Name] = true
		}
	}
}

// codeName matches a name of this module in backticks, as package and name.
var codeName = regexp.MustCompile("`((?:cmd|internal|sink|client|embedded|worker|brokertest|test|bench)(?:/[a-z0-9_]+)*)\\.([A-Za-z_][A-Za-z0-9_.]*)`")

// extensions are the endings of file names, which are not names of code.
var extensions = map[string]bool{"go": true, "md": true, "txt": true, "json": true, "yaml": true, "sim": true, "sh": true, "py": true}

// TestNamesInArchitectureExist: every name of code in ARCHITECTURE.md exists.
func TestNamesInArchitectureExist(t *testing.T) {
	_, files := load(t, parser.SkipObjectResolution)
	all := declared(files)
	b, err := os.ReadFile(filepath.Join(root(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for i, line := range strings.Split(string(b), "\n") {
		for _, m := range codeName.FindAllStringSubmatch(line, -1) {
			if extensions[m[2]] {
				continue
			}
			if found++; !all[m[1]][m[2]] {
				t.Errorf("ARCHITECTURE.md:%d: package %s has no %s", i+1, m[1], m[2])
			}
		}
	}
	if found < 50 {
		t.Fatalf("found %d names of code; the search is broken", found)
	}
}
