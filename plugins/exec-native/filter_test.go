package execnative

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/seccomp"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestFilterOf(t *testing.T) {
	d := &native{filters: seccomp.NewCache("6.18.0")}
	p := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}
	profile := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}],"flags":["SECCOMP_FILTER_FLAG_LOG"]}`
	for name, c := range map[string]struct {
		s     execdriver.Security
		some  bool
		flags uint32
		want  error
		says  string
	}{
		"default":                   {some: true},
		"unconfined":                {s: execdriver.Security{Seccomp: "unconfined"}},
		"privileged":                {s: execdriver.Security{Privileged: true}},
		"profile":                   {s: execdriver.Security{Seccomp: profile}, some: true, flags: 2},
		"profile of the privileged": {s: execdriver.Security{Seccomp: profile, Privileged: true}, some: true, flags: 2},
		"no JSON":                   {s: execdriver.Security{Seccomp: "x"}, want: errdefs.ErrInvalidArgument, says: "Security.Seccomp"},
		"unknown action":            {s: execdriver.Security{Seccomp: `{"defaultAction":"SCMP_ACT_DANCE"}`}, want: errdefs.ErrNotImplemented, says: "DANCE"},
		"notifies": {s: execdriver.Security{Seccomp: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}`},
			want: errdefs.ErrNotImplemented, says: "SCMP_ACT_NOTIFY"},
	} {
		f, err := d.filterOf(c.s, p)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v about %s", name, err, c.want, c.says)
		}
		if (len(f.code) > 0) != c.some || f.flags != c.flags {
			t.Errorf("%s: filter of %d bytes with flags %#x", name, len(f.code), f.flags)
		}
	}
}
