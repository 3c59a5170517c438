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
	engine bool              // against an engine, not gantry-oci alone
	pauses bool              // the shim holds where others lost a race, in both builds
	try    func(*world) bool // whether it got out
}

func classes() []class {
	return slices.Concat(processClasses(), mountClasses(), rightClasses(), engineClasses())
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
			w := c.world(t, nil, pauses...)
			if c.try(w) {
				t.Errorf("%s: got out", c.attack)
			}
			w.sane()
		})
		t.Run(c.name+"/control", func(t *testing.T) {
			if c.shim != "" {
				pauses = append(pauses, c.shim)
			}
			if !c.try(c.world(t, c.off, pauses...)) {
				t.Errorf("%s: held without %s%v, so the test shows nothing", c.attack, c.shim, c.off)
			}
		})
	}
}

// world is what the attack is made in.
func (c class) world(t *testing.T, off []weak.Protection, defines ...string) *world {
	t.Helper()
	if !c.engine {
		return newWorld(t, shop.variant(t, len(off) > 0, defines...), off...)
	}
	w := newWorld(t, shop.engine(t, off, defines...), off...)
	w.start()
	return w
}
