package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// layers makes n directories with one file each and one that all have, top
// first, with names that options must escape.
func layers(t *testing.T, dir string, n int) (lower []string, upper, work string) {
	t.Helper()
	for i := range n {
		l := filepath.Join(dir, fmt.Sprintf(`l:%d,\x`, i))
		lower = append(lower, l)
		for _, name := range []string{"all", fmt.Sprint("only", i)} {
			if err := errors.Join(os.MkdirAll(l, 0o755), os.WriteFile(filepath.Join(l, name), []byte(fmt.Sprint(i)), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	upper, work = filepath.Join(dir, "u,:"), filepath.Join(dir, "w,:")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		t.Fatal(err)
	}
	return lower, upper, work
}

// takesLayers asks with names that need no escapes: an older kernel makes one
// string of all options and cannot tell a comma of ours from its own.
func takesLayers(t *testing.T) bool {
	t.Helper()
	m, err := mountOverlayByLayer([]string{t.TempDir(), t.TempDir()}, "", "", nil)
	if errors.Is(err, unix.EINVAL) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	return true
}

// copiesAside is the way of layers that are mounts of their own, which MountOverlayMapped
// takes before Linux 6.13.
func copiesAside(lower []string, upper, work string, flags []string) (Detached, error) {
	var copies []Detached
	defer func() {
		for _, c := range copies {
			c.Close()
		}
	}()
	for _, l := range lower {
		c, err := CloneMount(l, false)
		if err != nil {
			return Detached{}, err
		}
		copies = append(copies, c)
	}
	return mountMappedAside(copies, upper, work, flags)
}

// TestOverlayWays mounts the same layers all ways and finds the same.
func TestOverlayWays(t *testing.T) {
	for name, mount := range map[string]func([]string, string, string, []string) (Detached, error){
		"by layer": mountOverlayByLayer, "by string": mountOverlayByString, "copies aside": copiesAside,
	} {
		t.Run(name, func(t *testing.T) {
			if name == "by layer" && !takesLayers(t) {
				t.Skip("the overlay of this kernel takes no layers one by one (Linux 6.8)")
			}
			lower, upper, work := layers(t, t.TempDir(), 3)
			m, err := mount(lower, upper, work, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			for file, want := range map[string]string{"/all": "0", "/only0": "0", "/only2": "2"} {
				if got, err := ReadInRoot(m.File, file, 10); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", file, got, err)
				}
			}
			f, err := OpenInRoot(m.File, "/only2", os.O_WRONLY|os.O_TRUNC)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if _, err := os.Stat(filepath.Join(upper, "only2")); err != nil {
				t.Errorf("nothing was copied up: %v", err)
			}
			table, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil || strings.Contains(string(table), upper[:len(upper)-2]) {
				t.Errorf("it is in the mount table, or: %v", err)
			}
		})
	}
}

// TestOverlayOptionsBeyondAPage: names that do not fit into a page go in as
// descriptors; what does not fit even so is refused.
func TestOverlayOptionsBeyondAPage(t *testing.T) {
	dir := t.TempDir()
	lower := make([]string, 127)
	for i := range lower {
		lower[i] = filepath.Join(dir, strings.Repeat("x", 200), fmt.Sprint(i))
		if err := os.MkdirAll(lower[i], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(lower[i], fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := mountOverlayByString(lower, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, name := range []string{"0", "64", "126"} {
		if _, err := ReadInRoot(m.File, "/"+name, 10); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for len(lower) < 300 {
		lower = append(lower, lower[0])
	}
	_, err = mountOverlayByString(lower, "", "", nil)
	if !errors.Is(err, unix.E2BIG) || !strings.Contains(err.Error(), "at most 4095 before Linux 6.8") {
		t.Errorf("%v", err)
	}
}

func TestReleaseSince(t *testing.T) {
	for release, want := range map[string]bool{
		"6.8.0": true, "6.18.44-x": true, "7.0": true, "10.1": true, "6.7.12": false, "6.1.0-56-amd64": false, "5.19-rc1": false, "strange": true,
	} {
		if releaseSince(release, 6, 8) != want {
			t.Errorf("%s: %v", release, !want)
		}
	}
}

// TestOverlayIsNotTold: no way to mount an overlay leaves a line about layers in
// the kernel's log.
func TestOverlayIsNotTold(t *testing.T) {
	log, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("the kernel's log is not to be read here:", err)
	}
	defer unix.Close(log)
	if _, err := unix.Seek(log, 0, unix.SEEK_END); err != nil { // what comes from now on
		t.Fatal(err)
	}
	m, err := MountOverlay([]string{t.TempDir(), t.TempDir()}, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	line := make([]byte, 8<<10)
	for {
		n, err := unix.Read(log, line) // a record at a time
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil && !errors.Is(err, unix.EPIPE) {
			t.Fatal(err)
		}
		if n > 0 && strings.Contains(string(line[:n]), "unrecognized mount option") {
			t.Errorf("the kernel's log: %s", line[:n])
		}
	}
}
