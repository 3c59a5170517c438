package overlay

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// furtherOptions turns off what this kernel does by default although the
// upper directory would then no longer tell all by itself. While overlayfs is not
// loaded nothing tells what its default will be.
func furtherOptions(read func(string) ([]byte, error)) []string {
	var out []string
	for _, name := range []string{"index", "redirect_dir", "metacopy"} {
		value, err := read("/sys/module/overlay/parameters/" + name)
		if err != nil || bytes.HasPrefix(value, []byte("Y")) {
			out = append(out, name+"=off")
		}
	}
	return out
}

// probe says what this machine lacks.
func probe(root string) []string {
	var out []string
	if known, err := os.ReadFile("/proc/filesystems"); err == nil && !bytes.Contains(known, []byte("\toverlay\n")) {
		out = append(out, "the kernel has not loaded overlayfs: mounts fail unless it can load it")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err == nil {
		switch st.Type {
		case unix.OVERLAYFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC:
			out = append(out, fmt.Sprintf("%s lies on a filesystem (magic %#x) that may not hold upper directories: use the vfs driver or another disk", root, st.Type))
		}
	}
	test := filepath.Join(root, "work")
	if err := unix.Setxattr(test, "trusted.overlay.gantry", []byte("y"), 0); err != nil {
		out = append(out, fmt.Sprintf("trusted extended attributes cannot be set in %s (%v): opaque directories fail", root, err))
	} else {
		_ = unix.Removexattr(test, "trusted.overlay.gantry")
	}
	return out
}
