package systemd

import (
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// Unit names a scope, or a slice, and the slice that it is in.
type Unit struct {
	Slice string // "system.slice"
	Name  string // "gantry-web.scope"
}

// defaultPrefix begins the names of scopes that nobody has named.
const defaultPrefix = "gantry"

// Parse reads a cgroupsPath of the form "slice:prefix:name". Empty parts are
// the slice system.slice (of a user's own systemd: user.slice), the prefix
// gantry, and the container's id. A name that ends in ".slice" is a unit of
// that name.
func Parse(cgroupsPath, id string) (Unit, error) {
	parts := []string{"", defaultPrefix, id}
	if cgroupsPath != "" {
		if parts = strings.Split(cgroupsPath, ":"); len(parts) != 3 {
			return Unit{}, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroupsPath %q: with systemd-cgroup want slice:prefix:name", cgroupsPath)
		}
	}
	slice, prefix, name := parts[0], parts[1], parts[2]
	if slice == "" {
		slice = "system.slice"
		if os.Geteuid() != 0 {
			slice = "user.slice"
		}
	}
	if _, err := expandSlice(slice); err != nil {
		return Unit{}, err
	}
	unit := Unit{Slice: slice, Name: name}
	if !strings.HasSuffix(name, ".slice") {
		unit.Name = name + ".scope"
		if prefix != "" {
			unit.Name = prefix + "-" + unit.Name
		}
	}
	if name == "" || strings.Contains(unit.Name, "/") || len(unit.Name) > 255 {
		return Unit{}, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroupsPath %q: %q is no unit's name", cgroupsPath, unit.Name)
	}
	return unit, nil
}

// Path is where the unit's group is below the root, if the system's systemd
// keeps it.
func (u Unit) Path() string {
	dir, _ := expandSlice(u.Slice) // Parse has refused what has none
	return path.Join(dir, u.Name)
}

// expandSlice is the path of a slice: "a-b.slice" is in "a.slice", "-.slice" is
// the root (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "%q is no slice's name: want one like system.slice", slice)
	}
	if name == "-" {
		return "/", nil
	}
	out, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", errclass.Errorf(errdefs.ErrInvalidArgument, "%q is no slice's name: a part is empty", slice)
		}
		prefix += part
		out = path.Join(out, prefix+".slice")
		prefix += "-"
	}
	return out, nil
}

// isSlice reports whether the unit is a slice, which holds no processes of its
// own at its start.
func (u Unit) isSlice() bool { return strings.HasSuffix(u.Name, ".slice") }
