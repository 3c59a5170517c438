// Command setup installs what the tests need from Debian's packages, and says
// what and why. It does nothing where everything is there. "setup vm" does so
// for the tests in machines of their own.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// packages are those that tests use, with the reason.
func packages() [][2]string {
	return [][2]string{
		{"busybox-static", "the root filesystem of test containers"},
		{"skopeo", "images made and read by a tool that is not ours"},
		{"umoci", "images made and read by a tool that is not ours"},
		{"debootstrap", "an image of a whole distribution"},
		{"python3-grpcio", "the example driver in Python"},
		{"python3-protobuf", "the example driver in Python"},
		{"iproute2", "looking at links and namespaces from outside"},
		{"nftables", "looking at rules from outside"},
		{"iputils-ping", "asking whether containers reach each other"},
		{"e2fsprogs", "filesystems on loop images, for power cuts and full disks"},
		{"procps", "looking at processes from outside"},
		{"podman", "a caller of the OCI runtime that is not ours"},
		{"containerd", "a caller of the OCI runtime that is not ours"},
		{"runc", "the OCI runtime whose flags ours has"},
	}
}

// machines are what test/vm needs to make and boot machines; what its tests
// need it puts into them.
func machines() [][2]string {
	return [][2]string{
		{"qemu-system-x86", "boots other kernels"},
		{"mmdebstrap", "the distribution in the machines"},
		{"e2fsprogs", "the machines' disks, made without mounting"},
		{"xz-utils", "modules as the kernel takes them"},
	}
}

func main() {
	var missing []string
	needed := packages()
	if len(os.Args) > 1 && os.Args[1] == "vm" {
		needed = machines()
	}
	for _, p := range needed {
		if installed(p[0]) {
			continue
		}
		fmt.Printf("needs %s: %s\n", p[0], p[1])
		missing = append(missing, p[0])
	}
	if len(missing) == 0 {
		return
	}
	if err := install(missing); err != nil {
		fmt.Fprintf(os.Stderr, "install %s: %v\n", strings.Join(missing, " "), err)
		os.Exit(1)
	}
}

func installed(name string) bool {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Status}", name).Output()
	return err == nil && strings.HasSuffix(string(out), " installed")
}

func install(names []string) error {
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, names...),
	} {
		c := exec.Command("apt-get", args...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return err
		}
	}
	return nil
}
