package cli

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
)

// specOf is what create's flags ask for.
func specOf(t *testing.T, args ...string) (core.Spec, error) {
	t.Helper()
	env := map[string]string{"MINE": "my own"}
	a := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard, LookupEnv: func(n string) (string, bool) { v, ok := env[n]; return v, ok }}}
	c := a.createCmd()
	var f createFlags
	c.ResetFlags()
	f.register(c)
	if err := c.ParseFlags(args); err != nil {
		return core.Spec{}, err
	}
	return f.spec(a, c, c.Flags().Args())
}

// flagTest is a command line, and what it asks for.
type flagTest struct {
	args string
	want core.Spec
}

func checkFlags(t *testing.T, tests []flagTest) {
	t.Helper()
	for _, test := range tests {
		got, err := specOf(t, strings.Fields(test.args)...)
		got.Process.Cmd = nil
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s:\n got %+v (%v)\nwant %+v", test.args, got, err, test.want)
		}
	}
}

// TestCreateFlags: each flag says what it is to say.
func TestCreateFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	envs := file("env", "\ufeff# comment\n\n  A=b c\r\nMINE\nNOBODYS\nE=\n")
	labels := file("labels", "one=1\ntwo\n")
	checkFlags(t, []flagTest{
		{"-it -w /w -u 1:2 --group-add 5 --group-add audio --init", core.Spec{Process: core.Process{
			OpenStdin: true, TTY: true, Cwd: "/w", User: "1:2", Groups: []string{"5", "audio"}, Init: true,
		}}},
		{"--stop-signal SIGUSR1 --stop-timeout 3 --entrypoint x", core.Spec{Process: core.Process{
			StopSignal: 10, StopTimeout: 3 * time.Second, Entrypoint: []string{"x"},
		}}},
		{"--env-file " + envs + " -e A=last -e MINE", core.Spec{Process: core.Process{Env: []core.Env{
			{Name: "A", Value: "b c"}, {Name: "MINE", Value: "my own"}, {Name: "E"}, {Name: "A", Value: "last"}, {Name: "MINE", Value: "my own"},
		}}}},
		{"--label-file " + labels + " -l two=2", core.Spec{Labels: map[string]string{"one": "1", "two": "2"}}},
		{"--read-only --shm-size 1g", core.Spec{Rootfs: core.Rootfs{ReadOnly: true, ShmBytes: 1 << 30}}},
		{"-h name --domainname dom --network none", core.Spec{Network: core.NetworkSpec{Hostname: "name", Domain: "dom", Network: "none"}}},
		{"-v /a:/b -v /c/:/d:ro,rslave --tmpfs /t --tmpfs /u:size=1m,mode=700", core.Spec{Mounts: []core.MountSpec{
			{Type: "bind", Source: "/a", Target: "/b", Options: []string{"rbind"}},
			{Type: "bind", Source: "/c", Target: "/d", Options: []string{"rbind", "ro", "rslave"}},
			{Type: "tmpfs", Target: "/t"}, {Type: "tmpfs", Target: "/u", Options: []string{"size=1m", "mode=700"}},
		}}},
		{"--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount type=bind,source=/a,target=/c,bind-recursive=disabled",
			core.Spec{Mounts: []core.MountSpec{
				{Type: "bind", Source: "/a", Target: "/b", Options: []string{"rbind", "ro", "rshared"}},
				{Type: "tmpfs", Target: "/t", Options: []string{"size=1048576", "mode=1770"}},
				{Type: "bind", Source: "/a", Target: "/c", Options: []string{"bind"}},
			}}},
		{"--health-cmd check --health-interval 1s --health-timeout 2s --health-retries 3 --health-start-period 4s --health-start-interval 5s",
			core.Spec{Health: &core.Health{
				Test: []string{"CMD-SHELL", "check"}, Interval: time.Second, Timeout: 2 * time.Second, Retries: 3,
				StartPeriod: 4 * time.Second, StartInterval: 5 * time.Second,
			}}},
		{"--health-retries 9", core.Spec{Health: &core.Health{Retries: 9}}},
		{"--no-healthcheck", core.Spec{Health: &core.Health{Test: []string{"NONE"}}}},
		{"--restart on-failure:3 --restart-unhealthy", core.Spec{Restart: core.Restart{Policy: "on-failure", Max: 3, Unhealthy: true}}},
		{"--restart no", core.Spec{}},
		{"--log-driver local --log-opt max-size=1m --log-opt max-file=2 --log-opt max-age=1h --log-opt mode=non-blocking --log-opt max-buffer-size=2m",
			core.Spec{Logging: core.Logging{
				Driver: "local", MaxBytes: 1 << 20, MaxFiles: 2, MaxAge: time.Hour, NonBlocking: true, MaxBufferBytes: 2 << 20,
			}}},
	})
}

// TestLimitFlags: the same for limits.
func TestLimitFlags(t *testing.T) {
	swappiness := int64(7)
	checkFlags(t, []flagTest{
		{"-m 64m --memory-swap -1 --memory-reservation 32m --memory-swappiness 7 --oom-kill-disable", core.Spec{Resources: core.Resources{
			MemoryBytes: 64 << 20, MemorySwapBytes: -1, MemoryReservationBytes: 32 << 20, MemorySwappiness: &swappiness, OOMKillDisable: true,
		}}},
		{"--cpus 1.5 -c 512 --cpuset-cpus 0-1 --cpuset-mems 0", core.Spec{Resources: core.Resources{
			NanoCPUs: 1.5e9, CPUShares: 512, CpusetCPUs: "0-1", CpusetMems: "0",
		}}},
		{"--cpu-period 1000 --cpu-quota 500 --cpu-rt-period 9 --cpu-rt-runtime 8 --pids-limit -1 --cgroup-parent /x", core.Spec{Resources: core.Resources{
			CPUPeriod: 1000, CPUQuota: 500, CPURealtimePeriod: 9, CPURealtimeRuntime: 8, PidsLimit: -1, CgroupParent: "/x",
		}}},
		{"--blkio-weight 20 --blkio-weight-device /dev/sda:30 --device-read-bps /dev/sda:1mb --device-write-bps /dev/sdb:5 --device-read-iops /dev/sda:6 --device-write-iops /dev/sda:7",
			core.Spec{Resources: core.Resources{
				BlkioWeight: 20, BlkioWeightDevices: []core.DeviceWeight{{Path: "/dev/sda", Weight: 30}},
				BlkioReadBps: []core.DeviceRate{{Path: "/dev/sda", Rate: 1 << 20}}, BlkioWriteBps: []core.DeviceRate{{Path: "/dev/sdb", Rate: 5}},
				BlkioReadIOps: []core.DeviceRate{{Path: "/dev/sda", Rate: 6}}, BlkioWriteIOps: []core.DeviceRate{{Path: "/dev/sda", Rate: 7}},
			}}},
		{"--ulimit nofile=5:6 --ulimit core=-1 --ulimit nproc=3", core.Spec{Resources: core.Resources{Ulimits: []core.Ulimit{
			{Name: "nofile", Soft: 5, Hard: 6}, {Name: "core", Soft: -1, Hard: -1}, {Name: "nproc", Soft: 3, Hard: 3},
		}}}},
	})
}

// TestSecurityFlags: the same for what the process may do.
func TestSecurityFlags(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(profile, []byte("{ \"defaultAction\":\n \"SCMP_ACT_ALLOW\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkFlags(t, []flagTest{
		{"--cap-add net_admin --cap-drop ALL --privileged --oom-score-adj -5", core.Spec{Security: core.Security{
			CapAdd: []string{"CAP_NET_ADMIN"}, CapDrop: []string{"ALL"}, Privileged: true, OOMScoreAdj: -5,
		}}},
		{"--security-opt no-new-privileges:true --security-opt seccomp=" + profile + " --security-opt apparmor=p --security-opt label:type:t --security-opt label=disable --security-opt systempaths=unconfined",
			core.Spec{Security: core.Security{
				NoNewPrivileges: true, Seccomp: `{"defaultAction":"SCMP_ACT_ALLOW"}`, AppArmor: "p", SELinux: []string{"type:t", "disable"}, OpenPaths: true,
			}}},
		{"--security-opt seccomp=unconfined --security-opt no-new-privileges", core.Spec{Security: core.Security{Seccomp: "unconfined", NoNewPrivileges: true}}},
		{"--device /dev/fuse --device /dev/a:/dev/b:r --device /dev/c:rw", core.Spec{Security: core.Security{Devices: []core.Device{
			{Host: "/dev/fuse", Container: "/dev/fuse"}, {Host: "/dev/a", Container: "/dev/b", Permissions: "r"},
			{Host: "/dev/c", Container: "/dev/c", Permissions: "rw"},
		}}}},
		{"--sysctl net.a=1 --userns private --pid host --ipc shareable --uts host --cgroupns host", core.Spec{Security: core.Security{
			Sysctls: map[string]string{"net.a": "1"}, UserNS: "private", PID: "host", IPC: "shareable", UTS: "host", CgroupNS: "host",
		}}},
		{"--pid container:x --ipc container:y --network container:z", core.Spec{
			Security: core.Security{PID: "container:x", IPC: "container:y"}, Network: core.NetworkSpec{Network: "container:z"},
		}},
	})
}

// TestCreateRefused: what cannot be is refused with a sentence that names it.
func TestCreateRefused(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--device dev", "absolute"}, {"--device /dev/a:b:rwm", "inside must be absolute"}, {"--device /dev/a:/b:x", "permissions"},
		{"--device /dev/a:/b:rr", "permissions"}, {"--device /a:/b:r:w", "want HOST"},
		{"--blkio-weight 5", "10 to 1000"}, {"--blkio-weight-device sda:20", "want /dev/NAME"}, {"--blkio-weight-device /dev/sda:5000", "10 to 1000"},
		{"--device-read-bps /dev/sda:x", "--device-read-bps"}, {"--device-read-iops /dev/sda:1m", "--device-read-iops"},
		{"--ulimit nofile", "NAME=SOFT"}, {"--ulimit nofile=x", "a number"}, {"--ulimit nofile=-1:5", "above"}, {"--ulimit =5", "NAME=SOFT"},
		{"--memory-swappiness 101", "0 to 100"}, {"--memory-swap lots", "--memory-swap"}, {"--pids-limit -2", "pids limit"},
		{"--mount type=bind,src=a,dst=/b", "absolute"}, {"--mount type=bind,src=/a", "target is required"}, {"--mount type=bind,src=/a,dst=b", "absolute"},
		{"--mount type=tmpfs,dst=/b,src=/a", "no source"}, {"--mount type=tmpfs,dst=/b,bind-propagation=slave", "type=bind"},
		{"--mount type=bind,src=/a,dst=/b,tmpfs-size=1", "type=tmpfs"}, {"--mount type=tmpfs,dst=/b,tmpfs-mode=9", "octal"},
		{"--mount type=bind,src=/a,dst=/b,bind-propagation=ro", "bind-propagation"}, {"--mount type=bind,src=/a,dst=/b,volume-opt=x", "not supported yet"},
		{"--mount type=bind,src=/a,dst=/b,bind-recursive=readonly", "needs readonly"}, {"--mount type=bind,src=/a,dst=/b,ro=maybe", "ro=maybe"},
		{"-v /a:/b:ro,rw", "invalid mode"}, {"-v /a:b", "absolute"}, {"-v /a:/b:what", "invalid mode: what"}, {"-v /a:/", "must not be /"}, {"-v /a::ro", "want /HOST"},
		{"--restart on-failure:x", "integer"}, {"--restart on-failure:-1", "negative"},
		{"--health-interval 1us", "less than 1ms"}, {"--health-retries -1", "negative"},
		{"--log-opt max-size", "NAME=value"}, {"--log-opt max-size=0", "more than nothing"}, {"--log-opt max-size=-1", "without a bound"},
		{"--log-opt max-file=0", "1 or more"}, {"--log-opt mode=maybe", "blocking"}, {"--log-opt max-buffer-size=1m", "needs mode=non-blocking"},
		{"--log-driver none --log-opt max-file=2", "need a log"}, {"--log-opt compress=true", "not supported yet"},
		{"--pid container:", "invalid mode"}, {"--userns keep-id", "invalid mode"}, {"--uts private:x", "invalid mode"}, {"--network container:", "invalid mode"},
		{"--sysctl a", "NAME=value"}, {"--security-opt seccomp=", "not supported yet"}, {"--security-opt nonsense", "not supported yet"},
		{"--detach-keys ab", "unknown key"}, {"--pull missing", "not supported yet"}, {"--shm-size x", "--shm-size"}, {"--stop-timeout -1", "none or more"},
	} {
		if got, err := specOf(t, strings.Fields(test.args)...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v (%+v), want an error with %q", test.args, err, got, test.want)
		}
	}
}

// TestDeviceRules: the kernel's way of writing them and no other.
func TestDeviceRules(t *testing.T) {
	for rule, good := range map[string]bool{
		"c 1:3 rwm": true, "b *:* m": true, "a *:* rwm": true, "c 1:* r": true,
		"c 1:3": false, "d 1:3 r": false, "c 1 r": false, "c x:3 r": false, "c 1:3 x": false, "c  1:3 r": false, "": false,
	} {
		if err := checkDeviceRule(rule); (err == nil) != good {
			t.Errorf("%q: %v", rule, err)
		}
	}
}
