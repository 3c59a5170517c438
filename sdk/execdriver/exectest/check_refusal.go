package exectest

import (
	"context"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func (f fixture) refusalChecks() []check {
	return []check{
		{Name: "start-not-found", Promise: "A program that is not there is NotFound.", Run: f.checkNotFound},
		{Name: "start-not-executable", Promise: "A program that cannot be executed is PermissionDenied.", Run: f.checkNotExecutable},
		{Name: "start-invalid", Promise: "A field that cannot be is InvalidArgument.", Run: f.checkInvalid},
	}
}

// refuse wants Start to fail with a class and to leave nothing but what
// Release removes; the container can be started afterwards.
func (f fixture) refuse(ctx context.Context, b *bench, bad execdriver.Start, class string) error {
	b.Helper()
	d := b.Driver()
	_, err := d.Start(ctx, bad)
	conform.WantClass(b, "Start", err, class)
	if err := d.Release(ctx, bad.Key); err != nil {
		b.Errorf("Release after a refused Start: %v", err)
	}
	wantItems(ctx, b)
	if told := toldNow(ctx, b); len(told) > 0 {
		b.Errorf("Exits tells a run that never started: %+v", told)
	}
	return err
}

func (f fixture) checkNotFound(ctx context.Context, b *bench) {
	for _, program := range []string{"/no/such/program", "no-such-program", "/bin/no-such"} {
		r := f.script(b, "")
		r.Process.Args = []string{program}
		if err := f.refuse(ctx, b, r, "not-found"); err != nil && !strings.Contains(err.Error(), program) {
			b.Errorf("the error does not name the program: %v", err)
		}
	}
	good := f.script(b, "exit 0")
	run(ctx, b, good)
}

func (f fixture) checkNotExecutable(ctx context.Context, b *bench) {
	for _, program := range []string{"/etc/not-executable", "/etc"} {
		r := f.script(b, "")
		r.Process.Args = []string{program}
		if err := f.refuse(ctx, b, r, "permission-denied"); err != nil && !strings.Contains(err.Error(), program) {
			b.Errorf("the error does not name the program: %v", err)
		}
	}
}

func (f fixture) checkInvalid(ctx context.Context, b *bench) {
	for what, change := range map[string]func(*execdriver.Start){
		"no args":              func(r *execdriver.Start) { r.Process.Args = nil },
		"an odd network":       func(r *execdriver.Start) { r.Network = netdriver.Namespace{Mode: "odd"} },
		"an odd capability":    func(r *execdriver.Start) { r.Security.CapAdd = []string{"NO_SUCH_CAPABILITY"} },
		"an odd seccomp":       func(r *execdriver.Start) { r.Security.Seccomp = "no-such-profile" },
		"an unknown user":      func(r *execdriver.Start) { r.Process.User = "nobody-of-that-name" },
		"a relative directory": func(r *execdriver.Start) { r.Process.Cwd = "relative" },
	} {
		b.Logf("with %s:", what)
		r := f.script(b, "exit 0")
		change(&r)
		f.refuse(ctx, b, r, "invalid-argument")
	}
}
