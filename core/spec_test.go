package core

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// plain is a specification that nobody refuses.
func plain(change func(*Spec)) *Spec {
	sp := &Spec{Process: Process{Cmd: []string{"sh"}}}
	change(sp)
	return sp
}

// refusedLimits are limits that cannot be, by what is said of them.
func refusedLimits() map[string]func(*Spec) {
	bad := int64(101)
	return map[string]func(*Spec){
		"less than the minimum of 6291456 bytes":    func(s *Spec) { s.Resources.MemoryBytes = 5 << 20 },
		"always set the memory limit":               func(s *Spec) { s.Resources.MemorySwapBytes = 64 << 20 },
		"should be larger than memory limit":        func(s *Spec) { s.Resources.MemoryBytes, s.Resources.MemorySwapBytes = 64<<20, 32<<20 },
		"valid range is 0-100":                      func(s *Spec) { s.Resources.MemorySwappiness = &bad },
		"can not be less than memory reservation":   func(s *Spec) { s.Resources.MemoryBytes, s.Resources.MemoryReservationBytes = 32<<20, 64<<20 },
		"less than the minimum of 0.01":             func(s *Spec) { s.Resources.NanoCPUs = 1e6 },
		"nano CPUs and CPU period cannot both":      func(s *Spec) { s.Resources.NanoCPUs, s.Resources.CPUPeriod = 1e9, 100000 },
		"nano CPUs and CPU quota cannot both":       func(s *Spec) { s.Resources.NanoCPUs, s.Resources.CPUQuota = 1e9, 100000 },
		"CPU cfs period (999)":                      func(s *Spec) { s.Resources.CPUPeriod = 999 },
		"CPU cfs quota (999)":                       func(s *Spec) { s.Resources.CPUQuota = 999 },
		"cannot be higher than CPU realtime period": func(s *Spec) { s.Resources.CPURealtimePeriod, s.Resources.CPURealtimeRuntime = 1, 2 },
		`invalid value "0-" for cpuset cpus`:        func(s *Spec) { s.Resources.CpusetCPUs = "0-" },
		`invalid value "3-1" for cpuset mems`:       func(s *Spec) { s.Resources.CpusetMems = "3-1" },
		"pids limit -2":                             func(s *Spec) { s.Resources.PidsLimit = -2 },
		"blkio weight is from 10 to 1000, not 9":    func(s *Spec) { s.Resources.BlkioWeight = 9 },
		`bad format for device path "sda"`:          func(s *Spec) { s.Resources.BlkioReadBps = []DeviceRate{{Path: "sda"}} },
		`invalid ulimit type: "files"`:              func(s *Spec) { s.Resources.Ulimits = []Ulimit{{Name: "files"}} },
		"soft limit must be less than or equal":     func(s *Spec) { s.Resources.Ulimits = []Ulimit{{Name: "nofile", Soft: 2, Hard: 1}} },
		`invalid cgroup parent "../x"`:              func(s *Spec) { s.Resources.CgroupParent = "../x" },
	}
}

// refusedRest is what else cannot be.
func refusedRest() map[string]func(*Spec) {
	other := "container:" + string(ctrID("c1"))
	return map[string]func(*Spec){
		"it must be an absolute path":              func(s *Spec) { s.Process.Cwd = "tmp" },
		"stop signal 65":                           func(s *Spec) { s.Process.StopSignal = 65 },
		"stop timeout -1s":                         func(s *Spec) { s.Process.StopTimeout = -time.Second },
		`group "a:b"`:                              func(s *Spec) { s.Process.Groups = []string{"a:b"} },
		"70000 rows":                               func(s *Spec) { s.Process.Rows = 70000 },
		`environment variable name "A=B"`:          func(s *Spec) { s.Process.Env = []Env{{Name: "A=B"}} },
		"holds a NUL byte":                         func(s *Spec) { s.Process.Cmd = []string{"a\x00"} },
		"no command specified":                     func(s *Spec) { s.Process.Cmd = nil },
		`mount type "volume"`:                      func(s *Spec) { s.Mounts = []MountSpec{{Type: "volume", Target: "/v"}} },
		"mount path must be absolute":              func(s *Spec) { s.Mounts = []MountSpec{{Type: "tmpfs", Target: "v"}} },
		"destination can't be '/'":                 func(s *Spec) { s.Mounts = []MountSpec{{Type: "tmpfs", Target: "/a/.."}} },
		"duplicate mount point: /a":                func(s *Spec) { s.Mounts = []MountSpec{{Type: "tmpfs", Target: "/a"}, {Type: "tmpfs", Target: "/a/"}} },
		`invalid bind source "x"`:                  func(s *Spec) { s.Mounts = []MountSpec{{Type: "bind", Source: "x", Target: "/a"}} },
		`invalid PID mode: "none"`:                 func(s *Spec) { s.Security.PID = "none" },
		`invalid IPC mode: "container:c1"`:         func(s *Spec) { s.Security.IPC = "container:c1" },
		`invalid UTS mode: "shareable"`:            func(s *Spec) { s.Security.UTS = "shareable" },
		`invalid user namespace mode: "container:`: func(s *Spec) { s.Security.UserNS = other },
		`invalid cgroup namespace mode: "x"`:       func(s *Spec) { s.Security.CgroupNS = "x" },
		"range for oom score adj":                  func(s *Spec) { s.Security.OOMScoreAdj = 1001 },
		"decoding the seccomp profile":             func(s *Spec) { s.Security.Seccomp = "{" },
		`bad label option "user"`:                  func(s *Spec) { s.Security.SELinux = []string{"user"} },
		`invalid capability: "NET-ADMIN"`:          func(s *Spec) { s.Security.CapAdd = []string{"NET-ADMIN"} },
		`invalid permissions "rr"`:                 func(s *Spec) { s.Security.Devices = []Device{{"/dev/null", "/dev/null", "rr"}} },
		`invalid device cgroup format "c 1:3"`:     func(s *Spec) { s.Security.DeviceRules = []string{"c 1:3"} },
		"sysctl 'kernel.panic' is not allowed":     func(s *Spec) { s.Security.Sysctls = map[string]string{"kernel.panic": "1"} },
		"the network namespace is not the": func(s *Spec) {
			s.Network.Network = "host"
			s.Security.Sysctls = map[string]string{"net.core.somaxconn": "1"}
		},
		"the IPC namespace is not the":                  func(s *Spec) { s.Security.IPC = "host"; s.Security.Sysctls = map[string]string{"kernel.shmmax": "1"} },
		"hostname and the network mode":                 func(s *Spec) { s.Network.Network, s.Network.Hostname = other, "h" },
		"hostname and the UTS mode":                     func(s *Spec) { s.Security.UTS, s.Network.Hostname = "host", "h" },
		"privileged mode is incompatible":               func(s *Spec) { s.Security.UserNS, s.Security.Privileged = "private", true },
		"share the host's network namespace":            func(s *Spec) { s.Security.UserNS, s.Network.Network = "private", "host" },
		"share the host PID namespace":                  func(s *Spec) { s.Security.UserNS, s.Security.PID = "private", "host" },
		"SHM size":                                      func(s *Spec) { s.Rootfs.ShmBytes = -1 },
		"the size of /dev/shm and the IPC mode":         func(s *Spec) { s.Rootfs.ShmBytes, s.Security.IPC = 1<<20, "host" },
		`health check ["CMD"] names no command`:         func(s *Spec) { s.Health = &Health{Test: []string{"CMD"}} },
		`unknown health check type "true"`:              func(s *Spec) { s.Health = &Health{Test: []string{"true"}} },
		"the interval of a health check cannot be less": func(s *Spec) { s.Health = &Health{Test: []string{"CMD", "a"}, Interval: 1} },
		"the retries of a health check":                 func(s *Spec) { s.Health = &Health{Test: []string{"CMD", "a"}, Retries: -1} },
		`log driver "syslog"`:                           func(s *Spec) { s.Logging.Driver = "syslog" },
		"only supported with mode=non-blocking":         func(s *Spec) { s.Logging.MaxBufferBytes = 1 },
		"log driver none keeps nothing":                 func(s *Spec) { s.Logging = Logging{Driver: "none", MaxFiles: 2} },
	}
}

// TestSpecRefused: each impossible field is refused by name, with the words that
// people know.
func TestSpecRefused(t *testing.T) {
	all := refusedLimits()
	maps.Copy(all, refusedRest())
	for want, change := range all {
		err := plain(change).check()
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want a refusal that says %q, got %v", want, err)
		}
	}
}

func TestSpecAccepted(t *testing.T) {
	other := "container:" + string(ctrID("c1"))
	for name, change := range map[string]func(*Spec){
		"nothing": func(*Spec) {},
		"swap":    func(s *Spec) { s.Resources.MemoryBytes, s.Resources.MemorySwapBytes = 64<<20, -1 },
		"cpuset":  func(s *Spec) { s.Resources.CpusetCPUs = "0-2,7" },
		"endless": func(s *Spec) { s.Resources.Ulimits = []Ulimit{{"memlock", -1, -1}, {"core", 0, -1}} },
		"shared": func(s *Spec) {
			s.Network.Network, s.Security.PID, s.Security.IPC, s.Security.UTS = other, other, other, other
		},
		"rules": func(s *Spec) { s.Security.DeviceRules = []string{"a *:* rwm", "c 1:3 mr", "b 8:* w"} },
		"sysctls": func(s *Spec) {
			s.Security.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "5"}
		},
		"capability":  func(s *Spec) { s.Security.CapAdd, s.Security.CapDrop = []string{"ALL"}, []string{"cap_net_raw"} },
		"profile":     func(s *Spec) { s.Security.Seccomp = `{"defaultAction":"SCMP_ACT_ALLOW"}` },
		"labels":      func(s *Spec) { s.Security.SELinux = []string{"disable", "level:s0:c1,c2"} },
		"health":      func(s *Spec) { s.Health = &Health{Test: []string{"CMD-SHELL", "a || b"}, Interval: time.Millisecond} },
		"non-blocked": func(s *Spec) { s.Logging = Logging{Driver: "json-file", NonBlocking: true, MaxBufferBytes: 1} },
	} {
		if err := plain(change).check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHealthMerge: a test of one's own keeps the image's times, NONE drops all.
func TestHealthMerge(t *testing.T) {
	image := &Health{Test: []string{"CMD", "image"}, Interval: time.Second, Retries: 7}
	for name, c := range map[string]struct{ own, image, want *Health }{
		"neither":    {nil, nil, nil},
		"image's":    {nil, image, image},
		"own":        {&Health{Test: []string{"CMD", "own"}}, nil, &Health{Test: []string{"CMD", "own"}}},
		"own test":   {&Health{Test: []string{"CMD", "own"}, Retries: 2}, image, &Health{Test: []string{"CMD", "own"}, Interval: time.Second, Retries: 2}},
		"own time":   {&Health{Interval: time.Minute}, image, &Health{Test: []string{"CMD", "image"}, Interval: time.Minute, Retries: 7}},
		"none":       {&Health{Test: []string{"NONE"}}, image, nil},
		"no test":    {&Health{Interval: time.Minute}, nil, nil},
		"image none": {nil, &Health{Test: []string{"NONE"}}, nil},
	} {
		if got := c.own.merge(c.image); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestIDPool(t *testing.T) {
	for _, p := range []IDPool{{First: 1, Ranges: 1}, {First: 0, Ranges: 2}, {First: IDRange, Ranges: -1}, {First: 1 << 31, Ranges: 1 << 15}} {
		if err := p.check(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	e := newEngine(t)
	e.s.Engine.IDs = IDPool{First: 3 * IDRange, Ranges: 2}
	e.images = []LoadedImage{loaded("a")}
	if _, err := e.job(&LoadImage{Archive: "/archive"}); err != nil {
		t.Fatal(err)
	}
	e.settle()
	create := func(name string) error {
		_, err := e.job(&CreateContainer{
			ID: ctrID(name), Name: name, Image: "docker.io/library/a:latest", Want: Stopped,
			Spec: Spec{Security: Security{UserNS: "private"}, Network: NetworkSpec{Network: "none"}},
		})
		if err == nil {
			_, err = e.job(&PrepareContainer{ID: ctrID(name)})
		}
		return err
	}
	for _, name := range []string{"c1", "c2"} {
		if err := create(name); err != nil {
			t.Fatalf("container %s gets no ids: %v", name, err)
		}
	}
	if err := create("c3"); !errdefs.IsResourceExhausted(err) {
		t.Fatalf("a third container of two ranges: %v", err)
	}
	if _, err := e.job(&RemoveContainer{ID: ctrID("c1")}); err != nil {
		t.Fatal(err)
	}
	e.settle()
	if _, err := e.job(&PrepareContainer{ID: ctrID("c3")}); err != nil {
		t.Fatalf("after another one was removed: %v", err)
	}
	if got := e.s.Containers[ctrID("c3")].IDMap.UIDs[0]; got != (IDMapping{0, 3 * IDRange, IDRange}) {
		t.Fatalf("ids %+v", got)
	}
}

// TestManyExecs: execs in a row leave nothing but the last ones.
func TestManyExecs(t *testing.T) {
	l := newLives(t, nil)
	id := ctrID("c1")
	l.job(&CreateContainer{
		ID: id, Name: "c1", Image: "docker.io/library/a:latest", Want: Running,
		Spec: Spec{Process: Process{Cmd: []string{"true"}}, Network: NetworkSpec{Network: "none"}},
	})
	size := 0
	for i := range 10_000 {
		x := execID(sprintf("%05d", i))
		l.job(&ExecContainer{ID: id, Exec: x, Spec: ExecSpec{Args: []string{"true"}}})
		l.send(&ReportExit{Container: id, Run: 1, Exec: x, Code: i % 200, Time: l.clock}, "")
		c := l.s.Containers[id]
		if last := c.exec(x); last == nil || last.Exit == nil || last.Exit.Code != i%200 || last.State != Absent {
			t.Fatalf("exec %d: %+v", i, last)
		}
		if i%1000 == 999 {
			data, err := (&State{Containers: l.s.Containers}).MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Execs) != ExecsKept || size != 0 && len(data) > size+200 {
				t.Fatalf("after %d execs: %d are kept, %d bytes (%d before)", i+1, len(c.Execs), len(data), size)
			}
			size = len(data)
		}
	}
}

// TestMergeEnv merges few variables and many, which are found in different ways.
func TestMergeEnv(t *testing.T) {
	for _, n := range []int{3, 100} {
		var base, over, want []Env
		for i := range n {
			e := Env{Name: sprintf("V%d", i), Value: "image"}
			base = append(base, e, Env{Name: e.Name, Value: "image again"})
			e.Value = "image again"
			if i%2 == 0 {
				e.Value = "own"
				over = append(over, e)
			}
			want = append(want, e)
		}
		over = append(over, Env{Name: "NEW", Value: "own"})
		want = append(want, Env{Name: "NEW", Value: "own"})
		if got := mergeEnv(base, over); !slices.Equal(got, want) {
			t.Errorf("%d variables: %v, want %v", n, got, want)
		}
	}
}
