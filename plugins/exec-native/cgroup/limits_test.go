package cgroup

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// lines renders writes as "file=value" and what must be read back.
func lines(w []Write) []string {
	var out []string
	for _, x := range w {
		out = append(out, fmt.Sprintf("%s=%s<%s", x.File, x.Value, x.Back))
	}
	return out
}

func TestWrites(t *testing.T) {
	for name, c := range map[string]struct {
		r      specs.LinuxResources
		v1, v2 []string
	}{
		"none": {},
		"memory": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](10_000_000), Swap: ptr[int64](20_000_000)}},
			[]string{"memory.limit_in_bytes=10000000<9998336", "memory.memsw.limit_in_bytes=20000000<19996672"},
			[]string{"memory.max=10000000<9998336", "memory.swap.max=9998336<9998336"}},
		"swap without bound": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](-1)}},
			[]string{"memory.limit_in_bytes=8192<8192", "memory.memsw.limit_in_bytes=-1<"},
			[]string{"memory.max=8192<8192", "memory.swap.max=max<max"}},
		"cpu": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](50000), Period: ptr[uint64](100000), Cpus: "0", Shares: ptr[uint64](1024)}},
			[]string{"cpu.shares=1024<", "cpu.cfs_period_us=100000<100000", "cpu.cfs_quota_us=50000<50000", "cpuset.cpus=0<"},
			[]string{"cpu.weight=39<39", "cpu.max=50000 100000<50000 100000", "cpuset.cpus=0<"}},
		"pids":    {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](5)}}, []string{"pids.max=5<5"}, []string{"pids.max=5<5"}},
		"no pids": {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}, nil, nil},
		"devices": {specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr[int64](1), Access: "r"}}},
			[]string{"devices.deny=a *:* rwm<", "devices.allow=c 1:* r<"}, nil},
	} {
		one, err := writesV1(&c.r)
		if err != nil || !reflect.DeepEqual(lines(one), c.v1) {
			t.Errorf("%s, version 1: %q %v\nwant %q", name, lines(one), err, c.v1)
		}
		two, err := writesV2(&c.r)
		if err != nil || !reflect.DeepEqual(lines(two), c.v2) {
			t.Errorf("%s, version 2: %q %v\nwant %q", name, lines(two), err, c.v2)
		}
	}
}

func TestRefusedLimits(t *testing.T) {
	for want, r := range map[string]specs.LinuxResources{
		"blockIO": {BlockIO: &specs.LinuxBlockIO{}},
		//lint:ignore SA1019 a deprecated field must be refused
		"memory.kernel": {Memory: &specs.LinuxMemory{Kernel: ptr[int64](1)}},
		"cpu.realtime":  {CPU: &specs.LinuxCPU{RealtimeRuntime: ptr[int64](1)}},
		"unified":       {Unified: map[string]string{"a": "b"}},
	} {
		for _, f := range []func(*specs.LinuxResources) ([]Write, error){writesV1, writesV2} {
			if _, err := f(&r); !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
		}
	}
	swap := specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](4096)}}
	if _, err := writesV2(&swap); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("swap below memory: %v", err)
	}
	for _, d := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Access: "rx"}} {
		if _, err := deviceRule(d); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}
