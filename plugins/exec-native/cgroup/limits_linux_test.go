package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// aDisk finds a block device of this machine that can be throttled.
func aDisk(t *testing.T) specs.LinuxBlockIODevice {
	t.Helper()
	names, _ := filepath.Glob("/sys/block/*")
	for _, name := range names {
		text, err := os.ReadFile(name + "/dev")
		major, minor, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
		a, err1 := strconv.ParseInt(major, 10, 64)
		b, err2 := strconv.ParseInt(minor, 10, 64)
		if err == nil && err1 == nil && err2 == nil {
			return specs.LinuxBlockIODevice{Major: a, Minor: b}
		}
	}
	t.Skip("this machine has no block device")
	return specs.LinuxBlockIODevice{}
}

// needs skips a test whose controller or file this machine lacks.
func needs(t *testing.T, p *Parent, version int, controller string, files ...string) {
	t.Helper()
	if v := p.version(controller); v != version {
		t.Skipf("controller %s is not of cgroup version %d here", controller, version)
	}
	probe, err := p.Create("probe", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Remove(context.Background())
	for _, file := range files {
		if !p.hasFile("probe", controller, file) {
			t.Skipf("this kernel has no %s", file)
		}
	}
}

// onKernel is a limit, and what files say afterwards; "8:0|text" is the line of 8:0.
type onKernel struct {
	controller string
	files      []string // that the kernel may lack
	r          specs.LinuxResources
	want       map[string]string
}

func checkFiles(t *testing.T, g *Group, want map[string]string) {
	t.Helper()
	for file, value := range want {
		got := valueOf(t, g, file)
		if key, rest, ok := strings.Cut(value, "|"); ok {
			line, _ := lineOf(got, key)
			got, value = line, rest
		}
		if got != value {
			t.Errorf("%s is %q, want %q", file, got, value)
		}
	}
}

// kernelLimits are run in a new group, and as an update of one in use.
func kernelLimits(t *testing.T, version int, use func(Hierarchy) bool, cases map[string]onKernel) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			needs(t, p, version, c.controller, c.files...)
			g, err := p.Create("new", &c.r)
			if err != nil {
				t.Fatal(err)
			}
			checkFiles(t, g, c.want)
			g, err = p.Create("used", nil)
			if err != nil {
				t.Fatal(err)
			}
			inside(t, g, "sleep 100")
			if err := g.Update(&c.r); err != nil {
				t.Fatal(err)
			}
			checkFiles(t, g, c.want)
		})
	}
}

func TestLimitsV1(t *testing.T) {
	disk := aDisk(t)
	key := device(disk)
	rate := func(n uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: n}}
	}
	kernelLimits(t, 1, version1, map[string]onKernel{
		"memory": {controller: "memory", files: []string{"memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"},
			r: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](30_000_000), Swap: ptr[int64](40_000_000), Reservation: ptr[int64](20_000_000),
				KernelTCP: ptr[int64](8192), Swappiness: ptr[uint64](7), DisableOOMKiller: ptr(true), UseHierarchy: ptr(true)}},
			want: map[string]string{"memory.limit_in_bytes": "29999104", "memory.memsw.limit_in_bytes": "39997440", "memory.soft_limit_in_bytes": "19996672",
				"memory.kmem.tcp.limit_in_bytes": "8192", "memory.swappiness": "7", "memory.oom_control": "oom_kill_disable|1", "memory.use_hierarchy": "1"}},
		"no memory limit": {controller: "memory", files: []string{"memory.memsw.limit_in_bytes"}, r: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1), Reservation: ptr[int64](-1)}},
			want: map[string]string{"memory.limit_in_bytes": noLimit, "memory.memsw.limit_in_bytes": noLimit, "memory.soft_limit_in_bytes": noLimit}},
		"cpu": {controller: "cpu", files: []string{"cpu.cfs_burst_us"},
			r:    specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](333), Period: ptr[uint64](50000), Quota: ptr[int64](20000), Burst: ptr[uint64](5000)}},
			want: map[string]string{"cpu.shares": "333", "cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "20000", "cpu.cfs_burst_us": "5000"}},
		"idle":     {controller: "cpu", files: []string{"cpu.idle"}, r: specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1)}}, want: map[string]string{"cpu.idle": "1"}},
		"realtime": {controller: "cpu", files: []string{"cpu.rt_period_us"}, r: specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: ptr[uint64](500000)}}, want: map[string]string{"cpu.rt_period_us": "500000"}},
		"cpuset":   {controller: "cpuset", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}}, want: map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0"}},
		"pids":     {controller: "pids", r: specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](9)}}, want: map[string]string{"pids.max": "9"}},
		"no pids":  {controller: "pids", r: specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}, want: map[string]string{"pids.max": "max"}},
		"throttles": {controller: "blkio", files: []string{"blkio.throttle.read_bps_device"},
			r: specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(1 << 20), ThrottleWriteBpsDevice: rate(2 << 20), ThrottleReadIOPSDevice: rate(100), ThrottleWriteIOPSDevice: rate(200)}},
			want: map[string]string{"blkio.throttle.read_bps_device": key + "|1048576", "blkio.throttle.write_bps_device": key + "|2097152",
				"blkio.throttle.read_iops_device": key + "|100", "blkio.throttle.write_iops_device": key + "|200"}},
		"weight": {controller: "blkio", files: []string{"blkio.bfq.weight"}, r: specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](300)}}, want: map[string]string{"blkio.bfq.weight": "300"}},
		"devices": {controller: "devices", r: specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"},
			{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3), Access: "rw"}}}, want: map[string]string{"devices.list": "c 1:3 rw"}},
		"huge pages": {controller: "hugetlb", files: []string{"hugetlb.2MB.limit_in_bytes"}, r: specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 5 << 20}}},
			want: map[string]string{"hugetlb.2MB.limit_in_bytes": "4194304"}},
		"class": {controller: "net_cls", r: specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr[uint32](0x100001)}}, want: map[string]string{"net_cls.classid": "1048577"}},
		"priority": {controller: "net_prio", r: specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 7}}}},
			want: map[string]string{"net_prio.ifpriomap": "lo|7"}},
	})
}

func TestLimitsV2(t *testing.T) {
	disk := aDisk(t)
	key := device(disk)
	rate := func(n uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: n}}
	}
	kernelLimits(t, 2, unified, map[string]onKernel{
		"memory": {controller: "memory", files: []string{"memory.swap.max"},
			r:    specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](30_000_000), Swap: ptr[int64](40_000_000), Reservation: ptr[int64](20_000_000), DisableOOMKiller: ptr(false), UseHierarchy: ptr(true)}},
			want: map[string]string{"memory.max": "29999104", "memory.swap.max": "9998336", "memory.low": "19996672"}},
		"no memory limit": {controller: "memory", r: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1)}}, want: map[string]string{"memory.max": "max"}},
		"cpu": {controller: "cpu", files: []string{"cpu.max.burst"},
			r:    specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](2048), Period: ptr[uint64](50000), Quota: ptr[int64](20000), Burst: ptr[uint64](5000)}},
			want: map[string]string{"cpu.weight": "174", "cpu.max": "20000 50000", "cpu.max.burst": "5000"}},
		"idle":    {controller: "cpu", files: []string{"cpu.idle"}, r: specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1)}}, want: map[string]string{"cpu.idle": "1"}},
		"cpuset":  {controller: "cpuset", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}}, want: map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0"}},
		"pids":    {controller: "pids", r: specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](9)}}, want: map[string]string{"pids.max": "9"}},
		"no pids": {controller: "pids", r: specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}, want: map[string]string{"pids.max": "max"}},
		"throttles": {controller: "io", files: []string{"io.max"},
			r:    specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(1 << 20), ThrottleWriteBpsDevice: rate(2 << 20), ThrottleReadIOPSDevice: rate(100), ThrottleWriteIOPSDevice: rate(200)}},
			want: map[string]string{"io.max": key + "|rbps=1048576 wbps=2097152 riops=100 wiops=200"}},
		"weight": {controller: "io", files: []string{"io.weight"}, r: specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](1000)}}, want: map[string]string{}},
		"huge pages": {controller: "hugetlb", files: []string{"hugetlb.2MB.max"}, r: specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 5 << 20}}},
			want: map[string]string{"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304"}},
		"huge pages without bound": {controller: "hugetlb", files: []string{"hugetlb.2MB.max"}, r: specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1<<64 - 1}}},
			want: map[string]string{"hugetlb.2MB.max": "max"}},
		"unified": {controller: "memory", r: specs.LinuxResources{Unified: map[string]string{"memory.high": "20M", "memory.oom.group": "1", "cgroup.max.descendants": "5"}},
			want: map[string]string{"memory.high": "20971520", "memory.oom.group": "1", "cgroup.max.descendants": "5"}},
		"unified hugetlb": {controller: "hugetlb", files: []string{"hugetlb.2MB.max"}, r: specs.LinuxResources{Unified: map[string]string{"hugetlb.2MB.max": "4194304"}},
			want: map[string]string{"hugetlb.2MB.max": "4194304"}},
		"unified io": {controller: "io", files: []string{"io.max"}, r: specs.LinuxResources{Unified: map[string]string{"io.max": key + " rbps=1048576 wiops=9"}},
			want: map[string]string{"io.max": key + "|rbps=1048576 wbps=max riops=max wiops=9"}},
	})
}

// TestIgnoredIsRefused: values that the kernel takes and does not keep.
func TestIgnoredIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		version    int
		controller string
		use        func(Hierarchy) bool
		r          specs.LinuxResources
		says       []string
	}{
		"shares above the kernel's most": {1, "cpu", version1, specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](1 << 20)}},
			[]string{"cpu.shares", `"1048576"`, `keeps "262144"`}},
		"a quota of a microsecond": {1, "cpu", version1, specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](1), Period: ptr[uint64](100000)}},
			[]string{`cpu.quota`, `"1" to cpu.cfs_quota_us`, "invalid argument"}},
		"a quota of a microsecond in version 2": {2, "cpu", unified, specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](1), Period: ptr[uint64](100000)}},
			[]string{`cpu.quota`, `"1 100000" to cpu.max`, "invalid argument"}},
		"processors nobody has":              {1, "cpuset", version1, specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-200"}}, []string{"cpu.cpus", "0-200"}},
		"processors nobody has in version 2": {2, "cpuset", unified, specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-200"}}, []string{"cpu.cpus", "0-200"}},
		"a disk nobody has": {1, "blkio", version1, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
			{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 511, Minor: 77}, Rate: 1}}}}, []string{"throttleReadBpsDevice", "511:77", "no such device"}},
		"a disk nobody has in version 2": {2, "io", unified, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
			{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 511, Minor: 77}, Rate: 1}}}}, []string{"throttleReadBpsDevice", "511:77", "no such device"}},
		"swap below memory": {1, "memory", version1, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](8 << 20), Swap: ptr[int64](4 << 20)}},
			[]string{"memory.swap", `"4194304" to memory.memsw.limit_in_bytes`}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, c.use)
			needs(t, p, c.version, c.controller)
			_, err := p.Create("a", &c.r)
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Fatalf("%v", err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if names, _ := p.List(); len(names) > 0 {
				t.Errorf("left after the refusal: %v", names)
			}
		})
	}
}

// TestUpdateIsUndone: what was written before a refused value is as it was.
func TestUpdateIsUndone(t *testing.T) {
	disk := aDisk(t)
	one := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 1 << 20}}
	two := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 2 << 20}}
	before := specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr[int64](64 << 20), Swap: ptr[int64](128 << 20)},
		CPU:     &specs.LinuxCPU{Shares: ptr[uint64](500), Quota: ptr[int64](50000), Period: ptr[uint64](100000), Cpus: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr[int64](50)},
		BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: one},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3), Access: "rw"}},
	}
	bad := specs.LinuxThrottleDevice{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 511, Minor: 77}, Rate: 1}
	after := specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr[int64](256 << 20), Swap: ptr[int64](512 << 20)},
		CPU:    &specs.LinuxCPU{Shares: ptr[uint64](600), Quota: ptr[int64](70000), Period: ptr[uint64](200000)},
		Pids:   &specs.LinuxPids{Limit: ptr[int64](60)},
		BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: two, ThrottleWriteBpsDevice: two,
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{bad}},
	}
	for name, c := range map[string]struct {
		version int
		use     func(Hierarchy) bool
		files   []string
	}{
		"version 1": {1, version1, []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "pids.max",
			"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "devices.list"}},
		"version 2": {2, unified, []string{"memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max", "io.max"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, c.use)
			for _, controller := range []string{"memory", "cpu", "cpuset", "pids"} {
				needs(t, p, c.version, controller)
			}
			g, err := p.Create("a", &before)
			if err != nil {
				t.Fatal(err)
			}
			inside(t, g, "sleep 100")
			was := map[string]string{}
			for _, file := range c.files {
				was[file] = valueOf(t, g, file)
			}
			err = g.Update(&after)
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "511:77") || strings.Contains(err.Error(), "put back") {
				t.Fatalf("%v", err)
			}
			checkFiles(t, g, was)
			after := after
			after.BlockIO = nil
			if err := g.Update(&after); err != nil {
				t.Fatal(err)
			}
			if got := valueOf(t, g, "pids.max"); got != "60" {
				t.Errorf("pids.max is %s after an update that holds", got)
			}
			if err := g.Update(&before); err != nil { // down again: the sum of memory and swap last
				t.Fatal(err)
			}
			checkFiles(t, g, map[string]string{"pids.max": "50", c.files[0]: "67108864"})
		})
	}
}

// TestUpdateDevices changes what a running group may open, in both versions,
// and puts it back where a later value is refused.
func TestUpdateDevices(t *testing.T) {
	null := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3), Access: "rw"}
	zero := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](5), Access: "rw"}
	none := specs.LinuxDeviceCgroup{Access: "rwm"}
	for name, use := range map[string]func(Hierarchy) bool{"version 1": func(h Hierarchy) bool { return h.Has("devices") }, "version 2": unified} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			g, err := p.Create("a", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, null}})
			if err != nil {
				t.Fatal(err)
			}
			opens := func(want string) {
				t.Helper()
				dir := t.TempDir()
				inside(t, g, `exec 2>`+dir+`/err; (: </dev/null) && echo -n null >>`+dir+`/out; (: </dev/zero) && echo -n zero >>`+dir+`/out`).Wait()
				got, _ := os.ReadFile(dir + "/out")
				if string(got) != want {
					t.Errorf("opens %q, want %q", got, want)
				}
			}
			opens("null")
			if err := g.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, zero}}); err != nil {
				t.Fatal(err)
			}
			opens("zero")
			for range 70 { // more than a group takes programs: each replaces the one before
				if err := g.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, null, zero}}); err != nil {
					t.Fatal(err)
				}
			}
			opens("nullzero")
		})
	}
	t.Run("undone", func(t *testing.T) {
		p := newParent(t, version1)
		needs(t, p, 1, "devices")
		g, err := p.Create("a", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none, null}})
		if err != nil {
			t.Fatal(err)
		}
		d, _ := p.of("devices")
		writes := []Write{deviceWrite(deviceRule{allow: true, kind: 'c', major: 1, minor: 5, access: anyAccess}),
			{Field: "x", Controller: "devices", File: "devices.allow", Value: "nonsense"}}
		if err := g.change(writes); err == nil {
			t.Error("nonsense was taken")
		}
		if got, _ := readAt(int(d.f.Fd()), "a/devices.list"); got != "c 1:3 rw\n" {
			t.Errorf("after the undo: %q", got)
		}
	})
}
