package execnative

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// TestProfileChoice by what was asked for and what the machine has.
func TestProfileChoice(t *testing.T) {
	has := confine(true, func() (string, error) { return apparmorProfile, nil })
	lacks := confine(true, func() (string, error) { return "", errors.New("no\nparser") })
	keeps := confine(true, func() (string, error) { return apparmorProfile, errors.New("no parser") })
	off := confine(false, func() (string, error) { t.Error("loaded where AppArmor is off"); return "", nil })
	for name, c := range map[string]struct {
		on         *confinement
		security   execdriver.Security
		want, runs string // settled, and given to the kernel
		err        error
	}{
		"default":                {on: has, want: "gantry-default", runs: "gantry-default"},
		"privileged":             {on: has, security: execdriver.Security{Privileged: true}, want: "unconfined"},
		"unconfined":             {on: has, security: execdriver.Security{AppArmor: "unconfined"}, want: "unconfined"},
		"named":                  {on: has, security: execdriver.Security{AppArmor: "mine"}, want: "mine", runs: "mine"},
		"named and privileged":   {on: has, security: execdriver.Security{AppArmor: "mine", Privileged: true}, want: "mine", runs: "mine"},
		"seccomp is another":     {on: has, security: execdriver.Security{Seccomp: "unconfined"}, want: "gantry-default", runs: "gantry-default"},
		"no parser":              {on: lacks, want: "unconfined"},
		"no parser, named":       {on: lacks, security: execdriver.Security{AppArmor: "mine"}, want: "mine", runs: "mine"},
		"no parser, loaded once": {on: keeps, want: "gantry-default", runs: "gantry-default"},
		"off":                    {on: off, want: "unconfined"},
		"off, unconfined":        {on: off, security: execdriver.Security{AppArmor: "unconfined"}, want: "unconfined"},
		"off, named":             {on: off, security: execdriver.Security{AppArmor: "mine"}, err: errdefs.ErrNotImplemented},
	} {
		got, err := c.on.choose(context.Background(), c.security)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q (%v), want %q (%v)", name, got, err, c.want, c.err)
		}
		c.security.AppArmor = got
		if runs := apparmorOf(c.security); runs != c.runs {
			t.Errorf("%s: the kernel is given %q, want %q", name, runs, c.runs)
		}
	}
	if got := apparmorOf(execdriver.Security{Privileged: true}); got != "" {
		t.Errorf("an exec with every right has %q", got)
	}
	for name, c := range map[string]struct {
		on   *confinement
		want string
	}{
		"has":   {has, ""},
		"off":   {off, ""},
		"lacks": {lacks, "AppArmor: no parser; containers that name no profile have none"},
		"keeps": {keeps, "AppArmor: no parser; the profile of that name that was loaded earlier is used"},
	} {
		if got := strings.Join(c.on.warnings(), "|"); got != c.want {
			t.Errorf("%s: warns %q, want %q", name, got, c.want)
		}
	}
}

// TestProfileWait is for those who want the profile, and for them alone.
func TestProfileWait(t *testing.T) {
	loading := make(chan struct{})
	c := confine(true, func() (string, error) { <-loading; return apparmorProfile, nil })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if got, err := c.choose(ctx, execdriver.Security{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not loaded yet: %q (%v)", got, err)
	}
	if got, err := c.choose(ctx, execdriver.Security{AppArmor: "mine"}); got != "mine" || err != nil {
		t.Errorf("named, while the other loads: %q (%v)", got, err)
	}
	close(loading)
	if got, err := c.choose(context.Background(), execdriver.Security{}); got != apparmorProfile || err != nil {
		t.Errorf("loaded: %q (%v)", got, err)
	}
}

// TestProfileLoaded by a parser that keeps what it is given, that complains, and
// that is not there.
func TestProfileLoaded(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("TMPDIR", t.TempDir())
	parser := func(script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, apparmorParser), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	parser(`echo "$1" > ` + dir + `/flags; cat "$2" > ` + dir + `/text`)
	if name, err := loadProfile(dir); name != "gantry-default" || err != nil {
		t.Fatalf("%q (%v)", name, err)
	}
	text, err := os.ReadFile(dir + "/text")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []string{
		"profile gantry-default flags=(attach_disconnected,mediate_deleted) {",
		"signal (send,receive) peer=gantry-default,", "ptrace (trace,read,tracedby,readby) peer=gantry-default,",
		"signal (receive) peer=unconfined,", "deny mount,", "deny @{PROC}/sysrq-trigger rwklx,", "deny @{PROC}/kcore rwklx,",
		"deny /sys/kernel/security/** rwklx,", "deny /sys/firmware/** rwklx,",
	} {
		if !strings.Contains(string(text), rule) {
			t.Errorf("the profile lacks %q:\n%s", rule, text)
		}
	}
	if flags, err := os.ReadFile(dir + "/flags"); string(flags) != "-Kr\n" {
		t.Errorf("parser's flags %q (%v): want no cache, and to replace", flags, err)
	}
	if left, err := filepath.Glob(os.Getenv("TMPDIR") + "/*"); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	parser("echo no access >&2; exit 1")
	if name, err := loadProfile(dir); err == nil || !strings.Contains(err.Error(), "no access") {
		t.Errorf("a parser that complains: %q (%v)", name, err)
	}
	t.Setenv("PATH", t.TempDir())
	if name, err := loadProfile(dir); err == nil || !strings.Contains(err.Error(), "apparmor_parser is not installed") {
		t.Errorf("no parser: %q (%v)", name, err)
	}
	if name, err := loadProfile(dir + "/nowhere"); err == nil || name != "" || !strings.Contains(err.Error(), "securityfs is not mounted") {
		t.Errorf("no securityfs: %q (%v)", name, err)
	}
}
