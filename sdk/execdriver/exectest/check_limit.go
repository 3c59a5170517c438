package exectest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/execdriver"
)

func pathOf(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

func (f fixture) limitChecks() []check {
	return []check{
		{Name: "memory-limit", Promise: "A program that takes more memory than its limit is killed, and the exit says so; or the driver says that it cannot limit.", Run: f.checkMemory},
		{Name: "pids-limit", Promise: "A limit of processes holds; or the driver says that it cannot limit.", Run: f.checkPids},
		{Name: "capabilities", Promise: "Capabilities are few by default; CapAdd, CapDrop and Privileged change them.", Run: f.checkCapabilities},
		{Name: "no-new-privileges", Promise: "NoNewPrivileges is set when asked for.", Run: f.checkNoNewPrivileges},
		{Name: "seccomp", Promise: "The default seccomp profile is on, and off when unconfined.", Run: f.checkSeccomp},
	}
}

// limited starts a script unless the driver says that it cannot limit.
func limited(ctx context.Context, b *bench, r execdriver.Start) bool {
	b.Helper()
	_, err := b.Driver().Start(ctx, r)
	if errdefs.IsNotImplemented(err) {
		b.Logf("this driver or machine cannot limit it: %v", err)
		return false
	}
	if err != nil {
		b.Fatalf("Start with a limit: %v", err)
	}
	return true
}

func (f fixture) checkMemory(ctx context.Context, b *bench) {
	r := f.script(b, `exec dd if=/dev/zero of=/dev/null bs=256M count=1`)
	r.Resources.MemoryBytes = 32 << 20
	if limited(ctx, b, r) {
		if e := awaitExit(ctx, b, r.Key); e.Code != 137 || !e.OOMKilled {
			b.Errorf("a program over its memory limit ended with %+v, want code 137 by OOM", e)
		}
	}
	r = f.script(b, `exec dd if=/dev/zero of=/dev/null bs=4M count=1`)
	r.Resources.MemoryBytes = 32 << 20
	if limited(ctx, b, r) {
		if e := awaitExit(ctx, b, r.Key); e.Code != 0 || e.OOMKilled {
			b.Errorf("a program within its memory limit ended with %+v", e)
		}
	}
}

func (f fixture) checkPids(ctx context.Context, b *bench) {
	const many = `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; echo all > /out/all; kill -9 -1; wait`
	r := f.script(b, many)
	r.Resources.PidsLimit = 6
	if limited(ctx, b, r) {
		awaitExit(ctx, b, r.Key)
		if raw, err := os.ReadFile(r.Mounts[0].Source + "/all"); err == nil {
			b.Errorf("with a limit of 6 processes 12 were started: %s", raw)
		}
	}
	for _, none := range []int64{0, -1} {
		r := f.script(b, many)
		r.Resources.PidsLimit = none
		start(ctx, b, r)
		awaitExit(ctx, b, r.Key)
		if got := said(b, r, "all"); got != "all" {
			b.Errorf("a limit of %d, which means none, limits", none)
		}
	}
}

// status runs a program with some security and reads /proc/self/status there.
func (f fixture) status(ctx context.Context, b *bench, s execdriver.Security) map[string]string {
	b.Helper()
	r := f.script(b, `cat /proc/self/status > /out/status`)
	r.Security = s
	run(ctx, b, r)
	fields := map[string]string{}
	for line := range strings.Lines(said(b, r, "status") + "\n") {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// Numbers of capabilities (linux/capability.h).
const (
	capChown    = 0
	capNetAdmin = 12
	capSysAdmin = 21
)

func (f fixture) checkCapabilities(ctx context.Context, b *bench) {
	for _, c := range []struct {
		what     string
		security execdriver.Security
		has      []int
		lacks    []int
	}{
		{"by default", execdriver.Security{}, []int{capChown}, []int{capNetAdmin, capSysAdmin}},
		{"with NET_ADMIN added", execdriver.Security{CapAdd: []string{"NET_ADMIN"}}, []int{capChown, capNetAdmin}, []int{capSysAdmin}},
		{"with CAP_NET_ADMIN added", execdriver.Security{CapAdd: []string{"CAP_NET_ADMIN"}}, []int{capNetAdmin}, nil},
		{"with CHOWN dropped", execdriver.Security{CapDrop: []string{"CHOWN"}}, nil, []int{capChown}},
		{"with ALL dropped", execdriver.Security{CapDrop: []string{"ALL"}}, nil, []int{capChown, capNetAdmin, capSysAdmin}},
		{"privileged", execdriver.Security{Privileged: true}, []int{capChown, capNetAdmin, capSysAdmin}, nil},
	} {
		status := f.status(ctx, b, c.security)
		for _, set := range []string{"CapEff", "CapBnd"} {
			bits, err := strconv.ParseUint(status[set], 16, 64)
			if err != nil {
				b.Errorf("%s: %s is %q", c.what, set, status[set])
				continue
			}
			for _, n := range c.has {
				if bits&(1<<n) == 0 {
					b.Errorf("%s: %s %s lacks capability %d", c.what, set, status[set], n)
				}
			}
			for _, n := range c.lacks {
				if bits&(1<<n) != 0 {
					b.Errorf("%s: %s %s has capability %d", c.what, set, status[set], n)
				}
			}
		}
	}
}

func (f fixture) checkNoNewPrivileges(ctx context.Context, b *bench) {
	for _, on := range []bool{true, false} {
		want := map[bool]string{true: "1", false: "0"}[on]
		if got := f.status(ctx, b, execdriver.Security{NoNewPrivileges: on})["NoNewPrivs"]; got != want {
			b.Errorf("with NoNewPrivileges %v /proc/self/status says %q", on, got)
		}
	}
}

func (f fixture) checkSeccomp(ctx context.Context, b *bench) {
	for profile, want := range map[string]string{"": "2", "unconfined": "0"} {
		if got := f.status(ctx, b, execdriver.Security{Seccomp: profile})["Seccomp"]; got != want {
			b.Errorf("with the seccomp profile %q /proc/self/status says Seccomp %q, want %s", profile, got, want)
		}
	}
}
