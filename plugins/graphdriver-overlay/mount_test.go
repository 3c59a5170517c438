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

// TestDefaultsAreTurnedOff that let an upper directory refer to elsewhere, also where
// they are not known yet. The kernel takes the options.
func TestDefaultsAreTurnedOff(t *testing.T) {
	say := func(answers map[string]string) func(string) ([]byte, error) {
		return func(path string) ([]byte, error) {
			if a, ok := answers[filepath.Base(path)]; ok {
				return []byte(a), nil
			}
			return nil, os.ErrNotExist
		}
	}
	loaded := map[string]string{"index": "N\n", "redirect_dir": "N\n", "metacopy": "N\n"}
	if got := furtherOptions(say(loaded)); len(got) != 0 {
		t.Errorf("nothing is on, yet %v", got)
	}
	loaded["metacopy"] = "Y\n"
	if got := fmt.Sprint(furtherOptions(say(loaded))); got != "[metacopy=off]" {
		t.Errorf("metacopy is on, yet %v", got)
	}
	all := furtherOptions(say(nil))
	if got := fmt.Sprint(all); got != "[index=off redirect_dir=off metacopy=off]" {
		t.Errorf("overlayfs is not loaded, yet %v", got)
	}
	d := open(t, t.TempDir())
	d.further = all
	apply(t, d, layer(t, "l1", "", "a=1"))
	wantListing(t, prepare(t, d, "c1", "l1"), "a -rw-r--r-- 1")
}

var ctx = context.Background()
