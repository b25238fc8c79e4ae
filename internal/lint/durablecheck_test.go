package lint

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"testing"
)

// durableChecker looks for writes of durable state in one package.
type durableChecker struct {
	durability
	pkg     *types.Package
	info    *types.Info
	fields  map[*types.Var]bool // the durable fields
	aliases map[*types.Var]bool // variables and parameters that refer to the content of a durable field
	funcs   map[*types.Func]*ast.FuncDecl
}

// check lists the violations in a package.
func (d durability) check(t *testing.T, fset *token.FileSet, path string, files []*ast.File) (problems []string) {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}}
	pkg, err := (&types.Config{Importer: importer.ForCompiler(fset, "source", nil)}).Check(path, fset, files, info)
	if err != nil {
		t.Fatalf("type check of %s: %v", path, err)
	}
	c := &durableChecker{durability: d, pkg: pkg, info: info, fields: map[*types.Var]bool{}, aliases: map[*types.Var]bool{}, funcs: map[*types.Func]*ast.FuncDecl{}}
	for _, name := range d.structs {
		object := pkg.Scope().Lookup(name)
		if object == nil {
			problems = append(problems, "the durable type "+name+" does not exist")
			continue
		}
		s := object.Type().Underlying().(*types.Struct)
		for f := range s.Fields() {
			c.fields[f] = true
			if of := c.unlisted(f.Type()); of != "" {
				problems = append(problems, fmt.Sprintf("the durable field %s.%s contains %s; list this type among the durable ones", name, f.Name(), of))
			}
		}
	}
	for _, f := range files {
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
				c.funcs[info.Defs[fn.Name].(*types.Func)] = fn
			}
		}
	}
	for n := -1; n != len(c.aliases); {
		n = len(c.aliases)
		for _, fn := range c.funcs {
			c.findAliases(fn.Body)
		}
	}
	needed := map[string]bool{}
	for object, fn := range c.funcs {
		name := qualified(object)
		bad := func(pos token.Pos, format string, args ...any) {
			problems = append(problems, fmt.Sprintf("%s: %s %s", fset.Position(pos), name, fmt.Sprintf(format, args...)))
		}
		may := slices.Contains(d.appliers, name) || d.upkeep[name] != ""
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if what := c.writes(n); what != "" {
				needed[name] = true
				if !may {
					bad(n.Pos(), "writes %s, which is durable; make the change a record that apply applies", what)
				}
			}
			if id, ok := n.(*ast.Ident); ok {
				called, ok := info.Uses[id].(*types.Func)
				if !ok || called.Pkg() != pkg {
					return true
				}
				to := qualified(called.Origin())
				if !slices.Contains(d.appliers, to) {
					return true
				}
				needed[name] = true
				if !slices.Contains(d.appliers, name) && !slices.Contains(d.gates[to], name) {
					bad(n.Pos(), "calls %s, which writes durable state; emit a record that apply applies", to)
				}
			}
			if call, ok := n.(*ast.CallExpr); ok && c.setsDurableState(call) {
				needed[name] = true
				if !may {
					bad(n.Pos(), "sets a durable state of a slot; only a record may do this")
				}
			}
			return true
		})
	}
	listed := slices.Concat(d.appliers, slices.Collect(maps.Keys(d.upkeep)))
	for _, callers := range d.gates {
		listed = append(listed, callers...)
	}
	for _, name := range listed {
		if !needed[name] {
			problems = append(problems, name+" is on the list and does not write durable state; remove it from the list")
		}
	}
	slices.Sort(problems)
	return problems
}

// qualified returns "function" or "Type.method".
func qualified(f *types.Func) string {
	recv := f.Signature().Recv()
	if recv == nil {
		return f.Name()
	}
	of := recv.Type()
	if p, ok := of.(*types.Pointer); ok {
		of = p.Elem()
	}
	if n, ok := of.(*types.Named); ok {
		return n.Obj().Name() + "." + f.Name()
	}
	return f.Name()
}

// findAliases adds variables that are set from durable fields, and parameters and receivers of
// functions that durable fields are passed to.
func (c *durableChecker) findAliases(body ast.Node) {
	set := func(v *types.Var, from ast.Expr) {
		if v == nil || !c.durable(from) {
			return
		}
		switch t := v.Type().Underlying().(type) {
		case *types.Map, *types.Slice:
			c.aliases[v] = true
		case *types.Pointer:
			if !c.own(t.Elem()) { // the fields of the package's own types say whether they are durable
				c.aliases[v] = true
			}
		}
	}
	variable := func(e ast.Expr) *types.Var {
		id, ok := e.(*ast.Ident)
		if !ok {
			return nil
		}
		if v, ok := c.info.Defs[id].(*types.Var); ok {
			return v
		}
		v, _ := c.info.Uses[id].(*types.Var)
		return v
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i := range n.Lhs {
				if len(n.Lhs) == len(n.Rhs) {
					set(variable(n.Lhs[i]), n.Rhs[i])
				} else if i == 0 { // v, ok := m[k]
					set(variable(n.Lhs[0]), n.Rhs[0])
				}
			}
		case *ast.ValueSpec:
			for i := range n.Values {
				set(variable(n.Names[i]), n.Values[i])
			}
		case *ast.RangeStmt:
			set(variable(n.Value), n.X)
		case *ast.CallExpr:
			f, recv := c.callee(n)
			if f == nil || f.Pkg() != c.pkg {
				break
			}
			sig := f.Origin().Signature()
			if recv != nil && sig.Recv() != nil {
				set(sig.Recv(), recv)
			}
			for i, arg := range n.Args {
				if i < sig.Params().Len() {
					set(sig.Params().At(i), arg)
				}
			}
		}
		return true
	})
}

// callee returns the function that a call names, and the receiver of a method. It returns nil for
// other calls.
func (c *durableChecker) callee(n *ast.CallExpr) (f *types.Func, recv ast.Expr) {
	switch fun := ast.Unparen(n.Fun).(type) {
	case *ast.Ident:
		f, _ = c.info.Uses[fun].(*types.Func)
	case *ast.SelectorExpr:
		f, _ = c.info.Uses[fun.Sel].(*types.Func)
		if s := c.info.Selections[fun]; s != nil {
			recv = fun.X
		}
	}
	return f, recv
}

// own reports whether a type is a struct that the package declares.
func (c *durableChecker) own(t types.Type) bool {
	n, ok := types.Unalias(t).(*types.Named)
	if !ok {
		return false
	}
	_, isStruct := n.Underlying().(*types.Struct)
	return isStruct && n.Obj().Pkg() == c.pkg
}

// unlisted returns the name of the package's struct that values of a type lead to, if the struct is
// on no list.
func (c *durableChecker) unlisted(t types.Type) string {
	if c.own(t) {
		name := types.Unalias(t).(*types.Named).Obj().Name()
		if slices.Contains(c.structs, name) || slices.Contains(c.mixed, name) {
			return ""
		}
		return name
	}
	switch u := t.Underlying().(type) {
	case *types.Pointer:
		return c.unlisted(u.Elem())
	case *types.Slice:
		return c.unlisted(u.Elem())
	case *types.Map:
		return c.unlisted(u.Elem())
	}
	return ""
}

// durable reports whether an expression is a durable field or refers to the content of one.
func (c *durableChecker) durable(e ast.Expr) bool {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		v, _ := c.info.Uses[e].(*types.Var)
		return c.aliases[v]
	case *ast.SelectorExpr:
		s := c.info.Selections[e]
		if s == nil || s.Kind() != types.FieldVal {
			return false
		}
		of := s.Recv()
		if p, ok := of.Underlying().(*types.Pointer); ok {
			of = p.Elem()
		}
		return c.fields[s.Obj().(*types.Var)] || !c.own(of) && c.durable(e.X)
	case *ast.IndexExpr:
		return c.durable(e.X)
	case *ast.SliceExpr:
		return c.durable(e.X)
	case *ast.StarExpr:
		return c.durable(e.X)
	case *ast.UnaryExpr:
		return e.Op == token.AND && c.durable(e.X)
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok && id.Name == "append" {
			return c.durable(e.Args[0])
		}
	}
	return false
}

// contains reports whether a value of a type has durable fields in it.
func (c *durableChecker) contains(t types.Type) bool {
	switch u := t.Underlying().(type) {
	case *types.Struct:
		for f := range u.Fields() {
			if c.fields[f] || c.contains(f.Type()) {
				return true
			}
		}
	case *types.Array:
		return c.contains(u.Elem())
	}
	return false
}

// mutators are functions of the standard library that change their first argument.
var mutators = []string{"Delete", "DeleteFunc", "Insert", "Replace", "Reverse", "Sort", "SortFunc", "SortStableFunc", "Compact", "CompactFunc", "Copy"}

// writes describes the durable state that a statement or a call writes. It returns "" if there is
// none.
func (c *durableChecker) writes(n ast.Node) string {
	target := func(e ast.Expr) string {
		switch e := ast.Unparen(e).(type) {
		case *ast.Ident:
			return ""
		default:
			if c.durable(e) || c.contains(c.info.Types[e].Type) {
				return types.ExprString(e)
			}
		}
		return ""
	}
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok == token.DEFINE {
			return ""
		}
		for _, e := range n.Lhs {
			if what := target(e); what != "" {
				return what
			}
		}
	case *ast.IncDecStmt:
		return target(n.X)
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if e != nil && target(e) != "" {
					return target(e)
				}
			}
		}
	case *ast.CallExpr:
		return c.writesArgument(n)
	}
	return ""
}

// writesArgument describes the durable state that a called function changes, if the function is
// built in or belongs to another package, or if it gets the address of a durable variable.
func (c *durableChecker) writesArgument(n *ast.CallExpr) string {
	if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear" || id.Name == "copy") && c.durable(n.Args[0]) {
		return types.ExprString(n.Args[0])
	}
	for _, arg := range n.Args {
		address, ok := arg.(*ast.UnaryExpr)
		if !ok || address.Op != token.AND || !c.durable(address.X) {
			continue
		}
		switch c.info.Types[address.X].Type.Underlying().(type) {
		case *types.Map, *types.Slice, *types.Basic:
			return types.ExprString(address.X)
		}
	}
	f, recv := c.callee(n)
	if f == nil || f.Pkg() == c.pkg {
		return ""
	}
	if recv != nil && f.Signature().Recv() != nil {
		if _, byPointer := f.Signature().Recv().Type().(*types.Pointer); byPointer && c.durable(recv) {
			return types.ExprString(recv)
		}
		return ""
	}
	if f.Pkg() != nil && (f.Pkg().Path() == "slices" || f.Pkg().Path() == "maps") && slices.Contains(mutators, f.Name()) && c.durable(n.Args[0]) {
		return types.ExprString(n.Args[0])
	}
	return ""
}

// setsDurableState reports whether a call sets a slot to a state that only a record may set.
func (c *durableChecker) setsDurableState(n *ast.CallExpr) bool {
	f, _ := c.callee(n)
	if f == nil || f.Pkg() != c.pkg || qualified(f) != "slot.to" {
		return false
	}
	id, ok := n.Args[0].(*ast.Ident)
	return !ok || !slices.Contains([]string{"slotWaiting", "slotDelayed", "slotLeased", "slotHeld", "slotBehind"}, id.Name)
}
