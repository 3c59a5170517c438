package systemd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the default slice is another one for a user")
	}
	for path, want := range map[string]string{
		"":                           "system.slice gantry-ID.scope /system.slice/gantry-ID.scope",
		"system.slice:runc:434234":   "system.slice runc-434234.scope /system.slice/runc-434234.scope",
		"::web":                      "system.slice web.scope /system.slice/web.scope",
		"test-a-b.slice:p:n":         "test-a-b.slice p-n.scope /test.slice/test-a.slice/test-a-b.slice/p-n.scope",
		"-.slice:p:n":                "-.slice p-n.scope /p-n.scope",
		"machine.slice:libpod:x-y_1": "machine.slice libpod-x-y_1.scope /machine.slice/libpod-x-y_1.scope",
		"a.slice:p:b.slice":          "a.slice b.slice /a.slice/b.slice",
		"/absolute":                  "!want slice:prefix:name", "a:b": "!want slice:prefix:name", "a:b:c:d": "!want slice",
		"system:p:n": "!no slice's name", "a--b.slice:p:n": "!a part is empty", "../x.slice:p:n": "!no slice's name",
		"a.slice:p:": "!no unit's name", "a.slice:p:x/y": "!no unit's name",
	} {
		u, err := Parse(path, "ID")
		if says, bad := strings.CutPrefix(want, "!"); bad {
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), says) {
				t.Errorf("%q: %v, want %q", path, err, says)
			}
			continue
		}
		if got := fmt.Sprint(u.Slice, " ", u.Name, " ", u.Path()); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", path, got, err, want)
		}
	}
}

func TestProperties(t *testing.T) {
	none, null := specs.LinuxDeviceCgroup{Access: "rwm"}, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3)}
	for name, c := range map[string]struct {
		r      specs.LinuxResources
		v1, v2 string
	}{
		"none": {},
		"memory": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](100), Swap: ptr[int64](150), Reservation: ptr[int64](50)}},
			"MemoryLimit=100", "MemoryMax=100 MemoryLow=50 MemorySwapMax=50"},
		"no memory limit": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1)}},
			"MemoryLimit=18446744073709551615", "MemoryMax=18446744073709551615 MemorySwapMax=18446744073709551615"},
		"cpu": {specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](1024), Quota: ptr[int64](50000), Period: ptr[uint64](100000), Cpus: "0,9", Mems: "0"}},
			"CPUShares=1024 CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000",
			"CPUWeight=100 CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000 AllowedCPUs=[1 2] AllowedMemoryNodes=[1]"},
		"a quota rounded up": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](1234), Period: ptr[uint64](100000)}},
			"CPUQuotaPerSecUSec=20000 CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=20000 CPUQuotaPeriodUSec=100000"},
		"no quota": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](-1)}}, "CPUQuotaPerSecUSec=18446744073709551615", "CPUQuotaPerSecUSec=18446744073709551615"},
		"idle":     {specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1), Shares: ptr[uint64](5)}}, "", ""},
		"pids":     {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](7)}}, "TasksMax=7", "TasksMax=7"},
		"no pids":  {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}, fmt.Sprint("TasksMax=", uint64(math.MaxUint64)), fmt.Sprint("TasksMax=", uint64(math.MaxUint64))},
		"weight":   {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](1000)}}, "BlockIOWeight=1000", "IOWeight=10000"},
		"devices": {specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, null, {Allow: true, Type: "b", Access: "m"}}},
			"DevicePolicy=strict DeviceAllow=[{/dev/char/1:3 rwm} {block-* m}]", ""},
		"all devices":      {specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, {Allow: true}}}, "DevicePolicy=auto DeviceAllow=[]", ""},
		"a denied device":  {specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, null, {Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3)}}}, "!no word for device rule", ""},
		"a minor of all":   {specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Minor: ptr[int64](3)}}}, "!no word for device rule", ""},
		"both of a number": {specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Major: ptr[int64](1)}}}, "!no word for device rule", ""},
	} {
		for unified, want := range map[bool]string{false: c.v1, true: c.v2} {
			list, err := properties(&c.r, unified)
			if says, bad := strings.CutPrefix(want, "!"); bad {
				if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), says) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			var words []string
			for _, p := range list {
				words = append(words, fmt.Sprintf("%s=%v", p.Name, p.Value.Value()))
			}
			if got := strings.Join(words, " "); err != nil || got != want {
				t.Errorf("%s (version 2: %t): %s %v\nwant %s", name, unified, got, err, want)
			}
		}
	}
	const devices = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  1 ramdisk\n"
	for _, c := range []struct {
		kind  string
		major int64
		want  string
	}{{"char", 136, "pts"}, {"char", 1, "mem"}, {"block", 1, "ramdisk"}, {"block", 136, ""}} {
		if got, _ := nameIn(devices, c.kind, c.major); got != c.want {
			t.Errorf("%s %d is %q", c.kind, c.major, got)
		}
	}
}
