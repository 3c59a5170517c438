package cgroup

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// machine is a view for tests: all controllers in one version.
func machine(version int, lacks string, now map[string]string) view {
	return view{
		fresh:   now == nil,
		version: func(c string) int { return versionOf(version, c) },
		has:     func(_, file string) bool { return !strings.Contains(lacks, "<"+file+">") },
		now:     func(_, file string) string { return now[file] },
	}
}

// versionOf: net_cls and net_prio are of version 1 alone, io and the core of 2.
func versionOf(version int, controller string) int {
	switch controller {
	case "net_cls", "net_prio", "blkio":
		return 1 & version
	case "io", "cgroup":
		return version &^ 1
	}
	return version
}

// lines renders writes as "file=value<what must be read back".
func lines(w []Write) []string {
	out := []string{}
	for _, x := range w {
		back := x.Back
		if x.Rule == sameLine {
			back = x.Key + ":" + x.Back
		}
		out = append(out, fmt.Sprintf("%s=%s<%s", x.File, x.Value, strings.ReplaceAll(strings.TrimSpace(back), "\n", ";")))
	}
	return out
}

type limitCase struct {
	r      specs.LinuxResources
	v1, v2 []string          // writes, or one text that begins with "!": what the refusal says
	lacks  string            // files the kernel does not have
	now    map[string]string // what the group says at present; nil for a new one
}

func (c limitCase) check(t *testing.T, name string) {
	t.Helper()
	for version, want := range map[int][]string{1: c.v1, 2: c.v2} {
		if want == nil {
			want = []string{}
		}
		got, err := plan(&c.r, machine(version, c.lacks, c.now))
		if len(want) == 1 && strings.HasPrefix(want[0], "!") {
			if err == nil || !strings.Contains(err.Error(), want[0][1:]) {
				t.Errorf("%s, version %d: %v, want %q", name, version, err, want[0])
			}
			if !errors.Is(err, errdefs.ErrNotImplemented) && !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s, version %d: class of %v", name, version, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(lines(got), want) {
			t.Errorf("%s, version %d: %q %v\nwant %q", name, version, lines(got), err, want)
		}
	}
}

func run(t *testing.T, cases map[string]limitCase) {
	t.Helper()
	if os.Getpagesize() != 4096 {
		t.Skip("the table is written for pages of 4096 bytes")
	}
	for name, c := range cases {
		c.check(t, name)
	}
}

const noLimit = "9223372036854771712"

func TestMemory(t *testing.T) {
	mem := func(m specs.LinuxMemory) specs.LinuxResources { return specs.LinuxResources{Memory: &m} }
	run(t, map[string]limitCase{
		"none": {},
		"limit and swap": {r: mem(specs.LinuxMemory{Limit: ptr[int64](10_000_000), Swap: ptr[int64](20_000_000)}),
			v1: []string{"memory.limit_in_bytes=10000000<9998336", "memory.memsw.limit_in_bytes=20000000<19996672"},
			v2: []string{"memory.max=10000000<9998336", "memory.swap.max=10000000<9998336"}},
		"swap without bound": {r: mem(specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](-1)}),
			v1: []string{"memory.limit_in_bytes=8192<8192", "memory.memsw.limit_in_bytes=-1<" + noLimit},
			v2: []string{"memory.max=8192<8192", "memory.swap.max=max<max"}},
		"no limit takes swap's away": {r: mem(specs.LinuxMemory{Limit: ptr[int64](-1)}),
			v1: []string{"memory.limit_in_bytes=-1<" + noLimit, "memory.memsw.limit_in_bytes=-1<" + noLimit},
			v2: []string{"memory.max=max<max", "memory.swap.max=max<max"}},
		"without swap's files nothing unlimited is missed": {r: mem(specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](-1)}),
			lacks: "<memory.memsw.limit_in_bytes><memory.swap.max>",
			v1:    []string{"memory.limit_in_bytes=8192<8192"}, v2: []string{"memory.max=8192<8192"}},
		"without swap's files": {r: mem(specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](16384)}),
			lacks: "<memory.memsw.limit_in_bytes><memory.swap.max>",
			v1:    []string{"!memory.swap: this kernel has no memory.memsw.limit_in_bytes"}, v2: []string{"!memory.swap: this kernel has no memory.swap.max"}},
		"raise above the sum": {r: mem(specs.LinuxMemory{Limit: ptr[int64](40960), Swap: ptr[int64](81920)}),
			now: map[string]string{"memory.memsw.limit_in_bytes": "20480\n"},
			v1:  []string{"memory.memsw.limit_in_bytes=81920<81920", "memory.limit_in_bytes=40960<40960"},
			v2:  []string{"memory.max=40960<40960", "memory.swap.max=40960<40960"}},
		"lower below the sum": {r: mem(specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](12288)}),
			now: map[string]string{"memory.memsw.limit_in_bytes": "20480\n"},
			v1:  []string{"memory.limit_in_bytes=8192<8192", "memory.memsw.limit_in_bytes=12288<12288"},
			v2:  []string{"memory.max=8192<8192", "memory.swap.max=4096<4096"}},
		"lift both": {r: mem(specs.LinuxMemory{Limit: ptr[int64](-1)}), now: map[string]string{"memory.memsw.limit_in_bytes": "20480\n"},
			v1: []string{"memory.memsw.limit_in_bytes=-1<" + noLimit, "memory.limit_in_bytes=-1<" + noLimit},
			v2: []string{"memory.max=max<max", "memory.swap.max=max<max"}},
		"the sum alone": {r: mem(specs.LinuxMemory{Swap: ptr[int64](20480)}), now: map[string]string{"memory.max": "8192\n"},
			v1: []string{"memory.memsw.limit_in_bytes=20480<20480"}, v2: []string{"memory.swap.max=12288<12288"}},
		"the sum below the limit": {r: mem(specs.LinuxMemory{Limit: ptr[int64](8192), Swap: ptr[int64](4096)}),
			v1: []string{"memory.limit_in_bytes=8192<8192", "memory.memsw.limit_in_bytes=4096<4096"}, v2: []string{"!memory.swap: 4096 bytes"}},
		"the sum without a limit": {r: mem(specs.LinuxMemory{Swap: ptr[int64](4096)}),
			v1: []string{"memory.memsw.limit_in_bytes=4096<4096"}, v2: []string{"!need a limit of memory"}},
		"reservation": {r: mem(specs.LinuxMemory{Reservation: ptr[int64](5000)}),
			v1: []string{"memory.soft_limit_in_bytes=5000<4096"}, v2: []string{"memory.low=5000<4096"}},
		"no reservation": {r: mem(specs.LinuxMemory{Reservation: ptr[int64](-1)}),
			v1: []string{"memory.soft_limit_in_bytes=-1<" + noLimit}, v2: []string{"memory.low=max<max"}},
		"negative": {r: mem(specs.LinuxMemory{Limit: ptr[int64](-2)}), v1: []string{"!memory.limit: -2"}, v2: []string{"!memory.limit: -2"}},
		//lint:ignore SA1019 a deprecated field must be refused
		"kernel": {r: mem(specs.LinuxMemory{Kernel: ptr[int64](1)}), v1: []string{"!memory.kernel"}, v2: []string{"!memory.kernel"}},
		//lint:ignore SA1019 a deprecated field must be refused
		"kernel without bound": {r: mem(specs.LinuxMemory{Kernel: ptr[int64](-1)})},
		"tcp": {r: mem(specs.LinuxMemory{KernelTCP: ptr[int64](8192)}),
			v1: []string{"memory.kmem.tcp.limit_in_bytes=8192<8192"}, v2: []string{"!memory.kernelTCP"}},
		"swappiness": {r: mem(specs.LinuxMemory{Swappiness: ptr[uint64](0)}), v1: []string{"memory.swappiness=0<0"}, v2: []string{"!memory.swappiness"}},
		"too swappy": {r: mem(specs.LinuxMemory{Swappiness: ptr[uint64](101)}), v1: []string{"!want 0 to 100"}, v2: []string{"!memory.swappiness"}},
		"no oom killer": {r: mem(specs.LinuxMemory{DisableOOMKiller: ptr(true)}),
			v1: []string{"memory.oom_control=1<oom_kill_disable:1"}, v2: []string{"!memory.disableOOMKiller"}},
		"an oom killer": {r: mem(specs.LinuxMemory{DisableOOMKiller: ptr(false)}), v1: []string{"memory.oom_control=0<oom_kill_disable:0"}},
		"hierarchy": {r: mem(specs.LinuxMemory{UseHierarchy: ptr(true), Limit: ptr[int64](4096)}),
			v1: []string{"memory.use_hierarchy=1<1", "memory.limit_in_bytes=4096<4096"}, v2: []string{"memory.max=4096<4096"}},
		"no hierarchy": {r: mem(specs.LinuxMemory{UseHierarchy: ptr(false)}), v1: []string{"memory.use_hierarchy=0<0"}, v2: []string{"!memory.useHierarchy"}},
		"below the usage": {r: mem(specs.LinuxMemory{Limit: ptr[int64](4096), CheckBeforeUpdate: ptr(true)}),
			now: map[string]string{"memory.usage_in_bytes": "9999\n", "memory.current": "9999\n"},
			v1:  []string{"!below the 9999 in use"}, v2: []string{"!below the 9999 in use"}},
		"below the usage, unasked": {r: mem(specs.LinuxMemory{Limit: ptr[int64](4096)}),
			now: map[string]string{"memory.usage_in_bytes": "9999\n", "memory.current": "9999\n"},
			v1:  []string{"memory.limit_in_bytes=4096<4096"}, v2: []string{"memory.max=4096<4096"}},
		"zeroes are not set": {r: mem(specs.LinuxMemory{Limit: ptr[int64](0), Swap: ptr[int64](0), Reservation: ptr[int64](0)})},
	})
}

func TestCPU(t *testing.T) {
	cpu := func(c specs.LinuxCPU) specs.LinuxResources { return specs.LinuxResources{CPU: &c} }
	run(t, map[string]limitCase{
		"none": {r: cpu(specs.LinuxCPU{Shares: ptr[uint64](0), Quota: ptr[int64](0), Period: ptr[uint64](0), RealtimePeriod: ptr[uint64](0), RealtimeRuntime: ptr[int64](0)})},
		"all": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](50000), Period: ptr[uint64](200000), Burst: ptr[uint64](1000), Cpus: "0", Mems: "0", Shares: ptr[uint64](1024)}),
			v1: []string{"cpu.shares=1024<1024", "cpu.cfs_period_us=200000<200000", "cpu.cfs_quota_us=50000<50000", "cpu.cfs_burst_us=1000<1000", "cpuset.cpus=0<0", "cpuset.mems=0<0"},
			v2: []string{"cpu.weight=100<100", "cpu.max=50000 200000<50000 200000", "cpu.max.burst=1000<1000",
				"cpuset.cpus=0<0", "cpuset.cpus.effective=<0", "cpuset.mems=0<0", "cpuset.mems.effective=<0"}},
		"quota alone": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](50000)}), v1: []string{"cpu.cfs_quota_us=50000<50000"}, v2: []string{"cpu.max=50000 100000<50000 100000"}},
		"no quota":    {r: cpu(specs.LinuxCPU{Quota: ptr[int64](-1)}), v1: []string{"cpu.cfs_quota_us=-1<-1"}, v2: []string{"cpu.max=max 100000<max 100000"}},
		"period of a running one": {r: cpu(specs.LinuxCPU{Period: ptr[uint64](50000)}), now: map[string]string{"cpu.max": "20000 100000\n"},
			v1: []string{"cpu.cfs_period_us=50000<50000"}, v2: []string{"cpu.max=20000 50000<20000 50000"}},
		"quota of a running one": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](5000)}), now: map[string]string{"cpu.max": "20000 50000\n"},
			v1: []string{"cpu.cfs_quota_us=5000<5000"}, v2: []string{"cpu.max=5000 50000<5000 50000"}},
		"a longer period first": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](100000), Period: ptr[uint64](200000)}),
			now: map[string]string{"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"},
			v1:  []string{"cpu.cfs_period_us=200000<200000", "cpu.cfs_quota_us=100000<100000"}, v2: []string{"cpu.max=100000 200000<100000 200000"}},
		"a smaller quota first": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](5000), Period: ptr[uint64](10000)}),
			now: map[string]string{"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"},
			v1:  []string{"cpu.cfs_quota_us=5000<5000", "cpu.cfs_period_us=10000<10000"}, v2: []string{"cpu.max=5000 10000<5000 10000"}},
		"burst is out of the way": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](5000), Burst: ptr[uint64](5000)}),
			now: map[string]string{"cpu.cfs_burst_us": "9000\n", "cpu.max.burst": "9000\n"},
			v1:  []string{"cpu.cfs_burst_us=0<0", "cpu.cfs_quota_us=5000<5000", "cpu.cfs_burst_us=5000<5000"},
			v2:  []string{"cpu.max.burst=0<0", "cpu.max=5000 100000<5000 100000", "cpu.max.burst=5000<5000"}},
		"burst above quota": {r: cpu(specs.LinuxCPU{Quota: ptr[int64](5000), Burst: ptr[uint64](5001)}), v1: []string{"!cpu.burst: 5001"}, v2: []string{"!cpu.burst: 5001"}},
		"idle": {r: cpu(specs.LinuxCPU{Idle: ptr[int64](1), Shares: ptr[uint64](2)}),
			v1: []string{"cpu.shares=2<2", "cpu.idle=1<1"}, v2: []string{"cpu.weight=1<1", "cpu.idle=1<1"}},
		"not idle": {r: cpu(specs.LinuxCPU{Idle: ptr[int64](0), Shares: ptr[uint64](1 << 20)}),
			v1: []string{"cpu.idle=0<0", "cpu.shares=1048576<1048576"}, v2: []string{"cpu.idle=0<0", "cpu.weight=10000<10000"}},
		"half idle": {r: cpu(specs.LinuxCPU{Idle: ptr[int64](2)}), v1: []string{"!cpu.idle: 2"}, v2: []string{"!cpu.idle: 2"}},
		"no idle":   {r: cpu(specs.LinuxCPU{Idle: ptr[int64](1)}), lacks: "<cpu.idle>", v1: []string{"!no cpu.idle"}, v2: []string{"!no cpu.idle"}},
		"realtime": {r: cpu(specs.LinuxCPU{RealtimePeriod: ptr[uint64](500000), RealtimeRuntime: ptr[int64](1000)}),
			v1: []string{"cpu.rt_period_us=500000<500000", "cpu.rt_runtime_us=1000<1000"}, v2: []string{"!cpu.realtimeRuntime"}},
		"a shorter realtime period": {r: cpu(specs.LinuxCPU{RealtimePeriod: ptr[uint64](500), RealtimeRuntime: ptr[int64](100)}),
			now: map[string]string{"cpu.rt_runtime_us": "1000\n"},
			v1:  []string{"cpu.rt_runtime_us=100<100", "cpu.rt_period_us=500<500"}, v2: []string{"!cpu.realtimeRuntime"}},
		"no realtime groups": {r: cpu(specs.LinuxCPU{RealtimeRuntime: ptr[int64](1000)}), lacks: "<cpu.rt_runtime_us>",
			v1: []string{"!cpu.realtimeRuntime: this kernel has no cpu.rt_runtime_us"}, v2: []string{"!cpu.realtimeRuntime"}},
		"not a list": {r: cpu(specs.LinuxCPU{Cpus: "0-"}), v1: []string{"!cpu.cpus"}, v2: []string{"!cpu.cpus"}},
	})
	for shares, want := range map[uint64]uint64{1: 1, 2: 1, 3: 2, 10: 4, 100: 17, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 30: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares weigh %d, want %d", shares, got, want)
		}
	}
}

func TestBlockIO(t *testing.T) {
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	io := func(b specs.LinuxBlockIO) specs.LinuxResources { return specs.LinuxResources{BlockIO: &b} }
	rate := func(n uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: n}}
	}
	const cfq, bfq = "<blkio.weight><blkio.weight_device><blkio.leaf_weight><blkio.leaf_weight_device>", "<blkio.bfq.weight><blkio.bfq.weight_device><io.bfq.weight>"
	run(t, map[string]limitCase{
		"none": {r: io(specs.LinuxBlockIO{Weight: ptr[uint16](0)})},
		"weights of bfq": {r: io(specs.LinuxBlockIO{Weight: ptr[uint16](200), WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev, Weight: ptr[uint16](300)}}}), lacks: cfq,
			v1: []string{"blkio.bfq.weight=200<200", "blkio.bfq.weight_device=8:16 300<8:16:300"},
			v2: []string{"io.bfq.weight=default 200<default:200", "io.bfq.weight=8:16 300<8:16:300"}},
		"weights of cfq and io.cost": {r: io(specs.LinuxBlockIO{Weight: ptr[uint16](10), WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev, Weight: ptr[uint16](1000)}}}), lacks: bfq,
			v1: []string{"blkio.weight=10<10", "blkio.weight_device=8:16 1000<8:16:1000"},
			v2: []string{"io.weight=default 1<default:1", "io.weight=8:16 10000<8:16:10000"}},
		"no weights": {r: io(specs.LinuxBlockIO{Weight: ptr[uint16](10)}), lacks: cfq + bfq + "<io.weight>",
			v1: []string{"!blockIO.weight: this kernel has no blkio.weight"}, v2: []string{"!blockIO.weight: this kernel has no io.weight"}},
		"leaf weights": {r: io(specs.LinuxBlockIO{LeafWeight: ptr[uint16](10)}), v1: []string{"blkio.leaf_weight=10<10"}, v2: []string{"!blockIO.leafWeight"}},
		"leaf weights of a device": {r: io(specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev, LeafWeight: ptr[uint16](10)}}}), lacks: cfq,
			v1: []string{"!blockIO.weightDevice.leafWeight: this kernel has no blkio.leaf_weight_device"}, v2: []string{"!blockIO.weightDevice.leafWeight"}},
		"a device without weight": {r: io(specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev}}}), v1: []string{"!8:16 has neither"}, v2: []string{"!8:16 has neither"}},
		"throttles": {r: io(specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(1), ThrottleWriteBpsDevice: rate(2), ThrottleReadIOPSDevice: rate(3), ThrottleWriteIOPSDevice: rate(4)}),
			v1: []string{"blkio.throttle.read_bps_device=8:16 1<8:16:1", "blkio.throttle.write_bps_device=8:16 2<8:16:2",
				"blkio.throttle.read_iops_device=8:16 3<8:16:3", "blkio.throttle.write_iops_device=8:16 4<8:16:4"},
			v2: []string{"io.max=8:16 rbps=1<8:16:rbps=1", "io.max=8:16 wbps=2<8:16:wbps=2", "io.max=8:16 riops=3<8:16:riops=3", "io.max=8:16 wiops=4<8:16:wiops=4"}},
		"no throttle": {r: io(specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(0)}),
			v1: []string{"blkio.throttle.read_bps_device=8:16 0<8:16:0"}, v2: []string{"io.max=8:16 rbps=max<8:16:rbps=max"}},
	})
}

func TestOtherControllers(t *testing.T) {
	res := func(r specs.LinuxResources) specs.LinuxResources { return r }
	huge := func(size string, n uint64) specs.LinuxResources {
		return specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: size, Limit: n}}}
	}
	run(t, map[string]limitCase{
		"pids":         {r: res(specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](5)}}), v1: []string{"pids.max=5<5"}, v2: []string{"pids.max=5<5"}},
		"pids unset":   {r: res(specs.LinuxResources{Pids: &specs.LinuxPids{}})},
		"pids without": {r: res(specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}), v1: []string{"pids.max=max<max"}, v2: []string{"pids.max=max<max"}},
		"pids zero":    {r: res(specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](0)}}), v1: []string{"pids.max=0<0"}, v2: []string{"pids.max=1<1"}},
		"huge pages": {r: huge("2MB", 5<<20),
			v1: []string{"hugetlb.2MB.rsvd.limit_in_bytes=5242880<4194304", "hugetlb.2MB.limit_in_bytes=5242880<4194304"},
			v2: []string{"hugetlb.2MB.rsvd.max=5242880<4194304", "hugetlb.2MB.max=5242880<4194304"}},
		"huge pages without reservation": {r: huge("1GB", 0), lacks: "<hugetlb.1GB.rsvd.max><hugetlb.1GB.rsvd.limit_in_bytes>",
			v1: []string{"hugetlb.1GB.limit_in_bytes=0<0"}, v2: []string{"hugetlb.1GB.max=0<0"}},
		"huge pages without bound": {r: huge("64KB", 1<<64-1),
			v1: []string{"hugetlb.64KB.rsvd.limit_in_bytes=-1<9223372036854710272", "hugetlb.64KB.limit_in_bytes=-1<9223372036854710272"},
			v2: []string{"hugetlb.64KB.rsvd.max=max<max", "hugetlb.64KB.max=max<max"}},
		"huge pages of another size": {r: huge("4MB", 0), lacks: "<hugetlb.4MB.limit_in_bytes><hugetlb.4MB.max>",
			v1: []string{"!4MB: this kernel has no hugetlb.4MB.limit_in_bytes"}, v2: []string{"!4MB: this kernel has no hugetlb.4MB.max"}},
		"huge pages of no size": {r: huge("../x", 0), v1: []string{`!page size "../x"`}, v2: []string{`!page size "../x"`}},
		"class": {r: res(specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr[uint32](0x100001)}}),
			v1: []string{"net_cls.classid=1048577<1048577"}, v2: []string{"!network.classID: only cgroup version 1"}},
		"priorities": {r: res(specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 7}}}}),
			v1: []string{"net_prio.ifpriomap=lo 7<lo:7"}, v2: []string{"!network.priorities: only cgroup version 1"}},
		"rdma": {r: res(specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"b": {HcaHandles: ptr[uint32](3)}, "a": {HcaHandles: ptr[uint32](1), HcaObjects: ptr[uint32](2)}}}),
			v1: []string{"rdma.max=a hca_handle=1 hca_object=2<a:hca_handle=1 hca_object=2", "rdma.max=b hca_handle=3<b:hca_handle=3"},
			v2: []string{"rdma.max=a hca_handle=1 hca_object=2<a:hca_handle=1 hca_object=2", "rdma.max=b hca_handle=3<b:hca_handle=3"}},
		"rdma without": {r: res(specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"a": {}}}), v1: []string{"!rdma"}, v2: []string{"!rdma"}},
		"unified": {r: res(specs.LinuxResources{Unified: map[string]string{"memory.high": "1M", "io.max": "8:0 rbps=1 wiops=2\n8:16 rbps=3\n"}}),
			v1: []string{"!unified io.max: no cgroup controller io"},
			v2: []string{"io.max=8:0 rbps=1 wiops=2<8:0:rbps=1 wiops=2", "io.max=8:16 rbps=3<8:16:rbps=3", "memory.high=1M<1M"}},
		"unified of version 1":  {r: res(specs.LinuxResources{Unified: map[string]string{"memory.high": "1M"}}), v1: []string{"!memory belongs to cgroup version 1"}, v2: []string{"memory.high=1M<1M"}},
		"unified elsewhere":     {r: res(specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}), v1: []string{"!want a file's name"}, v2: []string{"!want a file's name"}},
		"unified of no limit":   {r: res(specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}), v1: []string{"!no limit"}, v2: []string{"!no limit"}},
		"unified without file":  {r: res(specs.LinuxResources{Unified: map[string]string{"memory.zap": "1"}}), lacks: "<memory.zap>", v1: []string{"!memory.zap"}, v2: []string{"!this kernel has no memory.zap"}},
		"unified of the core":   {r: res(specs.LinuxResources{Unified: map[string]string{"cgroup.max.depth": "3"}}), v1: []string{"!no cgroup controller cgroup"}, v2: []string{"cgroup.max.depth=3<3"}},
		"a controller for none": {r: res(specs.LinuxResources{Unified: map[string]string{"zap.max": "3"}}), v1: []string{"!zap"}, v2: []string{"zap.max=3<3"}},
	})
}

// TestNoController refuses each limit by name where no hierarchy serves it.
func TestNoController(t *testing.T) {
	none := view{version: func(string) int { return 0 }, has: func(string, string) bool { return true }, now: func(string, string) string { return "" }}
	for want, r := range map[string]specs.LinuxResources{
		"memory": {Memory: &specs.LinuxMemory{Limit: ptr[int64](4096)}}, "cpu": {CPU: &specs.LinuxCPU{Shares: ptr[uint64](2)}},
		"cpu.cpus": {CPU: &specs.LinuxCPU{Cpus: "0"}}, "pids": {Pids: &specs.LinuxPids{Limit: ptr[int64](1)}},
		"blockIO":        {BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](10)}},
		"hugepageLimits": {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}}},
		"network":        {Network: &specs.LinuxNetwork{ClassID: ptr[uint32](1)}},
		"rdma":           {Rdma: map[string]specs.LinuxRdma{"a": {HcaObjects: ptr[uint32](1)}}},
		"devices":        {Devices: []specs.LinuxDeviceCgroup{{}}}, "unified": {Unified: map[string]string{"a.b": "c"}},
	} {
		_, err := plan(&r, none)
		if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "resource limit "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestKept(t *testing.T) {
	for _, c := range []struct {
		w    Write
		got  string
		want bool
	}{
		{Write{Back: "5"}, "5\n", true}, {Write{Back: "5"}, "6\n", false}, {Write{Back: ""}, "6\n", false},
		{Write{Back: "0,1,2", Rule: sameList}, "0-2\n", true}, {Write{Back: "0-2", Rule: sameList}, "0-1\n", false},
		{Write{Key: "8:0", Back: "5", Rule: sameLine}, "8:16 5\n8:0 5\n", true}, {Write{Key: "8:0", Back: "5", Rule: sameLine}, "8:16 5\n", false},
		{Write{Key: "8:0", Back: "0", Rule: sameLine}, "8:16 5\n", true}, {Write{Key: "8:0", Back: "0", Rule: sameLine}, "8:0 5\n", false},
		{Write{Key: "8:0", Back: "rbps=5 wbps=max", Rule: sameLine}, "8:0 rbps=5 wbps=max riops=1\n", true},
		{Write{Key: "8:0", Back: "rbps=max", Rule: sameLine}, "", true}, {Write{Key: "8:0", Back: "rbps=5", Rule: sameLine}, "8:0 rbps=6\n", false},
		{Write{Back: "c 1:3 rw\nc 1:5 r\n", Rule: sameSet}, "c 1:5 r\nc 1:3 rw\n", true}, {Write{Back: "c 1:3 rw\n", Rule: sameSet}, "c 1:3 rwm\n", false},
		{Write{Back: "", Rule: sameSet}, "", true}, {Write{Back: "", Rule: sameSet}, "a *:* rwm\n", false},
		{Write{Back: "1M", Rule: sameAny}, "1048576\n", true}, {Write{Back: "5000", Rule: sameAny}, "4096\n", true}, {Write{Back: "5000", Rule: sameAny}, "8192\n", false},
		{Write{Back: "200", Rule: sameAny}, "default 200\n", true}, {Write{Back: "default 200", Rule: sameAny}, "default 200\n8:0 5\n", true},
		{Write{Back: "50000", Rule: sameAny}, "50000 100000\n", true}, {Write{Back: "max", Rule: sameAny}, "5\n", false},
		{Write{Back: "0-1", Rule: sameAny}, "0,1\n", true}, {Write{Back: "", Rule: sameAny}, "\n", true},
	} {
		if got := c.w.kept(c.got); got != c.want {
			t.Errorf("%+v in %q: %t", c.w, c.got, got)
		}
	}
}
