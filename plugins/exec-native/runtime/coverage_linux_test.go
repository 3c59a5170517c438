package runtime

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/spectest"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// seen names the tests on the kernel that look at a field from inside and from
// outside of the container. A test of another package has that before it; a part
// of TestFields or TestFieldsOutside is named by itself.
type seen struct{ inside, outside string }

// coverage lists every field of config.json. An entry covers all fields below it.
func coverage() map[string]seen {
	all := map[string]seen{}
	for _, part := range []map[string]seen{commonCoverage(), processCoverage(), linuxCoverage()} {
		maps.Copy(all, part)
	}
	return all
}

func commonCoverage() map[string]seen {
	refused := seen{"../oci TestClaimsHold", "../oci TestClaimsHold"} // of other systems: there is nothing to be seen
	mounts := seen{"TestMountOptions", "TestMountOptions"}
	hooks := seen{"TestHooks", "TestHooks"}
	return map[string]seen{
		"ociVersion": {"TestPoststartFails", "TestUnknownCapability"}, "annotations": {"TestHooks", "TestAnnotations"},
		"hostname": {"names", "hostname"}, "domainname": {"names", "domainname"},
		"solaris": refused, "windows": refused, "vm": refused, "zos": refused, "freebsd": refused,
		"root.path": {"read-only root", "root path"}, "root.readonly": {"read-only root", "read-only root"},
		"mounts.destination": {"bind", "mount"}, "mounts.type": {"tmpfs copied up", "mount"}, "mounts.source": {"relative destination", "mount"},
		"mounts.options": mounts, "mounts.uidMappings": {"TestIDMaps", "TestIDMaps"}, "mounts.gidMappings": {"idmap", "TestIDMaps"},
		"hooks.prestart": hooks, "hooks.createRuntime": hooks, "hooks.createContainer": hooks, "hooks.startContainer": hooks,
		"hooks.poststart": {"TestHooks", "TestPoststartFails"}, "hooks.poststop": {"TestHooks", "TestHookEndsCreation"},
	}
}

func processCoverage() map[string]seen {
	user := seen{"user", "user"}
	return map[string]seen{
		"process.terminal": {"TestConsoleSocket", "TestConsoleSocket"}, "process.consoleSize": {"TestConsoleSocket", "TestConsoleSocket"},
		"process.user.uid": user, "process.user.gid": user, "process.user.umask": user, "process.user.additionalGids": user,
		"process.user.username": {"../oci TestClaimsHold", "../oci TestClaimsHold"}, "process.commandLine": {"../oci TestClaimsHold", "../oci TestClaimsHold"},
		"process.args": {"cwd made", "program"}, "process.env": {"TestExec", "program"}, "process.cwd": {"cwd made", "program"},
		"process.capabilities": {"capabilities", "capabilities"}, "process.rlimits": {"rlimit", "rlimit"},
		"process.noNewPrivileges": {"no new privs", "capabilities"}, "process.oomScoreAdj": {"oom score", "oom score"},
		"process.apparmorProfile": {".. TestAppArmorKernel", "TestRefusedHere"}, "process.selinuxLabel": {"TestRefusedHere", "TestRefusedHere"},
		"process.scheduler": {"nice", "scheduler"}, "process.ioPriority": {"io priority", "io priority"},
		"process.execCPUAffinity": {"TestExecFlags", "TestExecFlags"},
	}
}

func linuxCoverage() map[string]seen {
	maps := seen{"user namespace", "maps"}
	limits := seen{"../cgroup TestLimitsOnTheKernel", "../cgroup TestLimitsOnTheKernel"}
	return map[string]seen{
		"linux.uidMappings": maps, "linux.gidMappings": maps, "linux.sysctl": {"sysctl", "net sysctl"},
		"linux.resources.devices": {"device rules", "../cgroup TestUpdateDevices"}, "linux.resources.memory": {"TestUpdateAndEvents", "limits"},
		"linux.resources.cpu": limits, "linux.resources.pids": {"pids limit", "limits"}, "linux.resources.blockIO": limits,
		"linux.resources.hugepageLimits": limits, "linux.resources.network": {"../../../test/oci TestValidation", "../cgroup TestOtherControllers"},
		"linux.resources.rdma": {"../cgroup TestOtherControllers", "../cgroup TestOtherControllers"}, "linux.resources.unified": {"../cgroup TestLimitsV2", "../cgroup TestLimitsV2"},
		"linux.cgroupsPath": {"TestExecCgroup", "cgroups path"}, "linux.namespaces": {"TestNamespaces", "TestJoinEachNamespace"},
		"linux.devices": {"device", "device"}, "linux.netDevices": {"TestNetDevice", "TestNetDevice"},
		"linux.seccomp": {"seccomp", "seccomp"}, "linux.rootfsPropagation": {"shared root", "shared root"},
		"linux.maskedPaths": {"masked and read-only", "masked"}, "linux.readonlyPaths": {"masked and read-only", "read-only"},
		"linux.mountLabel": {"TestRefusedHere", "TestRefusedHere"}, "linux.intelRdt": {"TestFailedCreationLeavesNothing", "../resctrl TestMake"},
		"linux.memoryPolicy": {"TestMemoryPolicy", "TestMemoryPolicy"}, "linux.personality": {"personality", "personality"},
		"linux.timeOffsets": {"time", "time"},
	}
}

// TestEveryFieldIsSeen holds each field of the specification to its tests, and
// those to be there.
func TestEveryFieldIsSeen(t *testing.T) {
	all, inside, outside := coverage(), fieldCases(t), outsideCases()
	for _, path := range spectest.Missing(func(path string) bool {
		s, ok := all[path]
		delete(all, path)
		_, isIn := inside[s.inside]
		_, isOut := outside[s.outside]
		if ok && (!isIn && !hasTest(t, s.inside) || !isOut && !hasTest(t, s.outside)) {
			t.Errorf("%s: no such test: %+v", path, s)
		}
		return ok
	}) {
		t.Errorf("%s: no test on the kernel looks at it", path)
	}
	for path := range all {
		t.Errorf("%s: no such field", path)
	}
}

// hasTest reports whether a test function is there: "NAME" in this package, or
// "DIR NAME".
func hasTest(t *testing.T, name string) bool {
	t.Helper()
	dir, fn, other := strings.Cut(name, " ")
	if !other {
		dir, fn = ".", name
	}
	if !strings.HasPrefix(fn, "Test") {
		return false
	}
	files, _ := filepath.Glob(dir + "/*_test.go")
	if len(files) == 0 { // the test runs without its sources
		return true
	}
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == fn {
				return true
			}
		}
	}
	return false
}

// TestAnnotations: they are told to whoever asks for the state.
func TestAnnotations(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.spec.Annotations = map[string]string{"org.example.key": "some value"}
	b.start()
	if out := b.must("state", b.id); !strings.Contains(out, `"org.example.key": "some value"`) {
		t.Errorf("%s", out)
	}
}

// TestRefusedHere: what this kernel or machine has not is refused by its name.
func TestRefusedHere(t *testing.T) {
	for name, c := range map[string]struct {
		has    func(s *specs.Spec) bool
		change func(s *specs.Spec)
		says   string
	}{
		"apparmor": {func(s *specs.Spec) bool { return oci.ReadMachine(s).AppArmor }, func(s *specs.Spec) { s.Process.ApparmorProfile = "some" }, `process.apparmorProfile "some"`},
		"selinux":  {func(s *specs.Spec) bool { return oci.ReadMachine(s).SELinux }, func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c" }, `process.selinuxLabel "a:b:c"`},
		"label":    {func(s *specs.Spec) bool { return oci.ReadMachine(s).SELinux }, func(s *specs.Spec) { s.Linux.MountLabel = "a:b:c" }, `linux.mountLabel "a:b:c"`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			c.change(b.spec)
			if c.has(b.spec) {
				t.Skip("this kernel has it")
			}
			if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, c.says) {
				t.Errorf("%+v, want %q", o, c.says)
			}
		})
	}
	t.Run("systemd", func(t *testing.T) {
		if _, err := os.Stat("/run/systemd/system"); err == nil {
			t.Skip("this machine has systemd")
		}
		b := newBox(t, "true")
		b.write()
		if o := b.do("--systemd-cgroup", "run", "--bundle", b.bundle, b.id); o.code != exitFailed || !strings.Contains(o.err, "systemd") {
			t.Errorf("%+v", o)
		}
	})
}

// TestMemoryPolicy: the program's memory comes from where it is said, or the
// field is refused where the kernel has no such thing.
func TestMemoryPolicy(t *testing.T) {
	b := newBox(t, "cat /proc/self/numa_maps; sleep 100")
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	if !oci.ReadMachine(b.spec).MemoryPolicy {
		if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, "linux.memoryPolicy") {
			t.Errorf("%+v", o)
		}
		return
	}
	path := b.start()
	awaitText(t, path, "bind:0")
	if out := proc("numa_maps")(t, b.state().PID); !strings.Contains(out, "bind:0") {
		t.Errorf("outside: %s", out)
	}
}
