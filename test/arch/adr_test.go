package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDecisions holds docs/adr to its form: numbers without a gap and given once,
// context, decision and consequences in each, and a list of all.
func TestDecisions(t *testing.T) {
	const dir = "../../docs/adr"
	files, err := filepath.Glob(filepath.Join(dir, "[0-9]*.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 13 {
		t.Fatalf("%d decisions were found: looked in the wrong place?", len(files))
	}
	list, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files { // by name, so by number
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		if n, err := strconv.Atoi(name[:4]); err != nil || n != i+1 {
			t.Errorf("%s: want the number %04d: each is given once and none left out", name, i+1)
		}
		head, _, _ := strings.Cut(string(text), "\n")
		title, ok := strings.CutPrefix(head, fmt.Sprintf("# %d. ", i+1))
		if !ok {
			t.Errorf("%s begins with %q, want \"# %d. …\"", name, head, i+1)
		}
		if line := fmt.Sprintf("\n%d. [%s](%s)\n", i+1, title, name); !strings.Contains(string(list), line) {
			t.Errorf("README.md lacks the line %q", strings.TrimSpace(line))
		}
		for _, part := range []string{"Context", "Decision", "Consequences"} {
			if !strings.Contains(string(text), "\n## "+part+"\n") && !strings.Contains(string(text), "\n**"+part+".** ") {
				t.Errorf("%s has no part %q", name, part)
			}
		}
	}
}
