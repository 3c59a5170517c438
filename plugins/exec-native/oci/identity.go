package oci

import (
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// filter is a compiled seccomp filter with its flags.
type filter struct {
	code  []byte
	flags uint32
}

// identityPart is stages 8 and 9: who the program is and what it may. A filter
// that needs no_new_privs is loaded last; otherwise it must be loaded while the
// process still has CAP_SYS_ADMIN.
func identityPart(p *plan.Plan, process *specs.Process, f filter, programs []string) error {
	sets, err := capSets(process.Capabilities)
	if err != nil {
		return err
	}
	umask := uint32(0o022)
	if process.User.Umask != nil {
		umask = *process.User.Umask
	}
	limits, err := limitOps(process)
	if err != nil {
		return err
	}
	load := plan.Seccomp{Filter: f.code, Flags: f.flags}
	late := process.NoNewPrivileges
	p.Add(plan.StageIdentity, limits...) // to be raised they ask for a capability, and a filter may forbid them
	p.Add(plan.StageIdentity, plan.Umask{Mask: umask}, plan.CapBound{Keep: sets.bounding})
	if len(f.code) > 0 && !late {
		p.Add(plan.StageIdentity, load)
	}
	u := process.User
	p.Add(plan.StageIdentity,
		plan.User{UID: u.UID, GID: u.GID, Groups: u.AdditionalGids, KeepCaps: sets.CapSet.Permitted != 0},
		sets.CapSet)
	if late {
		p.Add(plan.StageIdentity, plan.NoNewPrivs{})
	}
	p.Add(plan.StageExec, plan.Sweep{})
	if len(f.code) > 0 && late {
		p.Add(plan.StageExec, load)
	}
	p.Add(plan.StageExec, plan.Exec{Paths: programs, Args: process.Args, Env: process.Env})
	return nil
}

// labelOps name what a security module puts the program under. They come
// before the first mask: a procfs can be made in a user namespace only while a
// whole one is to be seen.
func labelOps(process *specs.Process) []plan.Op {
	var ops []plan.Op
	if profile := process.ApparmorProfile; profile != "" && profile != Unconfined {
		ops = append(ops, plan.Label{Attr: "apparmor/exec", Value: "exec " + profile})
	}
	if label := process.SelinuxLabel; label != "" {
		ops = append(ops, plan.Label{Attr: "keycreate", Value: label}, plan.Label{Attr: "exec", Value: label})
	}
	return ops
}

// Unconfined is the AppArmor profile that confines nothing.
const Unconfined = "unconfined"

// allSets are the five sets of capabilities.
type allSets struct {
	bounding uint64
	plan.CapSet
}

// capSets turns names into bits.
func capSets(c *specs.LinuxCapabilities) (allSets, error) {
	var s allSets
	if c == nil {
		return s, nil
	}
	for _, part := range []struct {
		names []string
		to    *uint64
	}{
		{c.Bounding, &s.bounding}, {c.Effective, &s.CapSet.Effective}, {c.Permitted, &s.CapSet.Permitted},
		{c.Inheritable, &s.CapSet.Inheritable}, {c.Ambient, &s.CapSet.Ambient},
	} {
		bits, err := CapBits(part.names)
		if err != nil {
			return s, err
		}
		*part.to = bits
	}
	return s, nil
}
