package oci

import (
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ExecHandles are the descriptors and settings that one more program of a
// running container is started with. The FDs are places among the files that
// go with the plan.
type ExecHandles struct {
	Front []plan.Op // stage 0: the monitor and what belongs to it, or Leave
	Gate  plan.Op   // where the program waits to be let go; nil for nowhere

	Cgroups   []plan.FD // version 1 tasks files of the container's cgroup
	CgroupDir plan.FD   // its version 2 directory, or NoFD; Cgroups may hold its cgroup.procs instead

	PIDFD   plan.FD // of the container's init
	Chroot  plan.Op // into its root directory, where its mount namespace is the host's; nil otherwise
	Join    uint64  // CLONE_NEW… of the namespaces in which the init differs from us
	Keyring string  // name of a new session keyring; empty for none

	OOMScore    int // our own: written only if the process's differs
	Filter      []byte
	FilterFlags uint32
	Programs    []string // candidates for the program
}

// PlanExec turns a process into the operations that run it inside a container
// that is there. It is pure.
func PlanExec(process *specs.Process, h ExecHandles) (*plan.Plan, error) {
	p := &plan.Plan{}
	p.Add(plan.StageMonitor, h.Front...)
	initial, final, err := affinity(process.ExecCPUAffinity)
	if err != nil {
		return nil, err
	}
	if initial != nil {
		p.Add(plan.StageJoin, plan.Affinity{Mask: initial})
	}
	for _, fd := range h.Cgroups {
		p.Add(plan.StageJoin, plan.Cgroup{FD: fd})
	}
	if h.Join != 0 {
		p.Add(plan.StageJoin, plan.Join{FD: h.PIDFD, Flags: uint32(h.Join)})
	}
	p.Add(plan.StageClone, plan.Clone{Cgroup: h.CgroupDir})
	if h.Chroot != nil {
		p.Add(plan.StageChild, h.Chroot)
	}
	if final != nil {
		p.Add(plan.StageChild, plan.Affinity{Mask: final})
	}
	if h.Join&unix.CLONE_NEWUSER != 0 {
		p.Add(plan.StageChild, plan.User{})
	}
	if err := attributePart(p, process, h.OOMScore); err != nil {
		return nil, err
	}
	if h.Keyring != "" {
		p.Add(plan.StageChild, plan.Keyring{Name: h.Keyring})
	}
	p.Add(plan.StageCover, labelOps(process)...)
	p.Add(plan.StageCover, plan.Chdir{Path: process.Cwd})
	if process.Terminal {
		p.Add(plan.StageGate, ptyOf(process.ConsoleSize))
	}
	if h.Gate != nil {
		p.Add(plan.StageGate, h.Gate)
	}
	return p, identityPart(p, process, filter{h.Filter, h.FilterFlags}, h.Programs)
}

// ptyOf is the terminal of a program that joins a container.
func ptyOf(size *specs.Box) plan.Pty {
	rows, cols := consoleSize(size)
	return plan.Pty{Rows: rows, Cols: cols}
}

// consoleSize is a terminal's size; zeros leave it to its user.
func consoleSize(size *specs.Box) (rows, cols uint16) {
	if size == nil {
		return 0, 0
	}
	const most = 1<<16 - 1
	return uint16(min(size.Height, most)), uint16(min(size.Width, most))
}

// affinity reads process.execCPUAffinity.
func affinity(a *specs.CPUAffinity) (initial, final []byte, err error) {
	if a == nil {
		return nil, nil, nil
	}
	if a.Initial != "" {
		if initial, err = ParseSet("process.execCPUAffinity.initial", a.Initial); err != nil {
			return nil, nil, err
		}
	}
	if a.Final != "" {
		final, err = ParseSet("process.execCPUAffinity.final", a.Final)
	}
	return initial, final, err
}
