package exectest

import (
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
)

// tools are the programs that the scripts of the checks use.
func tools() []string {
	return []string{"sh", "cat", "sleep", "id", "dd", "readlink", "touch", "ls"}
}

// BuildRootfs makes a root filesystem below dir and returns its directory: a
// static busybox if this machine has one, otherwise copies of its own shell
// and tools with the libraries they need.
func BuildRootfs(t conform.T, dir string) string {
	t.Helper()
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "out", "run", "var/empty"} {
		makeDir(t, filepath.Join(root, d))
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1234:2345::/tmp:/bin/sh\n",
		"etc/group":  "root:x:0:\nalice:x:2345:\nstaff:x:3456:alice\n",
		"etc/hosts":  "", "etc/hostname": "", "etc/resolv.conf": "",
		"etc/not-executable": "#!/bin/sh\nexit 0\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatalf("build a root filesystem: %v", err)
		}
	}
	if box, ok := staticBusybox(); ok {
		t.Logf("root filesystem of %s", box)
		install(t, box, filepath.Join(root, "bin/busybox"))
		for _, name := range tools() {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
				t.Fatalf("build a root filesystem: %v", err)
			}
		}
		return root
	}
	t.Logf("no static busybox on this machine: root filesystem of its own tools")
	for _, name := range tools() {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("build a root filesystem: no static busybox (Debian: busybox-static), and no %s: %v", name, err)
		}
		install(t, path, filepath.Join(root, "bin", name))
		installLibraries(t, root, path)
	}
	return root
}

// staticBusybox finds a busybox that needs no libraries.
func staticBusybox() (string, bool) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", false
	}
	interpreter, libraries, err := needs(path)
	return path, err == nil && interpreter == "" && len(libraries) == 0
}

// needs tells a program's interpreter and libraries (elf(5): PT_INTERP and
// DT_NEEDED).
func needs(path string) (interpreter string, libraries []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			raw, err := io.ReadAll(p.Open())
			if err != nil {
				return "", nil, err
			}
			interpreter = strings.TrimRight(string(raw), "\x00")
		}
	}
	libraries, err = f.ImportedLibraries()
	return interpreter, libraries, err
}

// installLibraries copies what a program needs to the paths where its
// interpreter looks for it.
func installLibraries(t conform.T, root, program string) {
	t.Helper()
	interpreter, libraries, err := needs(program)
	if err != nil {
		t.Fatalf("read %s: %v", program, err)
	}
	if interpreter != "" {
		install(t, interpreter, filepath.Join(root, interpreter))
	}
	for _, name := range libraries {
		path := findLibrary(name)
		if path == "" {
			t.Fatalf("build a root filesystem: %s needs %s, which is not found (Debian: install busybox-static)", program, name)
		}
		if _, err := os.Lstat(filepath.Join(root, path)); err == nil {
			continue
		}
		install(t, path, filepath.Join(root, path))
		installLibraries(t, root, path)
	}
}

func findLibrary(name string) string {
	for _, pattern := range []string{"/lib/*-linux-*/", "/usr/lib/*-linux-*/", "/lib64/", "/usr/lib64/", "/lib/", "/usr/lib/"} {
		if found, err := filepath.Glob(pattern + name); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

func makeDir(t conform.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("build a root filesystem: %v", err)
	}
}

// install copies a program.
func install(t conform.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatalf("build a root filesystem: %v", err)
	}
	makeDir(t, filepath.Dir(to))
	if err := os.WriteFile(to, raw, 0o755); err != nil {
		t.Fatalf("build a root filesystem: %v", err)
	}
}
