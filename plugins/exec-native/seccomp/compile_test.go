package seccomp

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// someCaps are Docker's default capabilities.
func someCaps() []string {
	return []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
		"CAP_KILL", "CAP_AUDIT_WRITE"}
}

// interesting are values on both sides of what profiles compare with.
func interesting(p *specs.LinuxSeccomp) []uint64 {
	values := []uint64{0, 1, 0xffffffff, 0x100000000, 0xffffffffffffffff, 0x7fffffff, 0x80000000}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			values = append(values, a.Value, a.Value-1, a.Value+1, a.Value|1<<40, a.ValueTwo, ^a.Value)
		}
	}
	return values
}

// checkAgainstLinear compares filter and profile for all numbers of a table.
func checkAgainstLinear(t *testing.T, p *specs.LinuxSeccomp, name specs.Arch, rounds int) {
	t.Helper()
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	a, err := archOf(name)
	if err != nil {
		t.Fatal(err)
	}
	table := a.table()
	values := interesting(p)
	rng := rand.New(rand.NewPCG(1, 2))
	deepest := 0
	for number := uint32(0); number < 1200; number++ {
		for range rounds {
			var args [6]uint64
			for i := range args {
				args[i] = values[rng.IntN(len(values))]
			}
			d := data{number: number, arch: a.audit, args: args}
			if a.x32 {
				d.number |= x32Bit
			}
			got, steps, err := interpret(prog, d)
			if err != nil {
				t.Fatalf("%s call %d: %v", name, number, err)
			}
			deepest = max(deepest, steps)
			if want := linear(p, a, table, number, args); got != want {
				t.Fatalf("%s call %d args %#x: filter answers %#x, the profile %#x", name, number, args, got, want)
			}
		}
	}
	if deepest > 60 {
		t.Errorf("%s: %d instructions for one call: the tree is not balanced", name, deepest)
	}
}

func TestDefaultProfileTreeEqualsLinear(t *testing.T) {
	for caps, bounding := range map[string][]string{"default": someCaps(), "none": nil, "admin": {"CAP_SYS_ADMIN", "CAP_SYS_TIME"}} {
		p, err := DefaultProfile(bounding)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
			t.Run(caps+"/"+string(name), func(t *testing.T) { checkAgainstLinear(t, p, name, 20) })
		}
	}
}

// TestRandomProfiles also drives the long jumps and every operator.
func TestRandomProfiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	a, _ := archOf(specs.ArchX86_64)
	var names []string
	for name := range a.table() {
		names = append(names, name)
	}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActLog, specs.ActTrace, specs.ActKill}
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	for range 6 {
		errno := uint(rng.IntN(4096))
		p := &specs.LinuxSeccomp{DefaultAction: actions[rng.IntN(len(actions))], DefaultErrnoRet: &errno,
			Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
		for range 100 {
			s := specs.LinuxSyscall{Names: []string{names[rng.IntN(len(names))]}, Action: actions[rng.IntN(len(actions))]}
			for range rng.IntN(4) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(rng.IntN(6)), Value: rng.Uint64() >> rng.IntN(64),
					ValueTwo: rng.Uint64() >> rng.IntN(64), Op: ops[rng.IntN(len(ops))]})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
			checkAgainstLinear(t, p, name, 20)
		}
	}
}

func TestStrangeArchitectureIsKilled(t *testing.T) {
	p, err := DefaultProfile(someCaps())
	if err != nil {
		t.Fatal(err)
	}
	without := *p
	without.Architectures = nil
	prog, err := Compile(&without)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []data{
		{arch: 0xc00000b7, number: 0},
		{arch: 0x40000003, number: 3},
		{arch: 0xc000003e, number: x32Bit | 1},
	} {
		if got, _, _ := interpret(prog, d); got != retKillProcess {
			t.Errorf("arch %#x number %#x: %#x, want kill", d.arch, d.number, got)
		}
	}
	if got, _, _ := interpret(prog, data{arch: 0xc000003e, number: unix.SYS_READ}); got != retAllow {
		t.Errorf("read: %#x, want allow", got)
	}
	// No call's number, with x32's bit or without.
	for _, p := range []*specs.LinuxSeccomp{p, &without} {
		if prog, err = Compile(p); err != nil {
			t.Fatal(err)
		}
		if got, _, _ := interpret(prog, data{arch: 0xc000003e, number: noCall}); got != retErrno|uint32(unix.ENOSYS) {
			t.Errorf("call -1: %#x, want ENOSYS", got)
		}
	}
}

// TestForeignTables checks the tables that this machine cannot run.
func TestForeignTables(t *testing.T) {
	for name, want := range map[specs.Arch]map[string]uint32{
		specs.ArchAARCH64: {"read": 63, "openat2": 437, "newfstatat": 79, "clone3": 435},
		specs.ArchARM:     {"read": 3, "set_tls": 0xf0005, "openat2": 437},
		specs.ArchX32:     {"ioctl": 514, "execve": 520, "openat2": 437, "read": 0, "mseal": 462},
		specs.ArchX86:     {"read": 3, "socketcall": 102, "clock_gettime64": 403},
	} {
		a, err := archOf(name)
		if err != nil {
			t.Fatal(err)
		}
		table := a.table()
		for call, number := range want {
			if table[call] != number {
				t.Errorf("%s %s: %d, want %d", name, call, table[call], number)
			}
		}
	}
	own := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "openat2", "set_tls"}, Action: specs.ActAllow}}}
	prog, err := Compile(own)
	if err != nil {
		t.Fatal(err)
	}
	enosys, eperm := uint32(retErrno|uint32(unix.ENOSYS)), uint32(retErrno|uint32(unix.EPERM))
	for number, want := range map[uint32]uint32{3: retAllow, 4: eperm, 437: retAllow, 438: enosys, 1000: enosys, 0xeffff: enosys,
		0xf0000: eperm, 0xf0001: eperm, 0xf0005: retAllow, 0xf0006: enosys} {
		if got, _, _ := interpret(prog, data{arch: mustArch(t, specs.ArchARM).audit, number: number}); got != want {
			t.Errorf("ARM call %#x: %#x, want %#x", number, got, want)
		}
	}
	checkAgainstLinear(t, own, specs.ArchARM, 1)
	p, _ := DefaultProfile(someCaps())
	calls, err := callsOf(p, mustArch(t, specs.ArchAARCH64))
	if err != nil || len(calls) < 250 {
		t.Errorf("arm64: %d calls of the profile found, %v", len(calls), err)
	}
}

func mustArch(t *testing.T, name specs.Arch) arch {
	t.Helper()
	a, err := archOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRefusals(t *testing.T) {
	big := uint(5000)
	arg := func(a specs.LinuxSeccompArg) []specs.LinuxSyscall {
		return []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{a}}}
	}
	for name, c := range map[string]struct {
		p    specs.LinuxSeccomp
		want error
	}{
		"notify":   {specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, errdefs.ErrInvalidArgument},
		"errno":    {specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &big}, errdefs.ErrInvalidArgument},
		"index":    {specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: arg(specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo})}, errdefs.ErrInvalidArgument},
		"operator": {specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: arg(specs.LinuxSeccompArg{Op: "SCMP_CMP_NO"})}, errdefs.ErrInvalidArgument},
		"arch":     {specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchS390}}, errdefs.ErrNotImplemented},
	} {
		if _, err := Compile(&c.p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestCacheKeepsAndIsBounded(t *testing.T) {
	c := NewCache("6.1")
	one, err := c.Default(someCaps())
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.Default(append([]string{}, someCaps()...))
	if err != nil || &one[0] != &two[0] {
		t.Errorf("compiled twice for the same capabilities (%v)", err)
	}
	for i := range cacheLimit + 5 {
		errno := uint(i)
		if _, err := c.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.byHash) > cacheLimit {
		t.Errorf("%d filters kept, limit %d", len(c.byHash), cacheLimit)
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	for b.Loop() {
		if _, err := NewCache("").Default(someCaps()); err != nil {
			b.Fatal(err)
		}
	}
}
