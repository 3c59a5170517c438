//go:build weakened

package weak

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Env names the protections that are off, with commas between. Drivers have an
// environment of their own: for them a file beside the program says the same.
const (
	Env  = "GANTRY_WEAKEN"
	File = "weaken"
)

// off is read once: later the program may have another root.
var off = sync.OnceValue(func() []string {
	all := strings.Split(os.Getenv(Env), ",")
	if self, err := os.Executable(); err == nil {
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(self), File))
		all = append(all, strings.Split(strings.TrimSpace(string(text)), ",")...)
	}
	return all
})

// Off reports whether a protection is turned off.
func Off(p Protection) bool { return slices.Contains(off(), string(p)) }
