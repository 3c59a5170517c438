package execnative

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/driver"
)

// openRootfs mounts a root filesystem, detached. An overlay with the option
// "idmap" has lower layers that belong to the host's ids: they are mounted under
// the container's map, which is that of its user namespace, or one made for this
// where user is nil.
func openRootfs(m driver.Mount, ids driver.IDMap, user *os.File) (linux.Detached, error) {
	i := slices.Index(m.Options, driver.OptionIDMap)
	if i < 0 {
		root, err := oci.OpenMount(m.Type, m.Source, m.Options)
		if err != nil {
			return root, fmt.Errorf("mount rootfs: %w", err)
		}
		return root, nil
	}
	root, err := openMapped(m, ids, user)
	if err != nil {
		return root, fmt.Errorf("mount rootfs under its map: %w", oci.Classify(err))
	}
	return root, nil
}

// readable is an overlay with its upper layer as the uppermost of the lower ones
// (Documentation/filesystems/overlayfs.rst, "Multiple lower layers"). Others stay
// as they are.
func readable(m driver.Mount) driver.Mount {
	upper := slices.IndexFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "upperdir=") })
	first := slices.IndexFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "lowerdir+=") })
	if m.Type != "overlay" || upper < 0 || first < 0 {
		return m
	}
	if slices.Contains(m.Options, driver.OptionIDMap) { // the upper is not under the map: openMapped does it
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "workdir=") })
		return m
	}
	top := "lowerdir+=" + strings.TrimPrefix(m.Options[upper], "upperdir=")
	m.Options = slices.Insert(slices.Clone(m.Options), first, top)
	m.Options = slices.DeleteFunc(m.Options, func(o string) bool {
		return strings.HasPrefix(o, "upperdir=") || strings.HasPrefix(o, "workdir=")
	})
	return m
}

// openMapped mounts an overlay whose lower layers are mapped.
func openMapped(m driver.Mount, ids driver.IDMap, user *os.File) (linux.Detached, error) {
	if user == nil {
		own, err := oci.MapNamespace(mappingsOf(ids.UIDs), mappingsOf(ids.GIDs))
		if err != nil {
			return linux.Detached{}, err
		}
		defer own.Close()
		user = own
	}
	o := overlayOptions(m.Options)
	return linux.MountOverlayMapped(o.lowers, o.upper, o.work, o.flags, user)
}

// overlayParts are the options of an overlay, by what they are.
type overlayParts struct {
	lowers      []string
	upper, work string
	flags       []string
}

func overlayOptions(options []string) overlayParts {
	var p overlayParts
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir+":
			p.lowers = append(p.lowers, value)
		case "upperdir":
			p.upper = value
		case "workdir":
			p.work = value
		case driver.OptionIDMap:
		default:
			p.flags = append(p.flags, o)
		}
	}
	return p
}
