package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
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
func deviceProgram(rules []deviceRule) []instruction {
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
		var tests []instruction
		switch r.kind {
		case 'b':
			tests = append(tests, instruction{jumpNotImm32, kind, 0, 0, unix.BPF_DEVCG_DEV_BLOCK})
		case 'c':
			tests = append(tests, instruction{jumpNotImm32, kind, 0, 0, unix.BPF_DEVCG_DEV_CHAR})
		}
		if bits := int32(r.access); bits != anyAccess {
			// Allowed only if nothing outside the rule is asked for.
			tests = append(tests,
				instruction{move32, scratch, access, 0, 0},
				instruction{and32Imm, scratch, 0, 0, bits},
				instruction{jumpNotReg32, scratch, access, 0, 0})
		}
		if r.major != wild {
			tests = append(tests, instruction{jumpNotImm32, major, 0, 0, int32(r.major)})
		}
		if r.minor != wild {
			tests = append(tests, instruction{jumpNotImm32, minor, 0, 0, int32(r.minor)})
		}
		verdict := int32(0)
		if r.allow {
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
			return prog
		}
	}
	return append(prog, instruction{moveImm, 0, 0, 0, 0}, instruction{exit, 0, 0, 0, 0})
}

// bytes is the instruction as the kernel reads it.
func (i instruction) bytes() []byte {
	b := []byte{i.code, i.dst | i.src<<4}
	b = binary.NativeEndian.AppendUint16(b, uint16(i.off))
	return binary.NativeEndian.AppendUint32(b, uint32(i.imm))
}

// programName marks the programs that this package attaches, so that an update
// replaces its own and no other's (systemd attaches some too).
const programName = "gantry_devices"

// restrictTo attaches the rules as a program to the version 2 group that the
// descriptor names, instead of one attached before. The program lives as long
// as the group does. The group's programs are asked in turn, and all must allow.
func restrictTo(group int, rules []deviceRule) error {
	prog, err := loadDevices(deviceProgram(rules))
	if err != nil {
		return err
	}
	defer unix.Close(prog)
	old, err := attachedProgram(group)
	if err != nil {
		return err
	}
	attach := struct {
		target, prog, kind, flags, replace uint32
	}{uint32(group), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	if old >= 0 {
		defer unix.Close(old)
		attach.flags |= unix.BPF_F_REPLACE // Linux 5.6
		attach.replace = uint32(old)
	}
	_, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach))
	runtime.KeepAlive(&attach)
	return os.NewSyscallError("attach program", err)
}

// bpf is the system call.
func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// attachedProgram opens this package's program that is attached to the group;
// -1 where none is.
func attachedProgram(group int) (int, error) {
	var ids [64]uint32 // BPF_CGROUP_MAX_PROGS
	query := struct {
		target, kind, flags, attachFlags uint32
		ids                              uint64
		count, _                         uint32
	}{target: uint32(group), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&query), unsafe.Sizeof(query))
	runtime.KeepAlive(&query)
	runtime.KeepAlive(&ids)
	if err != nil {
		return -1, os.NewSyscallError("query programs", err)
	}
	for _, id := range ids[:min(int(query.count), len(ids))] {
		get := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
		runtime.KeepAlive(&get)
		if errors.Is(err, unix.ENOENT) {
			continue // replaced meanwhile
		}
		if err != nil {
			return -1, os.NewSyscallError("open program", err)
		}
		name, err := nameOfProgram(fd)
		if err == nil && name == programName {
			return fd, nil
		}
		unix.Close(fd)
		if err != nil {
			return -1, os.NewSyscallError("look at program", err)
		}
	}
	return -1, nil
}

// nameOfProgram reads the name out of struct bpf_prog_info, where it begins at
// byte 64 (include/uapi/linux/bpf.h).
func nameOfProgram(fd int) (string, error) {
	var info [80]byte
	get := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info[0])))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&get), unsafe.Sizeof(get))
	runtime.KeepAlive(&get)
	runtime.KeepAlive(&info)
	name, _, _ := bytes.Cut(info[64:80], []byte{0})
	return string(name), err
}

// loadDevices hands the program to the kernel's verifier.
func loadDevices(prog []instruction) (int, error) {
	code := make([]byte, 0, 8*len(prog))
	for _, i := range prog {
		code = append(code, i.bytes()...)
	}
	license := []byte("Apache-2.0\x00")
	load := struct {
		kind, count    uint32
		insns, license uint64
		logLevel, size uint32
		log            uint64
		version, flags uint32
		name           [16]byte
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog)),
		insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(load.name[:], programName)
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	// The verifier gives up for any signal, and Go preempts by signals.
	for range 30 {
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
		fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	}
	runtime.KeepAlive(&load)
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return -1, errclass.Errorf(errdefs.ErrNotImplemented, "load program: %w", err)
	case err != nil:
		return -1, os.NewSyscallError("load program", err)
	}
	unix.CloseOnExec(fd) // bpf sets it already; said for older kernels
	return fd, nil
}
