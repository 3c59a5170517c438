package oci

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultDevices are the nodes every container has, which runtimes add by
// themselves (runtime specification, config-linux.md "Default Devices").
func DefaultDevices() []specs.LinuxDevice {
	node := func(path string, major, minor int64) specs.LinuxDevice {
		mode, id := os.FileMode(0o666), uint32(0)
		return specs.LinuxDevice{Path: path, Type: "c", Major: major, Minor: minor, FileMode: &mode, UID: &id, GID: &id}
	}
	return []specs.LinuxDevice{
		node("/dev/null", 1, 3), node("/dev/zero", 1, 5), node("/dev/full", 1, 7),
		node("/dev/random", 1, 8), node("/dev/urandom", 1, 9), node("/dev/tty", 5, 0),
	}
}
