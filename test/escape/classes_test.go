package escape

import (
	"slices"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
)

// class is one way out that somebody has found.
type class struct {
	name   string
	attack string            // in a sentence
	shim   string            // the shim's switch that the control is built with; empty for none
	off    []weak.Protection // gantry-oci's
	pauses bool              // the shim holds where others lost a race, in both builds
	try    func(*world) bool // whether it got out
}

func classes() []class {
	return slices.Concat(processClasses(), mountClasses(), rightClasses())
}

// TestClasses makes each attack against a normal build, which holds, and against
// one with just the one protection off, which does not.
func TestClasses(t *testing.T) {
	for _, c := range classes() {
		var pauses []string
		if c.pauses {
			pauses = []string{"TEST_PAUSES"}
		}
		t.Run(c.name+"/held", func(t *testing.T) {
			w := newWorld(t, shop.variant(t, false, pauses...))
			if c.try(w) {
				t.Errorf("%s: got out", c.attack)
			}
			w.sane()
		})
		t.Run(c.name+"/control", func(t *testing.T) {
			if c.shim != "" {
				pauses = append(pauses, c.shim)
			}
			if !c.try(newWorld(t, shop.variant(t, len(c.off) > 0, pauses...), c.off...)) {
				t.Errorf("%s: held without %s%v, so the test shows nothing", c.attack, c.shim, c.off)
			}
		})
	}
}
