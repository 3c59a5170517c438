package hard

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// refusal is a command line that cannot be met, and what must be said.
type refusal struct {
	flags string // of run, in words
	says  string // a pattern
}

// unserved is what is not there yet, and is refused by its flag.
func unserved() []refusal {
	return []refusal{
		{"--gpus all", `--gpus`},
		{"--link other", `--link`},
		{"--isolation hyperv", `--isolation`},
		{"--volumes-from other", `--volumes-from`},
		{"--volume-driver x", `--volume-driver`},
		{"--runtime runc", `--runtime`},
		{"-p 80:80", `--publish`},
		{"--publish-all", `--publish-all`},
		{"--dns 127.0.0.1", `--dns`},
		{"--annotation a=b", `--annotation`},
		{"--storage-opt size=1g", `--storage-opt`},
		{"--platform linux/nosuch", `--platform|platform`},
		{"-v named:/data", `named`},
		{"--pull always", `--pull`},
		{"--log-driver syslog", `syslog`},
		{"--log-opt labels=x", `labels`},
		{"--security-opt nosuch=1", `nosuch`},
	}
}

// impossible are fields and limits that cannot be: some the command line knows to
// be wrong, some the engine, and some only the kernel.
func impossible() []refusal {
	return []refusal{
		// Limits.
		{"-m 100", `memory.*(at least|minimum|6)`},
		{"-m 10m --memory-swap 5m", `swap`},
		{"--memory-swap 50m", `swap`},
		{"--memory-reservation 20m -m 10m", `reservation`},
		{"--memory-swappiness 101", `swappiness`},
		{"--cpus 4096", `[Cc][Pp][Uu]`},
		{"--cpus -1", `-1.*processors`},
		{"--cpu-quota 10", `quota`},
		{"--cpu-period 10", `period`},
		{"--cpuset-cpus 4095", `cpuset`},
		{"--cpuset-cpus x", `cpuset`},
		{"--cpuset-mems 1000", `cpuset`},
		{"--cpu-rt-runtime 99999999", `rt|realtime`},
		{"--pids-limit -2", `pids`},
		{"--blkio-weight 5", `weight`},
		{"--device-read-bps /nosuch:1mb", `nosuch`},
		{"--ulimit nofile=100:50", `nofile`},
		{"--ulimit nofile=999999999999", `NOFILE.*ask for less`},
		{"--ulimit nosuch=1", `nosuch`},
		{"--oom-score-adj 1001", `oom`},
		{"--shm-size -5", `shm`},

		// What is named must be there.
		{"--device /dev/nosuch", `/dev/nosuch`},
		{"--device-cgroup-rule nonsense", `nonsense`},
		{"--sysctl kernel.nosuch=1", `kernel.nosuch`},
		{"--sysctl kernel.panic=1", `kernel.panic`},
		{"--network host --sysctl net.ipv4.ip_forward=1", `net.ipv4.ip_forward`},
		{"--cap-add NOSUCH", `NOSUCH`},
		{"--user nosuch", `nosuch`},
		{"--user 99999999999", `99999999999`},
		{"--group-add nosuch", `nosuch`},
		{"--pid container:nosuch", `nosuch`},
		{"--ipc nonsense", `nonsense`},
		{"--uts nonsense", `nonsense`},
		{"--userns nonsense", `nonsense`},
		{"--cgroupns nonsense", `nonsense`},
		{"--cgroup-parent ../../other", `cgroup`},
		{"--hostname " + strings.Repeat("x", 80), `hostname|x{64}`},
		{"-v /nosuch-on-this-machine/x:/data:nosuch", `nosuch`},
		{"--mount type=bind,src=/nosuch-on-this-machine,dst=/x", `/nosuch-on-this-machine`},
		{"--tmpfs relative", `relative`},
		{"--tmpfs /x:nosuch=1", `nosuch`},
		{"--rm=false --restart sometimes", `sometimes`},
		{"--restart always --rm", `restart|--rm`},
		{"--stop-signal NOSUCH", `NOSUCH`},
		{"--health-interval 1ns", `1ms|interval`},
		{"--env-file /nosuch", `/nosuch`},
		{"--security-opt seccomp=/nosuch", `/nosuch`},
		{"--security-opt apparmor=nosuch-profile", `[Aa]pp[Aa]rmor`},
		{"--security-opt label=type:nosuch_t", `label|SELinux`},
	}
}

// TestRefused: each is refused by its name, with 125, at once, and leaves
// nothing behind.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, r := range append(unserved(), impossible()...) {
		args := append([]string{"run", "--rm"}, strings.Fields(r.flags)...)
		w.refused(125, "^gantry: .*("+r.says+")", append(args, "busybox", "true")...)
		if list := w.gantry("ps", "-aq"); list != "" {
			t.Errorf("%s: a container is left", r.flags)
			w.gantry("rm", "-f", list)
		}
	}
	w.over()
}

// TestProfileKillsTheInit: a filter that kills the program before it is one is an
// end that is told at once, not one that is waited for.
func TestProfileKillsTheInit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const late = `^gantry: the program was ended by SIGSYS: its seccomp profile`
	const unsaid = `^gantry: --security-opt seccomp: the profile does not let the program be executed`
	const early = `^gantry: --security-opt seccomp: the profile let the container's init be killed before its program ran`
	for _, p := range []struct {
		name, text string
		says       string // with the privileges that a filter may be loaded with early
		late       string // with no new ones: the filter is the last thing before the program
	}{
		{"kill", `{"defaultAction":"SCMP_ACT_KILL_PROCESS"}`, early, late},
		{"thread", `{"defaultAction":"SCMP_ACT_KILL_THREAD"}`, early, late},
		{"refuse", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1}`, early, unsaid},
		{"no-exec", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["execve","execveat"],"action":"SCMP_ACT_KILL_PROCESS"}]}`, late, late},
		{"nonsense", `{"defaultAction":"SCMP_ACT_NOSUCH"}`, "SCMP_ACT_NOSUCH", "SCMP_ACT_NOSUCH"},
		{"broken", `{`, "broken.*unexpected end of JSON", "broken.*unexpected end of JSON"},
	} {
		file := filepath.Join(t.TempDir(), p.name)
		w.must(os.WriteFile(file, []byte(p.text), 0o600))
		w.killsInit(p.name, p.says, "--security-opt", "seccomp="+file)
		w.killsInit(p.name, p.late, "--security-opt", "seccomp="+file, "--security-opt", "no-new-privileges")
	}
	w.over()
}

// killsInit runs a program under a profile that cannot be. One that strikes at the
// exec itself is an end by a signal, of which the cause is told if it is SIGSYS.
func (w *world) killsInit(name, says string, flags ...string) {
	w.t.Helper()
	s := w.call(append(append([]string{"run", "--rm"}, flags...), "busybox", "true")...)
	told := (s.code == 125 || s.code == 159) && s.stderr != "" && regexp.MustCompile(says).MatchString(s.stderr)
	if !told && (says != "" || s.code <= 128) {
		w.t.Errorf("profile %s %v: code %d after %v, it says %q", name, flags, s.code, s.took, s.stderr)
	}
}

// TestNoProgram: what cannot be executed is told as a shell tells it.
func TestNoProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, c := range []struct {
		code    int
		says    string
		program string
	}{
		{126, `/tmp.*(is a directory|permission denied)`, "/tmp"},
		{126, `/plain.*permission denied`, "/plain"},
		{127, `/etc/passwd/x.*not a directory`, "/etc/passwd/x"},
		{127, `/nosuch.*(no such file|not found)`, "/nosuch"},
		{127, `nosuch.*not found in \$PATH`, "nosuch"},
	} {
		w.refused(c.code, "^gantry: .*"+c.says, "run", "--rm", "busybox", c.program)
	}
	w.gantry("run", "-d", "--name", "web", "busybox", "sleep", "1000")
	for _, program := range []string{"/tmp", "/plain"} {
		w.refused(126, "^gantry: .*"+program, "exec", "web", program)
	}
	w.refused(127, "^gantry: .*nosuch", "exec", "web", "nosuch")
	for code, script := range map[int]string{3: "exit 3", 143: "kill -TERM $$", 137: "kill -KILL $$", 134: "kill -ABRT $$"} {
		if s := w.call("run", "--rm", "busybox", "sh", "-c", "sh -c '"+script+"'; exit $?"); s.code != code {
			t.Errorf("%s: code %d, want %d", script, s.code, code)
		}
		if s := w.call("exec", "web", "sh", "-c", script); s.code != code {
			t.Errorf("exec %s: code %d, want %d", script, s.code, code)
		}
	}
	w.over()
}

// TestHooks: a hook that is missing, fails or takes too long fails its container,
// by its name, and nothing is left. Hooks are the OCI runtime's: the engine has none.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil) // whose cgroups and processes must not be touched
	for _, stage := range []string{"prestart", "createRuntime", "createContainer", "startContainer"} {
		inside := stage == "startContainer" // it is looked for in the container
		for _, h := range []struct {
			hook map[string]any
			says string
		}{
			{map[string]any{"path": "/nosuch/hook"}, "/nosuch/hook"},
			{map[string]any{"path": "/tmp"}, "/tmp"},
			{map[string]any{"path": shell(inside), "args": []string{"sh", "-c", "echo it hurts >&2; exit 3"}}, "3"},
			{map[string]any{"path": shell(inside), "args": []string{"sh", "-c", "sleep 100"}, "timeout": 1}, "tim|sec"},
		} {
			s := w.oci(t, map[string]any{stage: []any{h.hook}})
			if s.code == 0 || !strings.Contains(s.stderr, stage) {
				t.Errorf("%s %v: code %d after %v, it says %q", stage, h.hook, s.code, s.took, s.stderr)
			}
			t.Logf("%s %v: %d %s", stage, h.hook["path"], s.code, s.stderr)
		}
	}
	w.over()
}

func shell(inside bool) string {
	if inside {
		return "/bin/sh"
	}
	return "/usr/bin/sh"
}

// oci runs a container with hooks by gantry-oci, and checks that it is gone.
func (w *world) oci(t *testing.T, hooks map[string]any) said {
	t.Helper()
	dir := t.TempDir()
	bundle, root := filepath.Join(dir, "bundle"), filepath.Join(dir, "state")
	w.must(os.MkdirAll(filepath.Join(bundle, "rootfs/bin"), 0o755))
	w.must(os.MkdirAll(filepath.Join(bundle, "rootfs/proc"), 0o755))
	busybox, err := os.ReadFile("/bin/busybox")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(bundle, "rootfs/bin/busybox"), busybox, 0o755))
	w.must(os.Symlink("busybox", filepath.Join(bundle, "rootfs/bin/sh")))
	config, err := json.Marshal(map[string]any{
		"ociVersion": "1.2.0",
		"root":       map[string]any{"path": "rootfs"},
		"process":    map[string]any{"args": []string{"/bin/sh", "-c", "exit 0"}, "cwd": "/", "env": []string{"PATH=/bin"}},
		"mounts":     []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":      map[string]any{"namespaces": []any{map[string]any{"type": "mount"}, map[string]any{"type": "pid"}}, "cgroupsPath": "/gantry-" + w.Name + "/hooked"},
		"hooks":      hooks,
	})
	w.must(err)
	w.must(os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600))
	s := w.command(filepath.Join(w.Bin, "gantry-oci"), "--root", root, "run", "--bundle", bundle, "hooked")
	left, err := filepath.Glob(filepath.Join(root, "*"))
	w.must(err)
	for _, pid := range w.Pids() {
		if group, _ := os.ReadFile(procFile(pid, "cgroup")); strings.Contains(string(group), "/hooked") {
			left = append(left, fmt.Sprint("process ", pid))
		}
	}
	if len(left) > 0 {
		t.Errorf("%v: these are left: %v", hooks, left)
	}
	return s
}
