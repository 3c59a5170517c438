package oci

import (
	"slices"
	"strings"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// sysctlOps sets linux.sysctl, in the order of the names.
func sysctlOps(s *specs.Spec) ([]plan.Op, error) {
	names := make([]string, 0, len(s.Linux.Sysctl))
	for name := range s.Linux.Sysctl {
		names = append(names, name)
	}
	slices.Sort(names)
	var ops []plan.Op
	for _, name := range names {
		path := sysctlPath(name)
		if err := checkSysctl(s, name, path); err != nil {
			return nil, err
		}
		ops = append(ops, plan.Sysctl{Path: path, Value: s.Linux.Sysctl[name]})
	}
	return ops, nil
}

// sysctlPath reads a name as sysctl(8) does: the first separator says which of
// "." and "/" separates; the other one is then part of a component, as in
// "net.ipv4.conf.eth0/100.forwarding".
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

// checkSysctl refuses what is not the container's own: a sysctl that belongs to
// no namespace would be set for the whole machine.
func checkSysctl(s *specs.Spec, name, path string) error {
	own := func(t specs.LinuxNamespaceType) error {
		if has, _ := HasNamespace(s, t); !has {
			return invalid("linux.sysctl: %s without a %s namespace would be the host's", name, t)
		}
		return nil
	}
	first, rest, _ := strings.Cut(path, "/")
	switch {
	case path == "" || strings.HasPrefix(path, "/") || slices.ContainsFunc(strings.Split(path, "/"), func(c string) bool { return c == "" || c == "." || c == ".." }):
		return invalid("linux.sysctl: %q is not a name", name)
	case first == "net":
		return own(specs.NetworkNamespace)
	case path == "kernel/domainname" || path == "kernel/hostname":
		if path == "kernel/hostname" && s.Hostname != "" {
			return invalid("linux.sysctl: %s conflicts with hostname", name)
		}
		return own(specs.UTSNamespace)
	case first == "kernel" && (strings.HasPrefix(rest, "msg") || strings.HasPrefix(rest, "shm") || rest == "sem" || rest == "auto_msgmni"),
		strings.HasPrefix(path, "fs/mqueue/"):
		return own(specs.IPCNamespace)
	case first == "user":
		return own(specs.UserNamespace)
	}
	return invalid("linux.sysctl: %s is in no namespace: it would be set for the whole machine", name)
}
