package probe

import "testing"

// TestProbeSeesThisMachine compares with what the tests of the drivers need:
// they could not run where these are missing.
func TestProbeSeesThisMachine(t *testing.T) {
	seen := map[string]Feature{}
	for _, f := range Probe() {
		if _, ok := seen[f.Name]; ok {
			t.Errorf("%s is told twice", f.Name)
		}
		seen[f.Name] = f
		if f.Detail == "" || !f.Have && f.Consequence == "" {
			t.Errorf("%+v does not say what was found and what follows", f)
		}
		t.Logf("%-24s %-5v %s", f.Name, f.Have, f.Detail)
	}
	for _, name := range []string{"namespace pid", "make namespaces", "cgroup", "overlay", "mounts by descriptor", "mount attributes",
		"openat2", "seccomp", "pidfd", "clone3", "executable memfd"} {
		if f, ok := seen[name]; !ok || !f.Have {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
