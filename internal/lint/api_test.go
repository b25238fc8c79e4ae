package lint

import (
	"bytes"
	"flag"
	"go/ast"
	"go/printer"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/api.txt anew")

// apiFile lists the names that programs outside this module can use. A change of the list changes
// their API.
const apiFile = "../../docs/api.txt"

// TestExportedAPI compares the exported API with its list, so that a review shows each change.
func TestExportedAPI(t *testing.T) {
	fset, files := load(t, 0)
	var lines []string
	for _, f := range files {
		if f.test || f.ast.Name.Name == "main" || strings.HasPrefix(f.pkg, "internal/") || strings.Contains(f.pkg, "/internal/") ||
			strings.HasPrefix(f.pkg, "test/") || strings.HasPrefix(f.pkg, "cmd/") || strings.HasPrefix(f.pkg, "bench") {
			continue
		}
		pkg := "surgetank"
		if f.pkg != "" {
			pkg += "/" + f.pkg
		}
		inside := internalNames(f.ast)
		for _, d := range exported(f.ast) {
			ast.Inspect(d, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && inside[x.Name] != "" {
						t.Errorf("%s: the exported API has %s of %s, which no program outside can name", fset.Position(s.Pos()), s.Sel.Name, inside[x.Name])
					}
				}
				return true
			})
			var b bytes.Buffer
			if err := printer.Fprint(&b, token.NewFileSet(), d); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, pkg+": "+strings.Join(strings.Fields(b.String()), " "))
		}
	}
	slices.Sort(lines)
	want := strings.Join(lines, "\n") + "\n"
	have, err := os.ReadFile(apiFile)
	if err == nil && string(have) == want {
		return
	}
	if *update {
		if err := os.WriteFile(apiFile, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	old := strings.Split(string(have), "\n")
	for _, s := range lines {
		if !slices.Contains(old, s) {
			t.Errorf("new: %s", s)
		}
	}
	for _, s := range old {
		if s != "" && !slices.Contains(lines, s) {
			t.Errorf("gone: %s", s)
		}
	}
	t.Errorf("the exported API is not what %s lists; if the change is meant, run go test ./internal/lint -run ExportedAPI -update", apiFile)
}

// internalNames returns the names under which a file imports internal packages.
func internalNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range f.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		if !strings.Contains(path, "/internal/") {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = path
	}
	return names
}

// exported returns the exported declarations of a file as other programs see them: functions
// without bodies, types without unexported parts, and constants and variables one by one.
func exported(f *ast.File) (list []ast.Node) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv))) {
				list = append(list, &ast.FuncDecl{Recv: d.Recv, Name: d.Name, Type: d.Type})
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						list = append(list, &ast.GenDecl{Tok: token.TYPE, Specs: []ast.Spec{shownType(s)}})
					}
				case *ast.ValueSpec:
					for i, name := range s.Names {
						if !name.IsExported() {
							continue
						}
						one := &ast.ValueSpec{Names: []*ast.Ident{name}, Type: s.Type}
						if d.Tok == token.CONST && i < len(s.Values) {
							one.Values = []ast.Expr{s.Values[i]}
						}
						list = append(list, &ast.GenDecl{Tok: d.Tok, Specs: []ast.Spec{one}})
					}
				}
			}
		}
	}
	return list
}

func receiver(list *ast.FieldList) string {
	x := list.List[0].Type
	if s, ok := x.(*ast.StarExpr); ok {
		x = s.X
	}
	if g, ok := x.(*ast.IndexExpr); ok {
		x = g.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// shownType returns a type without unexported fields and methods. Embedded fields stay, because
// programs can use their exported members.
func shownType(s *ast.TypeSpec) *ast.TypeSpec {
	c := *s
	c.Doc, c.Comment = nil, nil
	keep := func(list *ast.FieldList) *ast.FieldList {
		out := &ast.FieldList{Opening: list.Opening, Closing: list.Closing}
		for _, f := range list.List {
			shown := &ast.Field{Type: f.Type, Tag: f.Tag}
			for _, n := range f.Names {
				if n.IsExported() {
					shown.Names = append(shown.Names, n)
				}
			}
			if len(f.Names) == 0 || len(shown.Names) > 0 {
				out.List = append(out.List, shown)
			}
		}
		return out
	}
	switch x := s.Type.(type) {
	case *ast.StructType:
		c.Type = &ast.StructType{Fields: keep(x.Fields)}
	case *ast.InterfaceType:
		c.Type = &ast.InterfaceType{Methods: keep(x.Methods)}
	}
	return &c
}
