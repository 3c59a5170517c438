package probe

import (
	"errors"
	"strings"
	"testing"

	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

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

// TestMissingCapabilities are told by name.
func TestMissingCapabilities(t *testing.T) {
	f := capabilities()
	for bit, name := range linux.CapNames() {
		on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(bit), 0, 0, 0)
		missing := err == nil && on == 0
		if told := strings.HasSuffix(f.Detail, name) || strings.Contains(f.Detail, name+","); told != missing {
			t.Errorf("%s: missing %v, and %q", name, missing, f.Detail)
		}
	}
}

// TestProfileDetail by what the kernel lists.
func TestProfileDetail(t *testing.T) {
	for profiles, want := range map[string]string{
		"man (enforce)\ngantry-default (enforce)\n":  "unless another is named",
		"gantry-default (complain)\nman (enforce)\n": "unless another is named",
		"":                               "not loaded",
		"not-gantry-default (enforce)\n": "not loaded",
		"gantry-default//child (enforce)\nx (kill)\n": "not loaded",
	} {
		if got := profileDetail(profiles, nil); !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", profiles, got, want)
		}
	}
	if got := profileDetail("", errors.New("no securityfs")); !strings.Contains(got, "no securityfs") {
		t.Errorf("%q", got)
	}
}
