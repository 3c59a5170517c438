package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/core"
)

// mountFlags are those about what is mounted beside the root filesystem.
type mountFlags struct{ volumes, mounts, tmpfs []string }

func (f *mountFlags) register(p *pflag.FlagSet) {
	listVarP(p, &f.volumes, "volume", "v", "a host directory or file: /HOST:/INSIDE[:ro,rslave…]")
	listVar(p, &f.mounts, "mount", "the same in words: type=bind,source=/HOST,target=/INSIDE,readonly; type=tmpfs,target=/INSIDE")
	listVar(p, &f.tmpfs, "tmpfs", "a filesystem in memory: /INSIDE[:size=64m,mode=1770…]")
}

func (f *mountFlags) read() ([]core.MountSpec, error) {
	var list []core.MountSpec
	for _, each := range []struct {
		texts []string
		parse func(string) (core.MountSpec, error)
	}{{f.volumes, parseVolume}, {f.mounts, parseMount}, {f.tmpfs, parseTmpfs}} {
		for _, text := range each.texts {
			m, err := each.parse(text)
			if err != nil {
				return nil, err
			}
			if m.Target == "/" {
				return nil, fmt.Errorf("mount %q: the target must not be /", text)
			}
			if slices.ContainsFunc(list, func(o core.MountSpec) bool { return o.Target == m.Target }) {
				return nil, fmt.Errorf("duplicate mount point: %s", m.Target)
			}
			list = append(list, m)
		}
	}
	return list, nil
}

// parseVolume reads HOST:INSIDE[:OPTIONS].
func parseVolume(text string) (core.MountSpec, error) {
	bad := func(format string, args ...any) (core.MountSpec, error) {
		return core.MountSpec{}, fmt.Errorf("volume %q: %w", text, fmt.Errorf(format, args...))
	}
	parts := strings.Split(text, ":")
	switch {
	case len(parts) > 3 || slices.Contains(parts, ""):
		return bad("want /HOST:/INSIDE[:OPTIONS]")
	case len(parts) == 1:
		return bad("--volume of a volume without a name is not supported yet: name a host path")
	}
	host, inside := parts[0], parts[1]
	if strings.HasPrefix(host, ".") {
		var err error
		if host, err = filepath.Abs(host); err != nil {
			return bad("%w", err)
		}
	}
	if !path.IsAbs(host) {
		return bad("--volume of the named volume %s is not supported yet: name a host path", host)
	}
	if !path.IsAbs(inside) {
		return bad("the path inside must be absolute")
	}
	m := core.MountSpec{Type: "bind", Source: path.Clean(host), Target: path.Clean(inside), Options: []string{"rbind"}}
	if len(parts) == 2 {
		return m, nil
	}
	given := make(map[string]string) // group to the word that was given
	for _, o := range strings.Split(parts[2], ",") {
		group, known := bindWords()[o]
		switch {
		case o == "z" || o == "Z":
			return bad("the option %s (an SELinux label) is not supported yet", o)
		case o == "nocopy" || o == "volume-nocopy":
			return bad("the option %s is for named volumes, which are not supported yet", o)
		case !known:
			return bad("invalid mode: %s", o)
		case given[group] != "":
			return bad("invalid mode: %s and %s", given[group], o)
		}
		given[group] = o
		if group != "cache" { // words for another system, which mean nothing here
			m.Options = append(m.Options, o)
		}
	}
	return m, nil
}

// bindWords are the options of -v by what they are about: one of a group may be given.
func bindWords() map[string]string {
	return map[string]string{
		"ro": "access", "rw": "access",
		"private": "propagation", "rprivate": "propagation", "shared": "propagation", "rshared": "propagation",
		"slave": "propagation", "rslave": "propagation",
		"consistent": "cache", "cached": "cache", "delegated": "cache",
	}
}

// parseTmpfs reads INSIDE[:OPTIONS].
func parseTmpfs(text string) (core.MountSpec, error) {
	inside, options, some := strings.Cut(text, ":")
	if !path.IsAbs(inside) {
		return core.MountSpec{}, fmt.Errorf("tmpfs %q: the path inside must be absolute", text)
	}
	m := core.MountSpec{Type: "tmpfs", Target: path.Clean(inside)}
	if some {
		m.Options = strings.Split(options, ",")
	}
	return m, nil
}

// mountWords is one --mount, taken apart.
type mountWords struct {
	core.MountSpec
	kind      string
	readOnly  bool
	recursive string
	spread    string // propagation
	size      string
	mode      string
}

// parseMount reads NAME=value,NAME=value…, as a line of CSV.
func parseMount(text string) (core.MountSpec, error) {
	bad := func(err error) (core.MountSpec, error) {
		return core.MountSpec{}, fmt.Errorf("mount %q: %w", text, err)
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return bad(err)
	}
	w := mountWords{kind: "volume"}
	for _, field := range fields {
		name, value, given := strings.Cut(field, "=")
		if err := w.take(strings.ToLower(name), value, given); err != nil {
			return bad(err)
		}
	}
	m, err := w.mount()
	if err != nil {
		return bad(err)
	}
	return m, nil
}

func (w *mountWords) take(name, value string, given bool) error {
	flag := func() (bool, error) {
		if !given {
			return true, nil
		}
		return strconv.ParseBool(value)
	}
	var err error
	switch name {
	case "type":
		w.kind = strings.ToLower(value)
	case "source", "src":
		w.Source = value
		if strings.HasPrefix(value, ".") {
			w.Source, err = filepath.Abs(value)
		}
	case "target", "dst", "destination":
		w.Target = value
	case "readonly", "ro":
		w.readOnly, err = flag()
	case "bind-propagation":
		w.spread = strings.ToLower(value)
	case "bind-recursive":
		w.recursive = value
	case "bind-nonrecursive":
		var off bool
		if off, err = flag(); off {
			w.recursive = "disabled"
		}
	case "tmpfs-size":
		w.size = value
	case "tmpfs-mode":
		w.mode = value
	case "consistency": // a word for another system
	default:
		return fmt.Errorf("%s is not supported yet", name)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: %w", name, value, err)
	}
	return nil
}

func (w *mountWords) mount() (core.MountSpec, error) {
	m := core.MountSpec{Type: w.kind, Source: w.Source, Target: path.Clean(w.Target)}
	switch {
	case w.kind != "bind" && w.kind != "tmpfs":
		return m, fmt.Errorf("type=%s is not supported yet", w.kind)
	case w.Target == "":
		return m, errors.New("target is required")
	case !path.IsAbs(w.Target):
		return m, errors.New("target must be an absolute path")
	case w.kind == "tmpfs" && w.Source != "":
		return m, errors.New("a tmpfs has no source")
	case w.kind == "tmpfs" && w.spread+w.recursive != "":
		return m, errors.New("bind options are for type=bind")
	case w.kind == "bind" && w.size+w.mode != "":
		return m, errors.New("tmpfs options are for type=tmpfs")
	case w.kind == "bind" && !path.IsAbs(w.Source):
		return m, errors.New("source must be an absolute path")
	case bindWords()[w.spread] != "propagation" && w.spread != "":
		return m, fmt.Errorf("invalid bind-propagation %q", w.spread)
	}
	if w.kind == "tmpfs" {
		return m, w.tmpfs(&m)
	}
	m.Source = path.Clean(m.Source)
	switch w.recursive {
	case "", "enabled":
		m.Options = []string{"rbind"}
	case "disabled":
		m.Options = []string{"bind"}
	case "writable", "readonly":
		// Of a read-only mount: what is mounted below stays writable, or must not.
		if !w.readOnly {
			return m, fmt.Errorf("bind-recursive=%s needs readonly", w.recursive)
		}
		m.Options = []string{"rbind"}
		if w.recursive == "readonly" {
			m.Options = append(m.Options, "rro")
		}
	default:
		return m, fmt.Errorf("invalid bind-recursive %q: want enabled, disabled, writable or readonly", w.recursive)
	}
	if w.readOnly {
		m.Options = append(m.Options, "ro")
	}
	if w.spread != "" {
		m.Options = append(m.Options, w.spread)
	}
	return m, nil
}

func (w *mountWords) tmpfs(m *core.MountSpec) error {
	if w.readOnly {
		m.Options = append(m.Options, "ro")
	}
	if w.size != "" {
		n, err := parseBytes(w.size)
		if err != nil {
			return fmt.Errorf("tmpfs-size: %w", err)
		}
		m.Options = append(m.Options, "size="+strconv.FormatInt(n, 10))
	}
	if w.mode != "" {
		n, err := strconv.ParseUint(w.mode, 8, 12)
		if err != nil {
			return fmt.Errorf("tmpfs-mode %q: want an octal number", w.mode)
		}
		m.Options = append(m.Options, fmt.Sprintf("mode=%o", n))
	}
	return nil
}
