package oci

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestCloneFlags: what may be made before the plan is, and with which flags.
func TestCloneFlags(t *testing.T) {
	made := func(types ...specs.LinuxNamespaceType) []specs.LinuxNamespace {
		var all []specs.LinuxNamespace
		for _, t := range types {
			all = append(all, specs.LinuxNamespace{Type: t})
		}
		return all
	}
	joined := func(t specs.LinuxNamespaceType) specs.LinuxNamespace {
		return specs.LinuxNamespace{Type: t, Path: "/proc/1/ns/x"}
	}
	const usual = unix.CLONE_NEWNS | unix.CLONE_NEWPID
	for _, c := range []struct {
		name  string
		all   []specs.LinuxNamespace
		flags uint64
		fits  bool
	}{
		{"usual", made(specs.MountNamespace, specs.PIDNamespace), usual, true},
		{"the cgroup namespace comes later", made(specs.MountNamespace, specs.PIDNamespace, specs.CgroupNamespace), usual, true},
		{"a network that the init joins", append(made(specs.MountNamespace, specs.PIDNamespace), joined(specs.NetworkNamespace)), usual, true},
		{"users", made(specs.MountNamespace, specs.PIDNamespace, specs.UserNamespace), usual | unix.CLONE_NEWUSER, true},
		{"users, and a network of the host's", append(made(specs.MountNamespace, specs.PIDNamespace, specs.UserNamespace), joined(specs.NetworkNamespace)), usual | unix.CLONE_NEWUSER, false},
		{"users to join", append(made(specs.MountNamespace, specs.PIDNamespace), joined(specs.UserNamespace)), usual, false},
		{"processes to join", append(made(specs.MountNamespace), joined(specs.PIDNamespace)), unix.CLONE_NEWNS, false},
		{"clocks", made(specs.MountNamespace, specs.PIDNamespace, specs.TimeNamespace), usual, false},
		{"unknown", made(specs.MountNamespace, specs.PIDNamespace, "moon"), usual, false},
	} {
		flags, fits := CloneFlags(c.all)
		if fits != c.fits || fits && flags != c.flags {
			t.Errorf("%s: %#x, %v", c.name, flags, fits)
		}
	}
}
