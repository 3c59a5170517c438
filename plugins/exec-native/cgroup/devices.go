package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// instruction is one of eBPF (include/uapi/linux/bpf.h, struct bpf_insn).
type instruction struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Operation codes of eBPF that device programs need.
const (
	loadWord     = 0x61 // dst = *(u32 *)(src + off)
	move32       = 0xbc // w(dst) = w(src)
	moveImm      = 0xb7 // dst = imm
	and32Imm     = 0x54 // w(dst) &= imm
	right32Imm   = 0x74 // w(dst) >>= imm
	jumpNotImm32 = 0x56 // if w(dst) != imm goto off
	jumpNotReg32 = 0x5e // if w(dst) != w(src) goto off
	exit         = 0x95
)

// deviceProgram compiles rules into a BPF_PROG_TYPE_CGROUP_DEVICE program: the
// last rule that matches decides, and what none matches is refused. The
// context is struct bpf_cgroup_dev_ctx: access_type (type in the low half,
// access in the high one), major, minor.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]instruction, error) {
	const (
		ctx, kind, access, major, minor, scratch = 1, 2, 3, 4, 5, 0
	)
	prog := []instruction{
		{loadWord, kind, ctx, 0, 0},
		{move32, access, kind, 0, 0},
		{and32Imm, kind, 0, 0, 0xffff},
		{right32Imm, access, 0, 0, 16},
		{loadWord, major, ctx, 4, 0},
		{loadWord, minor, ctx, 8, 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if _, err := deviceRule(r); err != nil {
			return nil, err
		}
		var tests []instruction
		switch r.Type {
		case "b":
			tests = append(tests, instruction{jumpNotImm32, kind, 0, 0, unix.BPF_DEVCG_DEV_BLOCK})
		case "c":
			tests = append(tests, instruction{jumpNotImm32, kind, 0, 0, unix.BPF_DEVCG_DEV_CHAR})
		}
		if bits := accessBits(r.Access); bits != 7 {
			// Allowed only if nothing outside the rule is asked for.
			tests = append(tests,
				instruction{move32, scratch, access, 0, 0},
				instruction{and32Imm, scratch, 0, 0, bits},
				instruction{jumpNotReg32, scratch, access, 0, 0})
		}
		if r.Major != nil && *r.Major >= 0 {
			tests = append(tests, instruction{jumpNotImm32, major, 0, 0, int32(*r.Major)})
		}
		if r.Minor != nil && *r.Minor >= 0 {
			tests = append(tests, instruction{jumpNotImm32, minor, 0, 0, int32(*r.Minor)})
		}
		verdict := int32(0)
		if r.Allow {
			verdict = 1
		}
		tests = append(tests, instruction{moveImm, 0, 0, 0, verdict}, instruction{exit, 0, 0, 0, 0})
		for at := range tests {
			if tests[at].code == jumpNotImm32 || tests[at].code == jumpNotReg32 {
				tests[at].off = int16(len(tests) - at - 1)
			}
		}
		prog = append(prog, tests...)
		if len(tests) == 2 { // matches all: what was written before does not matter
			return prog, nil
		}
	}
	return append(prog, instruction{moveImm, 0, 0, 0, 0}, instruction{exit, 0, 0, 0, 0}), nil
}

// accessBits are a rule's letters as the kernel's bits; none means all.
func accessBits(access string) int32 {
	var bits int32
	for _, a := range access {
		switch a {
		case 'm':
			bits |= unix.BPF_DEVCG_ACC_MKNOD
		case 'r':
			bits |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			bits |= unix.BPF_DEVCG_ACC_WRITE
		}
	}
	if bits == 0 {
		return 7
	}
	return bits
}

// bytes is the instruction as the kernel reads it.
func (i instruction) bytes() []byte {
	b := []byte{i.code, i.dst | i.src<<4}
	b = binary.NativeEndian.AppendUint16(b, uint16(i.off))
	return binary.NativeEndian.AppendUint32(b, uint32(i.imm))
}

// restrictDevices attaches the rules as a program to the version 2 group, where
// version 1 has no controller for them. No rules restrict nothing.
func (p *Parent) restrictDevices(name string, rules []specs.LinuxDeviceCgroup) error {
	if !p.bpf || len(rules) == 0 {
		return nil
	}
	for _, d := range p.dirs {
		if d.Unified {
			if err := attachDevices(int(d.f.Fd()), name, rules); err != nil {
				return fmt.Errorf("restrict devices of cgroup %s/%s: %w", p.path, name, err)
			}
			return nil
		}
	}
	return errclass.Errorf(errdefs.ErrNotImplemented, "restrict devices of cgroup %s/%s: no controller for devices", p.path, name)
}

// attachDevices loads the program and attaches it; it lives as long as the
// group does.
func attachDevices(at int, name string, rules []specs.LinuxDeviceCgroup) error {
	prog, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	group, err := openAt(at, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(group)
	fd, err := loadDevices(prog)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attach := struct {
		target, prog, kind, flags uint32
	}{uint32(group), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach))
	runtime.KeepAlive(&attach)
	if errno != 0 {
		return os.NewSyscallError("attach program", errno)
	}
	return nil
}

// loadDevices hands the program to the kernel's verifier.
func loadDevices(prog []instruction) (int, error) {
	var code []byte
	for _, i := range prog {
		code = append(code, i.bytes()...)
	}
	license := []byte("Apache-2.0\x00")
	load := struct {
		kind, count    uint32
		insns, license uint64
		logLevel, size uint32
		log            uint64
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog)),
		insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EPERM):
		return -1, errclass.Errorf(errdefs.ErrNotImplemented, "load program: %w", errno)
	case errno != 0:
		return -1, os.NewSyscallError("load program", errno)
	}
	unix.CloseOnExec(int(fd)) // bpf sets it already; said for older kernels
	return int(fd), nil
}
