package rig

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Busybox is the name under which the image of BusyboxLayout is loaded.
const Busybox = "docker.io/library/busybox:latest"

// command runs a program of the machine's.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// BusyboxLayout makes an OCI layout with an image of Debian's static busybox,
// with umoci: two layers, of which the second deletes a file of the first, an
// environment, and users.
func BusyboxLayout(dir string) (layout string, err error) {
	layout = filepath.Join(dir, "layout")
	bundle := filepath.Join(dir, "bundle")
	image := layout + ":latest"
	for _, args := range [][]string{
		{"init", "--layout", layout}, {"new", "--image", image}, {"unpack", "--image", image, bundle},
	} {
		if err := command("umoci", args...); err != nil {
			return "", err
		}
	}
	root := filepath.Join(bundle, "rootfs")
	if err := fillBusybox(root); err != nil {
		return "", err
	}
	if err := command("umoci", "repack", "--image", image, "--refresh-bundle", bundle); err != nil {
		return "", err
	}
	if err := os.Remove(filepath.Join(root, "deleted")); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(root, "second"), []byte("of the second layer\n"), 0o644); err != nil {
		return "", err
	}
	if err := command("umoci", "repack", "--image", image, bundle); err != nil {
		return "", err
	}
	return layout, command("umoci", "config", "--image", image, "--config.env", "PATH=/bin:/sbin", "--config.env", "FROM_IMAGE=yes",
		"--config.cmd", "sh", "--config.workingdir", "/")
}

// Pattern is the content of /pattern in that image: 64 KiB in which no part is
// like another.
func Pattern() []byte {
	var b []byte
	for i := 0; len(b) < 64<<10; i++ {
		b = fmt.Appendf(b, "%07d\n", i)
	}
	return b
}

// fillBusybox makes a small root filesystem.
func fillBusybox(root string) error {
	for _, dir := range []string{"bin", "etc", "tmp", "root", "home/alice", "var"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
		"etc/group":  "root:x:0:\nalice:x:1000:\nextra:x:2000:alice\n",
		"deleted":    "a file that the second layer deletes\n",
		"plain":      "not a program\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "pattern"), Pattern(), 0o644); err != nil {
		return err
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("read the program of busybox-static, which is needed: %w", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		return err
	}
	list, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(list)) {
		err := os.Symlink("busybox", filepath.Join(root, "bin", applet))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// Archive puts an image of a layout into one file with skopeo. The format is
// "oci-archive" or "docker-archive".
func Archive(layout, format, file, name string) error {
	return command("skopeo", "--insecure-policy", "copy", "-q", "oci:"+layout+":latest", format+":"+file+":"+name)
}

// BusyboxArchive makes the image as an OCI archive.
func BusyboxArchive(dir string) (file string, err error) {
	layout, err := BusyboxLayout(dir)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "busybox.tar")
	return file, Archive(layout, "oci-archive", file, Busybox)
}

// OtherArchive makes an OCI archive of an image with one layer of 4 MiB that
// nothing else has. It holds no program.
func OtherArchive(dir, name string) (file string, err error) {
	layout, bundle := filepath.Join(dir, "other-layout"), filepath.Join(dir, "other-bundle")
	image := layout + ":latest"
	for _, args := range [][]string{
		{"init", "--layout", layout}, {"new", "--image", image}, {"unpack", "--image", image, bundle},
	} {
		if err := command("umoci", args...); err != nil {
			return "", err
		}
	}
	noise := make([]byte, 4<<20)
	_, _ = rand.Read(noise) // never fails (crypto/rand)
	if err := os.WriteFile(filepath.Join(bundle, "rootfs/noise"), noise, 0o644); err != nil {
		return "", err
	}
	if err := command("umoci", "repack", "--image", image, bundle); err != nil {
		return "", err
	}
	file = filepath.Join(dir, "other.tar")
	return file, Archive(layout, "oci-archive", file, name)
}

// Tar packs a directory's content into a tar file.
func Tar(dir, file string) error { return command("tar", "-C", dir, "-cf", file, ".") }

// Explain adds what a program has said to the error that it ended with.
func Explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return err
}
