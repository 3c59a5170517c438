package overlay

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
)

// maxLowers is overlayfs's own bound (OVL_MAX_STACK).
const maxLowers = 500

// maxOptionBytes is the longest string that fsconfig(2) takes, without its NUL.
const maxOptionBytes = 255

// planMount is the mount of a root filesystem: lowers top first, upper and
// work in dir.
func planMount(lowers []string, dir string, further []string) (driver.Mount, error) {
	if len(lowers) == 0 || len(lowers) > maxLowers {
		return driver.Mount{}, driver.Errorf(errdefs.ErrInvalidArgument, "%d lower layers, where overlayfs takes 1 to %d", len(lowers), maxLowers)
	}
	m := driver.Mount{Type: "overlay", Source: "overlay", Target: "/"}
	for _, lower := range lowers {
		m.Options = append(m.Options, "lowerdir+="+lower)
	}
	m.Options = append(m.Options, "upperdir="+path.Join(dir, "upper"), "workdir="+path.Join(dir, "work"))
	for _, o := range m.Options {
		if _, value, _ := strings.Cut(o, "="); len(value) > maxOptionBytes {
			return driver.Mount{}, driver.Errorf(errdefs.ErrInvalidArgument, "path %s is longer than the %d bytes of a mount option", value, maxOptionBytes)
		}
	}
	m.Options = append(m.Options, further...)
	return m, nil
}

// planSkeleton orders targets so that parents come first, with those parents
// that are no targets themselves, and names the whole. The name of nothing is
// empty.
func planSkeleton(targets []driver.Target) (string, []driver.Target, error) {
	kind := make(map[string]bool) // path → is a file
	for _, t := range targets {
		if !path.IsAbs(t.Path) || path.Clean(t.Path) != t.Path || strings.IndexByte(t.Path, 0) >= 0 {
			return "", nil, driver.Errorf(errdefs.ErrInvalidArgument, "target %q is not an absolute, clean path", t.Path)
		}
		if file, ok := kind[t.Path]; ok && file != t.File || t.Path == "/" && t.File {
			return "", nil, driver.Errorf(errdefs.ErrInvalidArgument, "target %q is both file and directory", t.Path)
		}
		kind[t.Path] = t.File
	}
	for _, t := range targets {
		for p := path.Dir(t.Path); p != "/"; p = path.Dir(p) {
			if kind[p] {
				return "", nil, driver.Errorf(errdefs.ErrInvalidArgument, "target %q is below the file %q", t.Path, p)
			}
			kind[p] = false
		}
	}
	delete(kind, "/")
	var all []driver.Target
	for p, file := range kind {
		all = append(all, driver.Target{Path: p, File: file})
	}
	if len(all) == 0 {
		return "", nil, nil
	}
	slices.SortFunc(all, func(a, b driver.Target) int { return strings.Compare(a.Path, b.Path) })
	h := sha256.New()
	for _, t := range all {
		fmt.Fprintf(h, "%q %v\n", t.Path, t.File)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), all, nil
}
