// Package catalogue writes the list of events in docs/events.md from the core's
// source: names and fields as the log has them, meanings from the doc comments.
package catalogue

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The list stands between these lines of the page.
const (
	begin = "<!-- the catalogue begins; written by: go test ./test/catalogue -update -->\n"
	end   = "<!-- the catalogue ends -->\n"
)

// declared is a type of the core.
type declared struct {
	doc    string
	fields *ast.StructType // nil for what is no struct
	expr   ast.Expr
	event  string // its name in the log, if it is an event
	folds  bool   // it has an apply
}

// source is the core's types by their Go names.
type source map[string]*declared

// read parses the core.
func read(dir string) (source, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	s := source{}
	each(files, func(d ast.Decl) {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
			s.types(g)
		}
	})
	each(files, func(d ast.Decl) {
		if m, ok := d.(*ast.FuncDecl); ok && m.Recv != nil {
			s.method(m)
		}
	})
	return s, nil
}

func each(files []*ast.File, f func(ast.Decl)) {
	for _, file := range files {
		for _, d := range file.Decls {
			f(d)
		}
	}
}

func (s source) types(g *ast.GenDecl) {
	for _, spec := range g.Specs {
		t := spec.(*ast.TypeSpec)
		doc := t.Doc.Text()
		if doc == "" {
			doc = g.Doc.Text()
		}
		st, _ := t.Type.(*ast.StructType)
		s[t.Name.Name] = &declared{doc: doc, fields: st, expr: t.Type}
	}
}

// method notes what makes a type an event: its fold, and its name.
func (s source) method(m *ast.FuncDecl) {
	recv := m.Recv.List[0].Type
	if star, ok := recv.(*ast.StarExpr); ok {
		recv = star.X
	}
	id, ok := recv.(*ast.Ident)
	if !ok || s[id.Name] == nil {
		return
	}
	switch m.Name.Name {
	case "apply":
		s[id.Name].folds = true
	case "name":
		if len(m.Body.List) != 1 {
			return
		}
		if r, ok := m.Body.List[0].(*ast.ReturnStmt); ok {
			if lit, ok := r.Results[0].(*ast.BasicLit); ok {
				s[id.Name].event, _ = strconv.Unquote(lit.Value) // a literal that the compiler took
			}
		}
	}
}

// meaning is the first sentence of a doc comment, without the type's name where
// the sentence goes on without it ("says that …").
func meaning(typ, doc string) (string, error) {
	text := strings.Join(strings.Fields(doc), " ")
	if text == "" {
		return "", fmt.Errorf("%s has no doc comment", typ)
	}
	if i := strings.Index(text, ". "); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimSuffix(text, ".")
	text = strings.TrimPrefix(text, typ+" ")
	return strings.TrimPrefix(text, "says that "), nil
}

// Markdown is the list, from the core in dir.
func Markdown(dir string) (string, error) {
	s, err := read(dir)
	if err != nil {
		return "", err
	}
	byName := map[string]string{}
	for typ, d := range s {
		if d.folds && d.event != "" {
			byName[d.event] = typ
		}
	}
	if len(byName) == 0 {
		return "", errors.New("no event was found")
	}
	var b strings.Builder
	used, noun := map[string]bool{}, ""
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		typ := byName[name]
		means, err := meaning(typ, s[typ].doc)
		if err != nil {
			return "", err
		}
		if n, _, _ := strings.Cut(name, "."); n != noun {
			noun = n
			fmt.Fprintf(&b, "\n### %s\n\n| event | means | fields |\n|---|---|---|\n", noun)
		}
		var fields []string
		for _, f := range s.fields(s[typ].fields, used) {
			fields = append(fields, f.String())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, cell(means), strings.Join(fields, "; "))
	}
	b.WriteString("\n### Values\n\nWhat the fields above are made of.\n\n| value | fields |\n|---|---|\n")
	b.WriteString(s.values(used))
	return b.String(), nil
}

// values lists the structs that fields speak of, and those that they speak of.
func (s source) values(used map[string]bool) string {
	lines := map[string]string{}
	for done := false; !done; {
		done = true
		for _, typ := range slices.Collect(maps.Keys(used)) {
			if lines[typ] != "" {
				continue
			}
			done = false
			var fields []string
			for _, f := range s.fields(s[typ].fields, used) {
				fields = append(fields, f.String())
			}
			lines[typ] = fmt.Sprintf("| %s | %s |\n", typ, strings.Join(fields, "; "))
		}
	}
	var b strings.Builder
	for _, typ := range slices.Sorted(maps.Keys(lines)) {
		b.WriteString(lines[typ])
	}
	return b.String()
}

// field is one as JSON has it.
type field struct {
	name, typ, comment string
	optional           bool
}

// String is the field in a table's cell.
func (f field) String() string {
	text := "`" + f.name + "` " + f.typ
	if f.optional {
		text += "?"
	}
	if f.comment != "" {
		text += " (" + cell(f.comment) + ")"
	}
	return text
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// fields lists a struct's fields, those of embedded ones among them; the header
// that all events share is told once, in the page's own words. used gets the
// structs that the fields speak of.
func (s source) fields(st *ast.StructType, used map[string]bool) []field {
	var all []field
	for _, f := range st.Fields.List {
		if len(f.Names) == 0 && f.Tag == nil {
			if id, ok := f.Type.(*ast.Ident); ok && id.Name != "Header" && s[id.Name] != nil && s[id.Name].fields != nil {
				all = append(all, s.fields(s[id.Name].fields, used)...)
			}
			continue
		}
		if f.Tag == nil {
			continue
		}
		raw, _ := strconv.Unquote(f.Tag.Value) // a literal that the compiler took
		name, opts, _ := strings.Cut(reflect.StructTag(raw).Get("json"), ",")
		comment := strings.TrimSuffix(strings.Join(strings.Fields(f.Comment.Text()), " "), ".")
		all = append(all, field{name, s.word(f.Type, used), comment, strings.HasPrefix(opts, "omit")})
	}
	return all
}

// word is what a Go type is in JSON.
func (s source) word(e ast.Expr, used map[string]bool) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return s.word(e.X, used)
	case *ast.ArrayType:
		return "list of " + s.word(e.Elt, used)
	case *ast.MapType:
		return "map to " + s.word(e.Value, used)
	case *ast.SelectorExpr:
		return s.outside(e)
	case *ast.Ident:
		if d := s[e.Name]; d != nil && d.fields != nil {
			used[e.Name] = true
			return e.Name
		} else if d != nil {
			return s.word(d.expr, used)
		}
		return basic(e.Name)
	}
	return "value"
}

func (s source) outside(e *ast.SelectorExpr) string {
	switch e.Sel.Name {
	case "Time":
		return "time"
	case "Duration":
		return "nanoseconds"
	case "Prefix", "Addr":
		return "address"
	}
	return "value"
}

func basic(name string) string {
	switch {
	case strings.Contains(name, "int"), strings.HasPrefix(name, "float"), name == "byte":
		return "number"
	case name == "bool":
		return "true or false"
	}
	return name
}

// Put puts the list into the page.
func Put(page, list string) (string, error) {
	before, rest, ok := strings.Cut(page, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("the page lacks the lines %q and %q", begin, end)
	}
	return before + begin + list + "\n" + end + after, nil
}
