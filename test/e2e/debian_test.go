package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// TestDebian runs a whole distribution: an image made by debootstrap, umoci
// and skopeo. What debootstrap makes is kept in the temporary directory for the
// next time.
func TestDebian(t *testing.T) {
	t.Parallel()
	archive, err := debianArchive()
	if err != nil {
		t.Skipf("no Debian to run: %v", err)
	}
	e := start(t, rig.Options{})
	if out := gantry(t, e, "load", "-i", archive); !strings.Contains(out, "Loaded image: debian-test:latest") {
		t.Errorf("load says %q", out)
	}
	out := gantry(t, e, "run", "--rm", "--hostname", "inside", "debian-test", "sh", "-c",
		"id; hostname; ip addr; cat /proc/self/cgroup; mount; ps -ef")
	for _, want := range []string{
		`(?m)^uid=0\(root\) gid=0\(root\)`, `(?m)^inside$`, `: lo:`, `: eth0@`, `(?m)^0::/$`, ` on / type overlay`,
		` on /proc type proc`, ` on /sys type sysfs \(ro`, `(?m)^root +1 +0 .* sh -c id`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("nothing fits %q", want)
		}
	}
	for _, bad := range []string{": gb", ": gv", "gantryd", "gantry-shim", e.Name + "/containers"} {
		if strings.Contains(out, bad) {
			t.Errorf("it can see %q", bad)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	// Packages and users of a real system work.
	out = gantry(t, e, "run", "--rm", "-u", "www-data", "debian-test", "sh", "-c", "id -un; dpkg-query -W -f '${Package}\n' bash; perl -e 'print 6*7'")
	if out != "www-data\nbash\n42" {
		t.Errorf("it says %q", out)
	}
	settle(t, e)
	gantry(t, e, "rmi", "debian-test")
	settle(t, e)
}

// debianArchive is the image as an OCI archive.
func debianArchive() (string, error) {
	release, err := codename()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(os.TempDir(), "gantry-debootstrap")
	file := filepath.Join(dir, release+".tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work) //nolint:errcheck // scratch
	root, layout, plain := filepath.Join(work, "root"), filepath.Join(work, "layout"), filepath.Join(work, "root.tar")
	image := layout + ":latest"
	for _, args := range [][]string{
		{"debootstrap", "--variant=minbase", "--include=iproute2,procps", release, root},
		{"tar", "-C", root, "--numeric-owner", "-cf", plain, "."},
		{"umoci", "init", "--layout", layout},
		{"umoci", "new", "--image", image},
		{"umoci", "raw", "add-layer", "--image", image, plain},
		{"umoci", "config", "--image", image, "--config.cmd", "bash", "--config.env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		{"skopeo", "--insecure-policy", "copy", "-q", "oci:" + image, "oci-archive:" + file + ".new:debian-test:latest"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", args[0], err, last(out))
		}
	}
	return file, os.Rename(file+".new", file)
}

// last is the last line of what a program has said.
func last(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// codename is the release that this machine runs.
func codename() (string, error) {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release names no release")
}
