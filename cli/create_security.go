package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/core"
)

// securityFlags are those about what the process may do.
type securityFlags struct {
	privileged      bool
	capAdd, capDrop []string
	options         []string
	devices, rules  []string
	sysctls         []string
}

func (f *securityFlags) register(p *pflag.FlagSet) {
	p.BoolVar(&f.privileged, "privileged", false, "give it every right that the engine has")
	listVar(p, &f.capAdd, "cap-add", "add a capability, or ALL")
	listVar(p, &f.capDrop, "cap-drop", "drop a capability, or ALL")
	listVar(p, &f.options, "security-opt",
		"no-new-privileges, seccomp=FILE|unconfined|builtin, apparmor=PROFILE, label=OPTION, systempaths=unconfined")
	listVar(p, &f.devices, "device", "a device of the host: /dev/NAME[:INSIDE[:rwm]]")
	listVar(p, &f.rules, "device-cgroup-rule", "allow devices by number: 'c 10:200 rwm'")
	listVar(p, &f.sysctls, "sysctl", "set a kernel parameter inside: net.core.somaxconn=1024")
}

func (f *securityFlags) read(s *core.Security) error {
	s.Privileged = f.privileged
	s.CapAdd, s.CapDrop = capabilities(f.capAdd), capabilities(f.capDrop)
	for _, opt := range f.options {
		if err := securityOption(s, opt); err != nil {
			return err
		}
	}
	for _, text := range f.devices {
		d, err := parseDevice(text)
		if err != nil {
			return err
		}
		s.Devices = append(s.Devices, d)
	}
	for _, rule := range f.rules {
		if err := checkDeviceRule(rule); err != nil {
			return err
		}
	}
	s.DeviceRules = f.rules
	for _, e := range f.sysctls {
		if !strings.Contains(e, "=") {
			return fmt.Errorf("sysctl %q: want NAME=value", e)
		}
	}
	var err error
	s.Sysctls, err = pairs("sysctl", f.sysctls)
	return err
}

// securityOption reads one --security-opt. An older way to write them has a
// colon instead of the first equals sign.
func securityOption(s *core.Security, opt string) error {
	name, value, given := strings.Cut(opt, "=")
	if !given {
		name, value, given = strings.Cut(opt, ":")
	}
	switch {
	case name == "no-new-privileges" && (!given || value == "true"):
		s.NoNewPrivileges = true
	case name == "no-new-privileges" && value == "false":
		s.NoNewPrivileges = false
	case name == "seccomp" && value == "unconfined":
		s.Seccomp = value
	case name == "seccomp" && value == "builtin":
		s.Seccomp = ""
	case name == "seccomp" && value != "":
		profile, err := readProfile(value)
		if err != nil {
			return err
		}
		s.Seccomp = profile
	case name == "apparmor" && value != "":
		s.AppArmor = value
	case name == "label" && value != "":
		s.SELinux = append(s.SELinux, value)
	case name == "systempaths" && value == "unconfined":
		s.OpenPaths = true
	default:
		return fmt.Errorf("--security-opt %s is not supported yet", opt)
	}
	return nil
}

// readProfile reads a seccomp profile; what is in it the driver judges.
func readProfile(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", file, err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", file, err)
	}
	return out.String(), nil
}

// capabilities are the names in the kernel's way of writing: with CAP_ in front.
func capabilities(names []string) []string {
	var caps []string
	for _, n := range names {
		n = strings.ToUpper(n)
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		caps = append(caps, n)
	}
	return caps
}

// parseDevice reads HOST[:INSIDE[:PERMISSIONS]]; what stands second may also be
// the permissions.
func parseDevice(text string) (core.Device, error) {
	bad := func(why string) (core.Device, error) { return core.Device{}, fmt.Errorf("device %q: %s", text, why) }
	parts := strings.Split(text, ":")
	d := core.Device{Host: parts[0]}
	switch {
	case len(parts) == 2 && isDeviceMode(parts[1]):
		d.Permissions = parts[1]
	case len(parts) == 2:
		d.Container = parts[1]
	case len(parts) == 3:
		d.Container, d.Permissions = parts[1], parts[2]
	case len(parts) > 3:
		return bad("want HOST[:INSIDE[:rwm]]")
	}
	if !path.IsAbs(d.Host) {
		if vendor, name, ok := strings.Cut(d.Host, "/"); ok && strings.Contains(vendor, ".") && strings.Contains(name, "=") {
			return bad("devices by their CDI names are not supported yet")
		}
		return bad("the path on the host must be absolute")
	}
	if d.Container == "" {
		d.Container = d.Host
	}
	if !path.IsAbs(d.Container) {
		return bad("the path inside must be absolute")
	}
	if d.Permissions != "" && !isDeviceMode(d.Permissions) {
		return bad("permissions are of r, w and m")
	}
	return d, nil
}

// isDeviceMode: one or more of r, w and m, each at most once.
func isDeviceMode(s string) bool {
	for i := range len(s) {
		if !strings.Contains("rwm", s[i:i+1]) || strings.Contains(s[:i], s[i:i+1]) {
			return false
		}
	}
	return s != ""
}

// checkDeviceRule wants "TYPE MAJOR:MINOR PERMISSIONS".
func checkDeviceRule(rule string) error {
	bad := fmt.Errorf("invalid device cgroup format %q: want e.g. 'c 10:200 rwm', * for any number", rule)
	parts := strings.Split(rule, " ")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("abc", parts[0]) || !isDeviceMode(parts[2]) {
		return bad
	}
	major, minor, ok := strings.Cut(parts[1], ":")
	if !ok || major != "*" && !digits(major) || minor != "*" && !digits(minor) {
		return bad
	}
	return nil
}

// namespaceFlags are those about namespaces that are shared.
type namespaceFlags struct {
	network, pid, ipc, uts, user, cgroup string
}

func (f *namespaceFlags) register(p *pflag.FlagSet) {
	p.StringVar(&f.network, "network", "", "network to connect to: bridge, host, none, one of yours, or container:NAME")
	p.StringVar(&f.network, "net", "", "the same as --network")
	p.StringVar(&f.pid, "pid", "", "process namespace: host, or container:NAME")
	p.StringVar(&f.ipc, "ipc", "", "namespace of shared memory: none, private, shareable, host, or container:NAME")
	p.StringVar(&f.uts, "uts", "", "namespace of the host name: host, or container:NAME")
	p.StringVar(&f.user, "userns", "", "user namespace: host, or private for one with ids of its own")
	p.StringVar(&f.cgroup, "cgroupns", "", "cgroup namespace: host or private")
	if net := p.Lookup("net"); net != nil {
		net.Hidden = true
	}
}

// read takes the words as they are given, where they are words at all.
func (f *namespaceFlags) read(sp *core.Spec) error {
	for _, n := range []struct {
		flag, value, words string
		to                 *string
	}{
		{"pid", f.pid, "host private container:", &sp.Security.PID},
		{"ipc", f.ipc, "none private shareable host container:", &sp.Security.IPC},
		{"uts", f.uts, "host private container:", &sp.Security.UTS},
		{"userns", f.user, "host private", &sp.Security.UserNS},
		{"cgroupns", f.cgroup, "host private", &sp.Security.CgroupNS},
	} {
		word, other, shared := strings.Cut(n.value, ":")
		if shared {
			word += ":"
		}
		fits := n.value == ""
		for _, w := range strings.Fields(n.words) {
			fits = fits || w == word && (!shared || other != "")
		}
		if !fits {
			return fmt.Errorf("--%s: invalid mode %q: want one of %s", n.flag, n.value, strings.ReplaceAll(n.words, " ", ", "))
		}
		*n.to = n.value
	}
	sp.Network.Network = f.network
	if f.network == "container:" {
		return fmt.Errorf("--network: invalid mode %q: container:NAME", f.network)
	}
	return nil
}

// resolve puts ids where names of containers are.
func (f *namespaceFlags) resolve(ctx context.Context, a *app, sp *core.Spec) error {
	for _, mode := range []*string{&sp.Security.PID, &sp.Security.IPC, &sp.Security.UTS, &sp.Network.Network} {
		ref, shared := strings.CutPrefix(*mode, "container:")
		if !shared {
			continue
		}
		id, err := a.container(ctx, ref)
		if err != nil {
			return err
		}
		*mode = "container:" + string(id)
	}
	return nil
}
