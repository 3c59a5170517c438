package arch

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The bounds on what one can see whole.
const (
	maxFile      = 500 // lines
	maxFunction  = 70  // lines
	maxInterface = 7   // methods
	maxMain      = 50  // lines of a command's main.go
)

// forbiddenNames say nothing about what is in a file.
var forbiddenNames = []string{"utils", "common", "helpers", "types", "misc", "manager"}

// sources calls f with every Go file of ours that nobody generated.
func sources(t *testing.T, f func(name string, fset *token.FileSet, file *ast.File, src string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin" || d.Name() == "testdata") && name != "../.." {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil || strings.Contains(firstLine(string(src)), "Code generated") {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, src, parser.ParseComments)
		if err != nil {
			return err
		}
		f(strings.TrimPrefix(name, "../../"), fset, file, string(src))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func firstLine(src string) string {
	line, _, _ := strings.Cut(src, "\n")
	return line
}

// TestSizes: small enough to see whole.
func TestSizes(t *testing.T) {
	sources(t, func(name string, fset *token.FileSet, file *ast.File, src string) {
		lines := strings.Count(src, "\n")
		if lines > maxFile {
			t.Errorf("%s has %d lines, more than %d", name, lines, maxFile)
		}
		if strings.HasPrefix(name, "cmd/") && filepath.Base(name) == "main.go" && lines > maxMain {
			t.Errorf("%s has %d lines, more than %d: a command only reads flags, builds and runs", name, lines, maxMain)
		}
		for _, bad := range forbiddenNames {
			if strings.TrimSuffix(filepath.Base(name), ".go") == bad || file.Name.Name == bad {
				t.Errorf("%s: a name that says nothing", name)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Body != nil {
					if l := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1; l > maxFunction {
						t.Errorf("%s: function %s has %d lines, more than %d", fset.Position(n.Pos()), n.Name.Name, l, maxFunction)
					}
				}
			case *ast.InterfaceType:
				if m := n.Methods.NumFields(); m > maxInterface {
					t.Errorf("%s: an interface of %d methods, more than %d", fset.Position(n.Pos()), m, maxInterface)
				}
			}
			return true
		})
	})
}

// TestShim: the C sources keep the same bounds.
func TestShim(t *testing.T) {
	for _, pattern := range []string{"../../plugins/*/*/*.c", "../../plugins/*/*/*.h", "../../bench/*/*.c"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			lines := 0
			for s := bufio.NewScanner(f); s.Scan(); {
				lines++
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if lines > maxFile {
				t.Errorf("%s has %d lines, more than %d", name, lines, maxFile)
			}
		}
	}
}
