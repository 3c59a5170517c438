package overlay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver/graphtest"
)

// mounted calls f with the place where m is mounted, as graphtest.Inside does.
func mounted(t *testing.T, m driver.Mount, f func(root string) error) {
	t.Helper()
	var err error
	graphtest.Inside(conform.Testing(t), []driver.Mount{m}, func(root string) { err = f(root) })
	if err != nil {
		t.Fatal(err)
	}
}

// listing describes what is seen below root, one line each.
func listing(root string) (string, error) {
	var out []string
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%s %v", rel, fi.Mode())
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		out = append(out, line)
		return nil
	})
	return strings.Join(out, "\n"), err
}

var ctx = context.Background()
