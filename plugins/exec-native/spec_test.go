package execnative

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
)

func TestRefusedRequests(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*execdriver.Start)
		want   error
		says   string
	}{
		"no args":         {func(r *execdriver.Start) { r.Process.Args = nil }, errdefs.ErrInvalidArgument, "Process.Args"},
		"relative cwd":    {func(r *execdriver.Start) { r.Process.Cwd = "tmp" }, errdefs.ErrInvalidArgument, `"tmp"`},
		"slash in id":     {func(r *execdriver.Start) { r.Container = "../x" }, errdefs.ErrInvalidArgument, "Container"},
		"long hostname":   {func(r *execdriver.Start) { r.Hostname = strings.Repeat("h", 65) }, errdefs.ErrInvalidArgument, "Hostname"},
		"two roots":       {func(r *execdriver.Start) { r.Rootfs = append(r.Rootfs, r.Rootfs[0]) }, errdefs.ErrInvalidArgument, "Rootfs"},
		"unclean target":  {func(r *execdriver.Start) { r.Mounts = []driver.Mount{{Target: "/a/../b"}} }, errdefs.ErrInvalidArgument, "/a/../b"},
		"root target":     {func(r *execdriver.Start) { r.Mounts = []driver.Mount{{Target: "/"}} }, errdefs.ErrInvalidArgument, "Mounts"},
		"network":         {func(r *execdriver.Start) { r.Network.Mode = "x" }, errdefs.ErrInvalidArgument, "Network.Mode"},
		"network path":    {func(r *execdriver.Start) { r.Network.Mode = "path" }, errdefs.ErrInvalidArgument, "Network.Path"},
		"id map":          {func(r *execdriver.Start) { r.IDMap.UIDs = []driver.IDMapping{{Size: 1}} }, errdefs.ErrInvalidArgument, "IDMap"},
		"little memory":   {func(r *execdriver.Start) { r.Resources.MemoryBytes = 4096 }, errdefs.ErrInvalidArgument, "MemoryBytes 4096"},
		"little cpu":      {func(r *execdriver.Start) { r.Resources.NanoCPUs = 1 }, errdefs.ErrInvalidArgument, "NanoCPUs 1"},
		"unknown cap":     {func(r *execdriver.Start) { r.Security.CapAdd = []string{"FLY"} }, errdefs.ErrInvalidArgument, "FLY"},
		"dropped unknown": {func(r *execdriver.Start) { r.Security.CapDrop = []string{"FLY"} }, errdefs.ErrInvalidArgument, "FLY"},
		"lacking cap":     {func(r *execdriver.Start) { r.Security.CapAdd = []string{"SYS_RESOURCE"} }, errdefs.ErrNotImplemented, "CAP_SYS_RESOURCE"},
	} {
		r := testStart()
		c.change(&r)
		if _, err := specOf(r, testFacts()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v about %s", name, err, c.want, c.says)
		}
	}
}

func TestCapabilitiesWanted(t *testing.T) {
	bounding := uint64(1<<41 - 1 - 1<<24)
	standard, _ := oci.CapBits(defaultCaps())
	bit := func(names ...string) uint64 {
		b, err := oci.CapBits(names)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		privileged bool
		add, drop  []string
		want       uint64
	}{
		"default":          {want: standard},
		"privileged":       {privileged: true, want: bounding},
		"add":              {add: []string{"net_admin"}, want: standard | bit("CAP_NET_ADMIN")},
		"add all":          {add: []string{"ALL"}, want: bounding},
		"all but one":      {add: []string{"ALL"}, drop: []string{"MKNOD"}, want: bounding &^ bit("CAP_MKNOD")},
		"drop all":         {drop: []string{"all"}, want: 0},
		"drop all add one": {drop: []string{"ALL"}, add: []string{"CAP_CHOWN"}, want: bit("CAP_CHOWN")},
		"drop":             {drop: []string{"CAP_CHOWN"}, want: standard &^ bit("CAP_CHOWN")},
	} {
		got, err := capsWanted(c.privileged, c.add, c.drop, bounding)
		if err != nil || got != c.want {
			t.Errorf("%s: %v, want %v (%v)", name, oci.CapList(got), oci.CapList(c.want), err)
		}
	}
	if got, _ := capsWanted(false, nil, nil, bit("CAP_CHOWN")); got != bit("CAP_CHOWN") {
		t.Errorf("default beyond the bounding set: %v", oci.CapList(got))
	}
}

func TestEnvironment(t *testing.T) {
	r := testStart()
	r.Process.Env = []string{"PATH=/x", "NOTHING", "A=1", "A=2", "HOME="}
	want := []string{"PATH=/x", "HOSTNAME=box", "A=2", "HOME=/root"}
	if got := environment(r.Process, r.Hostname, "/root"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLogConfiguration(t *testing.T) {
	if log, err := logOf(execdriver.LogConfig{Driver: "none"}); log != nil || err != nil {
		t.Errorf("none: %+v %v", log, err)
	}
	if log, err := logOf(execdriver.LogConfig{}); err != nil || log.MaxBytes != 20<<20 || log.MaxFiles != 5 {
		t.Errorf("default: %+v %v", log, err)
	}
	for _, c := range []execdriver.LogConfig{{Driver: "syslog"}, {MaxBytes: 1}, {MaxBytes: -1}, {MaxFiles: 100}, {MaxFiles: -1}} {
		if _, err := logOf(c); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
