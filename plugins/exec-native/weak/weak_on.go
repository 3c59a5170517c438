//go:build weakened

package weak

import (
	"os"
	"slices"
	"strings"
)

// Env names the protections that are off, with commas between.
const Env = "GANTRY_WEAKEN"

// Off reports whether a protection is turned off.
func Off(p Protection) bool { return slices.Contains(strings.Split(os.Getenv(Env), ","), string(p)) }
