package core

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// The sentences of this file follow Docker's where Docker has one: people search
// for them.

// invalid refuses a value that cannot be.
func invalid(format string, args ...any) error {
	return refuse(errdefs.ErrInvalidArgument, format, args...)
}

// anyOf gives the first error.
func anyOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// check refuses what cannot be, by field and value.
func (sp *Spec) check() error {
	return anyOf(
		sp.Process.check(), checkMounts(sp.Mounts), sp.Resources.check(), sp.Security.check(),
		sp.Health.check(), sp.Logging.check(), sp.checkTogether(), checkArgs(sp.Process.Args()),
	)
}

func (p *Process) check() error {
	switch {
	case p.Cwd != "" && !path.IsAbs(p.Cwd):
		return invalid("the working directory %q is invalid: it must be an absolute path", p.Cwd)
	case p.StopSignal < 0 || p.StopSignal > 64:
		return invalid("stop signal %d is not between 1 and 64", p.StopSignal)
	case p.StopTimeout < 0:
		return invalid("stop timeout %v is negative", p.StopTimeout)
	case strings.IndexByte(p.User, 0) >= 0:
		return invalid("user %q holds a NUL byte", p.User)
	}
	for _, g := range p.Groups {
		if g == "" || strings.ContainsAny(g, ":\x00\n") {
			return invalid("group %q is invalid: give a name or a number", g)
		}
	}
	return anyOf(checkTerminal(p.Rows, p.Columns), checkEnv(p.Env))
}

func checkTerminal(rows, columns int) error {
	if rows < 0 || rows > 65535 || columns < 0 || columns > 65535 {
		return invalid("a terminal of %d rows and %d columns cannot be", rows, columns)
	}
	return nil
}

func checkEnv(env []Env) error {
	for _, e := range env {
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
			return invalid("environment variable name %q is invalid", e.Name)
		}
		if !e.Sealed && strings.IndexByte(e.Value, 0) >= 0 {
			return invalid("the value of environment variable %s holds a NUL byte", e.Name)
		}
	}
	return nil
}

func checkArgs(args []string) error {
	if len(args) == 0 {
		return invalid("no command specified, and the image names none")
	}
	for _, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return invalid("argument %q holds a NUL byte", a)
		}
	}
	return nil
}

func checkMounts(mounts []MountSpec) error {
	seen := make(map[string]bool)
	for _, m := range mounts {
		target := path.Clean(m.Target)
		switch {
		case m.Type != "bind" && m.Type != "tmpfs":
			return invalid("mount type %q: only bind and tmpfs are supported yet", m.Type)
		case !path.IsAbs(m.Target) || strings.IndexByte(m.Target, 0) >= 0:
			return invalid("invalid mount path: %q: mount path must be absolute", m.Target)
		case target == "/":
			return invalid("invalid mount path: %q: destination can't be '/'", m.Target)
		case seen[target]:
			return invalid("duplicate mount point: %s", target)
		case m.Type == "bind" && (!path.IsAbs(m.Source) || strings.IndexByte(m.Source, 0) >= 0):
			return invalid("invalid bind source %q: it must be an absolute path", m.Source)
		case m.Type == "tmpfs" && m.Source != "":
			return invalid("a tmpfs has no source (%q)", m.Source)
		}
		seen[target] = true
		for _, o := range m.Options {
			if o == "" || strings.ContainsAny(o, ",\x00") {
				return invalid("mount option %q of %s is invalid", o, target)
			}
		}
	}
	return nil
}

func (l *Logging) check() error {
	switch l.Driver {
	case "", "local", "json-file", "none":
	default:
		return invalid("log driver %q is not supported yet: use local, json-file or none", l.Driver)
	}
	switch {
	case l.MaxBytes < 0 || l.MaxFiles < 0 || l.MaxAge < 0 || l.MaxBufferBytes < 0:
		return invalid("a log's limits cannot be negative")
	case l.MaxBufferBytes > 0 && !l.NonBlocking:
		return invalid("max-buffer-size is only supported with mode=non-blocking")
	case l.Driver == "none" && (l.MaxBytes > 0 || l.MaxFiles > 0 || l.MaxAge > 0):
		return invalid("log driver none keeps nothing: it has no limits")
	}
	return nil
}

// healthLeast is the shortest time that a probe's timing knows.
const healthLeast = time.Millisecond

func (h *Health) check() error {
	if h == nil {
		return nil
	}
	switch word := h.Test[0]; {
	case word == "CMD" && len(h.Test) > 1 && h.Test[1] != "", word == "CMD-SHELL" && len(h.Test) == 2:
	case word == "CMD" || word == "CMD-SHELL":
		return invalid("health check %q names no command", h.Test)
	default:
		return invalid("unknown health check type %q: use CMD or CMD-SHELL", word)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start period", h.StartPeriod}, {"start interval", h.StartInterval}} {
		if d.d != 0 && d.d < healthLeast {
			return invalid("the %s of a health check cannot be less than %v", d.name, healthLeast)
		}
	}
	if h.Retries < 0 {
		return invalid("the retries of a health check cannot be negative")
	}
	return checkArgs(h.Test)
}

// checkTogether refuses what cannot be wished for together.
func (sp *Spec) checkTogether() error {
	sec := &sp.Security
	_, sharedNet := sharedWith(sp.Network.Network)
	_, sharedUTS := sharedWith(sec.UTS)
	named := sp.Network.Hostname != "" || sp.Network.Domain != ""
	switch {
	case sharedNet && named:
		return invalid("conflicting options: hostname and the network mode")
	case (sec.UTS == "host" || sharedUTS) && named:
		return invalid("conflicting options: hostname and the UTS mode")
	case sec.UserNS == "private" && sec.Privileged:
		return invalid("privileged mode is incompatible with user namespaces: use --userns host")
	case sec.UserNS == "private" && sp.Network.Network == "host":
		return invalid("cannot share the host's network namespace when user namespaces are enabled")
	case sec.UserNS == "private" && sec.PID == "host":
		return invalid("cannot share the host PID namespace when user namespaces are enabled")
	case sp.Rootfs.ShmBytes < 0:
		return invalid("SHM size can not be less than 0")
	case sp.Rootfs.ShmBytes > 0 && (sec.IPC == "none" || sec.IPC == "host" || strings.HasPrefix(sec.IPC, "container:")):
		return invalid("conflicting options: the size of /dev/shm and the IPC mode %q", sec.IPC)
	}
	return sec.checkSysctls(sp.Network.Network == "host" || sharedNet)
}

// seccomp profiles are at most so long.
const seccompMost = 1 << 20

func (s *Security) check() error {
	modes := [...]struct {
		what, mode, words string
		shared            bool
	}{
		{"user namespace", s.UserNS, "host private", false},
		{"PID", s.PID, "private host", true},
		{"IPC", s.IPC, "private none shareable host", true},
		{"UTS", s.UTS, "private host", true},
		{"cgroup namespace", s.CgroupNS, "private host", false},
	}
	for _, m := range modes {
		if id, shared := sharedWith(m.mode); shared && m.shared && isHexID(string(id)) {
			continue
		}
		if m.mode != "" && !slices.Contains(strings.Fields(m.words), m.mode) {
			return invalid("invalid %s mode: %q", m.what, m.mode)
		}
	}
	switch {
	case s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000:
		return invalid("invalid value %d, range for oom score adj is [-1000, 1000]", s.OOMScoreAdj)
	case len(s.Seccomp) > seccompMost:
		return invalid("the seccomp profile has %d bytes, more than %d", len(s.Seccomp), seccompMost)
	case s.Seccomp != "" && s.Seccomp != "unconfined" && !json.Valid([]byte(s.Seccomp)):
		return invalid("decoding the seccomp profile failed: it is not JSON")
	case strings.ContainsAny(s.AppArmor, " \x00\n"):
		return invalid("AppArmor profile name %q is invalid", s.AppArmor)
	}
	for _, o := range s.SELinux {
		if key, value, ok := strings.Cut(o, ":"); o != "disable" && (!ok || value == "" || !slices.Contains([]string{"user", "role", "type", "level", "filetype"}, key)) {
			return invalid("bad label option %q: use disable, or one of user, role, type and level with a value", o)
		}
	}
	for _, list := range [2][]string{s.CapAdd, s.CapDrop} {
		for _, c := range list {
			if c == "" || strings.Trim(strings.ToUpper(c), "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") != "" {
				return invalid("invalid capability: %q", c)
			}
		}
	}
	return s.checkDevices()
}

func (s *Security) checkDevices() error {
	for _, d := range s.Devices {
		switch {
		case !path.IsAbs(d.Host) || !path.IsAbs(d.Container):
			return invalid("bad format for path: device %q at %q: give absolute paths", d.Host, d.Container)
		case !isAccess(d.Permissions, 0):
			return invalid("invalid permissions %q of device %s: use some of r, w and m", d.Permissions, d.Host)
		}
	}
	for _, r := range s.DeviceRules {
		if !isDeviceRule(r) {
			return invalid("invalid device cgroup format %q: use \"c 1:3 rwm\"", r)
		}
	}
	return nil
}

// isAccess reports whether a holds some of r, w and m, none twice.
func isAccess(a string, least int) bool {
	for i, c := range a {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(a[:i], c) {
			return false
		}
	}
	return len(a) >= least
}

// isDeviceRule is Docker's ^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$.
func isDeviceRule(rule string) bool {
	f := strings.Split(rule, " ")
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("acb", f[0]) || !isAccess(f[2], 1) {
		return false
	}
	major, minor, ok := strings.Cut(f[1], ":")
	number := func(n string) bool {
		return n == "*" || n != "" && len(n) <= 10 && strings.Trim(n, "0123456789") == ""
	}
	return ok && number(major) && number(minor)
}

// checkSysctls allows what is namespaced, as Docker does: what belongs to a
// namespace of the container's own.
func (s *Security) checkSysctls(foreignNet bool) error {
	ipc := []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced",
	}
	_, sharedIPC := sharedWith(s.IPC)
	names := make([]string, 0, len(s.Sysctls))
	for name := range s.Sysctls {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		dotted := strings.ReplaceAll(name, "/", ".")
		isNet := strings.HasPrefix(dotted, "net.")
		isIPC := slices.Contains(ipc, dotted) || strings.HasPrefix(dotted, "fs.mqueue.")
		switch {
		case strings.Contains(dotted, "..") || strings.ContainsAny(name, "\x00=") || !isNet && !isIPC:
			return invalid("sysctl '%s' is not allowed: only those of a container's own network and IPC namespaces are", name)
		case isNet && foreignNet:
			return invalid("sysctl '%s' is not allowed: the network namespace is not the container's own", name)
		case isIPC && (s.IPC == "host" || sharedIPC):
			return invalid("sysctl '%s' is not allowed: the IPC namespace is not the container's own", name)
		case strings.IndexByte(s.Sysctls[name], 0) >= 0:
			return invalid("the value of sysctl '%s' holds a NUL byte", name)
		}
	}
	return nil
}
