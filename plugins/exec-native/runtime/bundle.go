package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// longestConfig bounds a config.json in bytes.
const longestConfig = 16 << 20

// bundle is a specification with what lies beside it.
type bundle struct {
	spec    *specs.Spec
	text    []byte          // as read
	profile json.RawMessage // linux.seccomp, which is not decoded unless it must be
}

// readConfig reads a specification. dir is the bundle's, to which relative paths
// belong.
func readConfig(path, dir string) (*bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read specification: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, longestConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read specification: %w", err)
	}
	if len(text) > longestConfig {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "specification %s: longer than %d bytes", path, longestConfig)
	}
	return decodeConfig(text, dir)
}

// decodeConfig decodes a specification. Fields that the specification does not
// have are passed over, as it asks. The seccomp profile, most of the text of most
// specifications, is left as it is: mostly its filter was compiled before.
func decodeConfig(text []byte, dir string) (*bundle, error) {
	var whole struct {
		specs.Spec
		Linux *struct {
			specs.Linux
			Seccomp json.RawMessage `json:"seccomp,omitempty"`
		} `json:"linux,omitempty"`
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "decode specification: %w", err)
	}
	b := &bundle{spec: &whole.Spec, text: text}
	if whole.Linux != nil {
		b.spec.Linux = &whole.Linux.Linux
		if p := whole.Linux.Seccomp; len(p) > 0 && string(p) != "null" {
			b.profile = p
		}
	}
	if b.spec.Root != nil && b.spec.Root.Path != "" && !filepath.IsAbs(b.spec.Root.Path) {
		b.spec.Root.Path = filepath.Join(dir, b.spec.Root.Path)
	}
	for i, m := range b.spec.Mounts {
		if m.Destination != "" { // a relative one begins at the root (config.md "mounts")
			b.spec.Mounts[i].Destination = filepath.Join("/", m.Destination)
		}
		if oci.Outside(m) && m.Source != "" && !filepath.IsAbs(m.Source) && m.Type != "tmpfs" && m.Type != "overlay" {
			b.spec.Mounts[i].Source = filepath.Join(dir, m.Source)
		}
	}
	if b.spec.Linux != nil {
		for i, d := range b.spec.Linux.Devices {
			if d.Path != "" {
				b.spec.Linux.Devices[i].Path = filepath.Join("/", d.Path)
			}
		}
	}
	if b.spec.Process != nil {
		b.spec.Process.Env = lastOf(b.spec.Process.Env)
	}
	return b, nil
}

// lastOf leaves out variables that a later one of their name replaces, as runc does:
// programs would take the first one.
func lastOf(env []string) []string {
	at := make(map[string]int, len(env))
	for i, v := range env {
		name, _, _ := strings.Cut(v, "=")
		at[name] = i
	}
	if len(at) == len(env) {
		return env
	}
	var out []string
	for i, v := range env {
		if name, _, _ := strings.Cut(v, "="); at[name] == i {
			out = append(out, v)
		}
	}
	return out
}

// seccomp decodes the profile.
func (b *bundle) seccomp() (*specs.LinuxSeccomp, error) {
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(b.profile, &p); err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "decode linux.seccomp: %w", err)
	}
	return &p, nil
}

// filter is the bundle's compiled filter with its flags; empty for none.
func (b *bundle) filter(g *globals) (code []byte, flags uint32, err error) {
	if b.profile == nil {
		return nil, 0, nil
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, 0, err
	}
	disk := seccomp.Disk{Dir: filepath.Join(g.root, filtersDir), Kernel: unix.ByteSliceToString(name.Release[:])}
	if code, flags, ok := disk.Find(b.profile); ok {
		return code, flags, nil
	}
	p, err := b.seccomp()
	if err != nil {
		return nil, 0, err
	}
	return disk.Compile(p, b.profile)
}

// limitCaps leaves capabilities out that cannot be given, with a warning, as the
// specification wants it: unknown ones, those outside our own bounding set, and
// ambient ones that are not permitted and inheritable. For a bundle of version
// 1.0 an unknown one is an error (config.md, "capabilities"; changed in 1.1).
func limitCaps(g *globals, ociVersion string, c *specs.LinuxCapabilities) error {
	if c == nil {
		return nil
	}
	if oci.Older(ociVersion, 1) {
		if _, err := oci.CapBits(slices.Concat(c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient)); err != nil {
			return fmt.Errorf("process.capabilities (ociVersion %s): %w", ociVersion, err)
		}
	}
	own, known := oci.OwnBounding(), oci.CapNames()
	warned := map[string]bool{}
	grantable := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			i := slices.Index(known, n)
			bad := i < 0 || own&(1<<i) == 0
			if bad && !warned[n] {
				warned[n] = true
				g.log.warn("capability %s is unknown or not ours to give: left out", n)
			}
			return bad
		})
	}
	c.Bounding, c.Effective, c.Permitted = grantable(c.Bounding), grantable(c.Effective), grantable(c.Permitted)
	c.Inheritable, c.Ambient = grantable(c.Inheritable), grantable(c.Ambient)
	c.Effective = slices.DeleteFunc(c.Effective, func(n string) bool {
		bad := !slices.Contains(c.Permitted, n)
		if bad {
			g.log.warn("capability %s is effective but not permitted: left out", n)
		}
		return bad
	})
	c.Ambient = slices.DeleteFunc(c.Ambient, func(n string) bool {
		bad := !slices.Contains(c.Permitted, n) || !slices.Contains(c.Inheritable, n)
		if bad {
			g.log.warn("capability %s is ambient but not both permitted and inheritable: left out", n)
		}
		return bad
	})
	return nil
}

// withHome names the home directory where nobody has: of the user, as the
// image's own files tell it.
func withHome(p *specs.Process, read oci.FileReader) error {
	for _, v := range p.Env {
		if strings.HasPrefix(v, "HOME=") {
			return nil
		}
	}
	u, err := oci.LookUpUser(fmt.Sprint(p.User.UID), read)
	if errors.Is(err, errdefs.ErrInvalidArgument) {
		u.Home = "/" // a file that is not one: no reason to fail without having been asked for it
	} else if err != nil {
		return err
	}
	p.Env = append(slices.Clip(p.Env), "HOME="+u.Home)
	return nil
}
