package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// recorded is a group whose files are plain ones with the given text.
func recorded(t *testing.T, h Hierarchy, files map[string]string) *Group {
	t.Helper()
	h.Mount = t.TempDir()
	if err := os.MkdirAll(filepath.Join(h.Mount, "p", "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(h.Mount, "p", "a", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(h.Mount, "p"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Parent{path: "/p", dirs: []dir{{Hierarchy: h, path: "/p", f: f, delegated: h.Controllers}}}
	t.Cleanup(p.Close)
	return p.Group("a")
}

func TestStatsV1(t *testing.T) {
	g := recorded(t, Hierarchy{Controllers: []string{"cpu", "cpuacct", "memory", "blkio", "pids", "hugetlb"}}, map[string]string{
		"cpuacct.usage": "1000000000\n", "cpuacct.usage_user": "600000000\n", "cpuacct.usage_sys": "400000000\n", "cpuacct.usage_percpu": "700000000 300000000 \n",
		"cpu.stat":                  "nr_periods 10\nnr_throttled 3\nthrottled_time 5000\n",
		"memory.stat":               "cache 1\nrss 2\ntotal_cache 11\ntotal_rss 12\ntotal_active_file 13\ntotal_inactive_file 14\ntotal_mapped_file 15\ntotal_swap 16\ntotal_pgfault 17\ntotal_pgmajfault 18\n",
		"memory.usage_in_bytes":     "4096\n",
		"memory.max_usage_in_bytes": "8192\n", "memory.limit_in_bytes": "1048576\n", "memory.failcnt": "2\n",
		"memory.memsw.limit_in_bytes": "2097152\n", "memory.memsw.usage_in_bytes": "5000\n", "memory.memsw.max_usage_in_bytes": "6000\n", "memory.memsw.failcnt": "1\n",
		"memory.kmem.usage_in_bytes": "77\n", "memory.kmem.tcp.usage_in_bytes": "78\n", "memory.oom_control": "oom_kill_disable 1\nunder_oom 1\noom_kill 9\n",
		"blkio.throttle.io_service_bytes_recursive": "8:0 Read 100\n8:0 Write 200\n8:0 Sync 250\n8:0 Async 50\n8:0 Discard 7\n8:0 Total 307\n254:1 Read 1\nTotal 308\n",
		"blkio.throttle.io_serviced_recursive":      "8:0 Read 10\n8:0 Write 20\n8:0 Discard 1\n254:1 Read 1\nTotal 32\n",
		"pids.current":                              "4\n", "pids.max": "max\n", "pids.events": "max 5\n",
		"hugetlb.2MB.usage_in_bytes": "2097152\n", "hugetlb.2MB.max_usage_in_bytes": "4194304\n", "hugetlb.2MB.limit_in_bytes": "9223372036852678656\n",
		"hugetlb.2MB.failcnt": "6\n", "hugetlb.2MB.rsvd.usage_in_bytes": "1\n",
	})
	got, err := g.Stats(AskAll)
	if err != nil {
		t.Fatal(err)
	}
	if got.Memory.Detail["rss"] != 2 || len(got.Memory.Detail) != 10 {
		t.Errorf("detail %v", got.Memory.Detail)
	}
	got.Memory.Detail = nil
	want := Stats{
		CPU: CPU{Total: time.Second, User: 600 * time.Millisecond, System: 400 * time.Millisecond, PerCPU: []time.Duration{700 * time.Millisecond, 300 * time.Millisecond},
			Periods: 10, Throttled: 3, ThrottledTime: 5 * time.Microsecond},
		Memory: Memory{Usage: 4096, Peak: 8192, Limit: 1 << 20, Failures: 2, Cache: 11, RSS: 12, ActiveFile: 13, InactiveFile: 14, Mapped: 15, Swap: 16,
			Faults: 17, MajorFaults: 18, Kernel: 77, KernelTCP: 78, SwapLimit: 1 << 20, UsageWithSwap: 5000, PeakWithSwap: 6000, LimitWithSwap: 2 << 20,
			SwapFailures: 1, OOMKills: 9, OOMDisabled: true, UnderOOM: true},
		IO: []DiskIO{{Major: 8, ReadBytes: 100, WriteBytes: 200, DiscardBytes: 7, Reads: 10, Writes: 20, Discards: 1},
			{Major: 254, Minor: 1, ReadBytes: 1, Reads: 1}},
		Pids: Pids{Current: 4, Limit: NoLimit, Failures: 5},
		Huge: []Huge{{Size: "2MB", Usage: 2 << 20, Peak: 4 << 20, Limit: NoLimit, Failures: 6}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if s, err := g.Stats(AskPids); err != nil || s.Pids.Current != 4 || s.Pids.Failures != 0 || s.CPU.Total != 0 || s.Memory.Usage != 0 {
		t.Errorf("pids alone: %+v %v", s, err)
	}
}

func TestStatsV2(t *testing.T) {
	g := recorded(t, Hierarchy{Unified: true, Controllers: []string{"cpu", "memory", "io", "pids", "hugetlb"}}, map[string]string{
		"cpu.stat":    "usage_usec 1000\nuser_usec 600\nsystem_usec 400\ncore_sched.force_idle_usec 0\nnr_periods 10\nnr_throttled 3\nthrottled_usec 5\nnr_bursts 2\nburst_usec 7\n",
		"memory.stat": "anon 12\nfile 11\nkernel 77\nsock 78\nfile_mapped 15\nactive_file 13\ninactive_file 14\npgfault 17\npgmajfault 18\n", "memory.current": "4096\n",
		"memory.peak": "8192\n", "memory.max": "1048576\n", "memory.events": "low 0\nhigh 0\nmax 2\noom 1\noom_kill 9\noom_group_kill 0\n",
		"memory.swap.current": "16\n", "memory.swap.max": "max\n", "memory.swap.events": "high 0\nmax 1\nfail 4\n",
		"io.stat":      "8:0 rbytes=100 wbytes=200 rios=10 wios=20 dbytes=7 dios=1\n254:1 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:0 \n",
		"pids.current": "4\n", "pids.max": "32\n", "pids.events": "max 5\n",
		"hugetlb.1GB.current": "0\n", "hugetlb.1GB.max": "max\n", "hugetlb.1GB.events": "max 6\n", "hugetlb.1GB.rsvd.current": "0\n",
		"cpu.pressure":    "some avg10=1.50 avg60=2.25 avg300=0.10 total=1234\n",
		"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=2\n",
	})
	got, err := g.Stats(AskAll &^ AskDetail)
	if err != nil {
		t.Fatal(err)
	}
	micro := time.Microsecond
	want := Stats{
		CPU: CPU{Total: 1000 * micro, User: 600 * micro, System: 400 * micro, Periods: 10, Throttled: 3, ThrottledTime: 5 * micro, Bursts: 2, BurstTime: 7 * micro},
		Memory: Memory{Usage: 4096, Peak: 8192, Limit: 1 << 20, Failures: 2, Cache: 11, RSS: 12, ActiveFile: 13, InactiveFile: 14, Mapped: 15, Swap: 16,
			Faults: 17, MajorFaults: 18, Kernel: 77, KernelTCP: 78, SwapLimit: NoLimit, UsageWithSwap: 4112, LimitWithSwap: NoLimit, SwapFailures: 1, OOMKills: 9},
		IO: []DiskIO{{Major: 8, ReadBytes: 100, WriteBytes: 200, DiscardBytes: 7, Reads: 10, Writes: 20, Discards: 1},
			{Major: 254, Minor: 1, ReadBytes: 1, Reads: 1}},
		Pids: Pids{Current: 4, Limit: 32, Failures: 5},
		Huge: []Huge{{Size: "1GB", Limit: NoLimit, Failures: 6}},
		Pressure: Pressure{CPU: Stall{Some: Waiting{1.5, 2.25, 0.1, 1234 * micro}},
			Memory: Stall{Some: Waiting{Total: micro}, Full: Waiting{Avg10: 3, Total: 2 * micro}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	m := g.Meter(AskPids)
	defer m.Close()
	for _, n := range []uint64{4, 5} {
		if s, err := m.Read(); err != nil || s.Pids.Current != n {
			t.Errorf("%+v %v, want %d", s.Pids, err, n)
		}
		os.WriteFile(filepath.Join(g.p.dirs[0].Mount, "p", "a", "pids.current"), []byte("5\n"), 0o644)
	}
	if _, err := g.p.Group("none").Stats(AskAll); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a group that is not there: %v", err)
	}
}
