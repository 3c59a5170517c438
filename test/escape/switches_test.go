package escape

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/gantryd/gantry/test/rig"
)

// TestNoSwitches proves that the programs as they are built for everybody hold
// no switch, and that those of the controls do.
func TestNoSwitches(t *testing.T) {
	bin, err := rig.Bin()
	if err != nil {
		t.Fatal(err)
	}
	words := []string{"GANTRY_WEAKEN", string(weak.PathSocket), string(weak.CopyUpInRoot), string(weak.CopyInside), string(weak.NoInheritable)}
	for _, name := range []string{"gantry-oci", "gantry-drivers", "gantryd", "gantry"} {
		for _, word := range words {
			if contains(t, filepath.Join(bin, name), word) {
				t.Errorf("%s holds %q", name, word)
			}
		}
	}
	if contains(t, filepath.Join(bin, "gantry-shim"), ".pause") {
		t.Error("gantry-shim holds a pause")
	}
	weakened := shop.variant(t, true, "TEST_PAUSES")
	if !contains(t, filepath.Join(weakened, "gantry-oci"), "GANTRY_WEAKEN") || !contains(t, filepath.Join(weakened, "gantry-shim"), ".pause") {
		t.Error("the switches of a control are not found either, so the test shows nothing")
	}
}

func contains(t *testing.T, file, word string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(text, []byte(word))
}

// TestClassesAreTold makes sure that each class is explained to whoever reads
// what a container is kept in by.
func TestClassesAreTold(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range classes() {
		if !bytes.Contains(text, []byte("`"+c.name+"`")) {
			t.Errorf("docs/security.md does not tell of %s", c.name)
		}
	}
}
