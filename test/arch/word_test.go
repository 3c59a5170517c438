package arch

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocs: every package has a doc, and every exported name.
func TestDocs(t *testing.T) {
	documented := map[string]bool{}
	sources(t, func(name string, fset *token.FileSet, file *ast.File, _ string) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		dir := filepath.Dir(name)
		documented[dir] = documented[dir] || file.Doc != nil
		for _, d := range file.Decls {
			for _, missing := range undocumented(d) {
				t.Errorf("%s: exported %s has no comment", fset.Position(missing.Pos()), missing.Name)
			}
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

func undocumented(d ast.Decl) []*ast.Ident {
	var missing []*ast.Ident
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			missing = append(missing, d.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					missing = append(missing, s.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						missing = append(missing, n)
					}
				}
			}
		}
	}
	return missing
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// TestNothingHidden: no init, no mutable package variables, no context in a
// struct, no "failed to".
func TestNothingHidden(t *testing.T) {
	sources(t, func(name string, fset *token.FileSet, file *ast.File, src string) {
		test := strings.HasSuffix(name, "_test.go")
		if !test && strings.Contains(src, `"failed to`) {
			t.Errorf("%s: a wrap names the act (\"attach network web: …\"), not \"failed to\"", name)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: no init functions", fset.Position(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !test && !strings.HasPrefix(name, "cmd/") {
					checkVars(t, fset, d)
				}
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.StructType); ok && !test {
				checkContext(t, fset, s)
			}
			return true
		})
	})
}

// checkVars lets pass what is a constant in all but Go's word: error values,
// compiled patterns, assertions that a type has an interface, tables and
// embedded files that nothing writes to.
func checkVars(t *testing.T, fset *token.FileSet, d *ast.GenDecl) {
	t.Helper()
	for _, s := range d.Specs {
		v := s.(*ast.ValueSpec)
		if len(v.Values) == 0 && !strings.Contains(d.Doc.Text()+v.Doc.Text(), "embed") && v.Names[0].Name != "_" && !embedded(d) {
			t.Errorf("%s: a mutable package variable %s", fset.Position(v.Pos()), v.Names[0].Name)
		}
	}
}

func embedded(d *ast.GenDecl) bool {
	if d.Doc == nil {
		return false
	}
	for _, c := range d.Doc.List {
		if strings.HasPrefix(c.Text, "//go:embed") {
			return true
		}
	}
	return false
}

// lifetimes are structs whose context is the end of their own life, not of a call.
var lifetimes = map[string]bool{"driverhost/host.go": true}

func checkContext(t *testing.T, fset *token.FileSet, s *ast.StructType) {
	t.Helper()
	for _, f := range s.Fields.List {
		sel, ok := f.Type.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Context" {
			continue
		}
		pos := fset.Position(f.Pos())
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "context" && !lifetimes[strings.TrimPrefix(pos.Filename, "../../")] {
			t.Errorf("%s: a context in a struct", pos)
		}
	}
}
