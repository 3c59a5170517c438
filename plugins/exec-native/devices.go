package execnative

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deviceRules says which devices may be used: the default ones, those that are
// shown to the container, and what further rules say.
func deviceRules(s execdriver.Security) ([]specs.LinuxDeviceCgroup, error) {
	if s.Privileged {
		return allDeviceRules(), nil
	}
	out := defaultDeviceRules()
	for _, d := range s.Devices {
		nodes, err := deviceNodes(d)
		if err != nil {
			return nil, err
		}
		access := d.Permissions
		if access == "" {
			access = "rwm"
		}
		for _, n := range nodes {
			out = append(out, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: access})
		}
	}
	for _, text := range s.DeviceRules {
		rule, err := deviceRule(text)
		if err != nil {
			return nil, err
		}
		out = append(out, rule)
	}
	return out, nil
}

// deviceRule reads a rule as people write it: "c 1:3 rwm", "b *:* m".
func deviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	form := regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)
	m := form.FindStringSubmatch(text)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, driver.Errorf(errdefs.ErrInvalidArgument, "Security.DeviceRules %q: want TYPE MAJOR:MINOR ACCESS, e.g. \"c 1:3 rwm\"", text)
	}
	rule := specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Access: m[4]}
	for i, to := range []**int64{&rule.Major, &rule.Minor} {
		if m[2+i] == "*" {
			continue
		}
		n, err := strconv.ParseInt(m[2+i], 10, 32)
		if err != nil {
			return rule, driver.Errorf(errdefs.ErrInvalidArgument, "Security.DeviceRules %q: %w", text, err)
		}
		*to = &n
	}
	return rule, nil
}

// deviceNodes are the nodes that a device of the host becomes inside: itself,
// or all that a directory holds.
func deviceNodes(d execdriver.Device) ([]specs.LinuxDevice, error) {
	if strings.Trim(d.Permissions, "rwm") != "" {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Security.Devices %s: permissions %q: want letters of rwm", d.Host, d.Permissions)
	}
	inside := d.Container
	if inside == "" {
		inside = d.Host
	}
	if !path.IsAbs(inside) || path.Clean(inside) != inside {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Security.Devices %s: %q is not an absolute, clean path", d.Host, inside)
	}
	host, err := filepath.EvalSymlinks(d.Host)
	if err != nil {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Security.Devices: %w", err)
	}
	node, isDir, err := deviceNode(host)
	switch {
	case err != nil:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Security.Devices: %w", err)
	case !isDir && node == nil:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Security.Devices %s: neither a device nor a directory", d.Host)
	case !isDir:
		node.Path = inside
		return []specs.LinuxDevice{*node}, nil
	}
	var out []specs.LinuxDevice
	err = filepath.WalkDir(host, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // what goes away meanwhile is not there
		}
		if n, _, err := deviceNode(name); err == nil && n != nil {
			n.Path = path.Join(inside, strings.TrimPrefix(name, host))
			out = append(out, *n)
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		err = driver.Errorf(errdefs.ErrInvalidArgument, "Security.Devices %s: no device is in this directory", d.Host)
	}
	return out, err
}

// deviceNode describes what is at a path of the host, if that is a device.
func deviceNode(name string) (node *specs.LinuxDevice, isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return nil, false, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	d := specs.LinuxDevice{Path: name, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), UID: &st.Uid, GID: &st.Gid}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil, true, nil
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return nil, false, nil
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode = &mode
	return &d, false, nil
}
