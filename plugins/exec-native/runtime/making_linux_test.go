package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// held begins a creation that a hook holds up; goOn lets it go on and waits for the
// creation's end.
func held(t *testing.T, b *box, args ...string) (creation *exec.Cmd, goOn func()) {
	t.Helper()
	fifo, begun := filepath.Join(t.TempDir(), "fifo"), filepath.Join(t.TempDir(), "begun")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if b.spec.Hooks == nil {
		b.spec.Hooks = &specs.Hooks{}
	}
	b.spec.Hooks.CreateRuntime = []specs.Hook{
		{Path: "/bin/sh", Args: []string{"sh", "-c", `echo $$ > "$1"; read line < "$2"`, "sh", begun, fifo}, Env: []string{"PATH=/bin:/usr/bin"}},
	}
	b.write()
	cmd := b.command(append(args, "--bundle", b.bundle, b.id)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	awaitText(t, begun, "\n")
	return cmd, func() {
		if err := os.WriteFile(fifo, []byte("on\n"), 0); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestMaking: a container that is being made says so, and takes no programs yet:
// what they must not see may not be covered.
func TestMaking(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		then specs.ContainerState
	}{
		"create": {[]string{"create"}, specs.StateCreated},
		"run":    {[]string{"run", "--detach"}, specs.StateRunning},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "sleep 100")
			_, goOn := held(t, b, c.args...)
			if s := b.state(); s.Status != specs.StateCreating || s.PID == 0 {
				t.Errorf("while it is made: %+v", s)
			}
			if o := b.do("exec", b.id, "/bin/true"); o.code != execCode || !strings.Contains(o.err, "being created") {
				t.Errorf("exec: %+v", o)
			}
			if o := b.do("pause", b.id); o.code != exitFailed || !strings.Contains(o.err, "creating") {
				t.Errorf("pause: %+v", o)
			}
			if o := b.do("delete", b.id); o.code != exitFailed || !strings.Contains(o.err, "creating") {
				t.Errorf("delete: %+v", o)
			}
			goOn()
			if s := b.state(); s.Status != c.then {
				t.Errorf("afterwards: %+v", s)
			}
			b.must("exec", b.id, "/bin/true")
		})
	}
}

// TestDeleteWhileMade: a hook that hangs holds up nobody who deletes by force.
func TestDeleteWhileMade(t *testing.T) {
	b := newBox(t, "sleep 100")
	log := filepath.Join(t.TempDir(), "log")
	b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{logHook(log, "poststop", false)}}
	creation, _ := held(t, b, "create")
	b.must("delete", "--force", b.id)
	if err := creation.Wait(); err == nil {
		t.Error("the creation has succeeded")
	}
	if ran := wordsOf(log); ran != "poststop" {
		t.Errorf("hooks %q", ran)
	}
}

// TestLooksDoNotDisturb: who looks at a container neither hides its status from
// another who looks, nor keeps one from being made.
func TestLooksDoNotDisturb(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.write()
	g := &globals{root: b.root}
	stop := make(chan struct{})
	var looks sync.WaitGroup
	defer looks.Wait()
	defer close(stop)
	for range 2 {
		looks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c, err := load(g, b.id); err == nil {
					_, _ = c.status()
				}
			}
		})
	}
	for range 3 {
		b.must("create", "--bundle", b.bundle, b.id)
		for range 200 {
			c, err := load(g, b.id)
			if err != nil {
				t.Fatal(err)
			}
			if st, _ := c.status(); st != specs.StateCreated {
				t.Fatalf("status %s after create", st)
			}
		}
		b.must("delete", "--force", b.id)
	}
}

// TestKilledCreation kills the runtime once it has begun to make cgroups, sooner or
// later: whatever was there then goes with delete, which newBox looks for.
func TestKilledCreation(t *testing.T) {
	for round := range 12 {
		b := newBox(t, "sleep 100")
		b.write()
		cmd := b.command("create", "--bundle", b.bundle, b.id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end); { // busy: it is a matter of microseconds
			if _, err := os.Lstat(filepath.Join(b.root, b.id, stateFile)); err == nil {
				break
			}
		}
		for end := time.Now().Add(time.Duration(round) * 400 * time.Microsecond); time.Now().Before(end); {
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if o := b.do("list"); o.code != 0 || !strings.Contains(o.out, b.id) {
			t.Errorf("list: %+v", o)
		}
		o := b.do("delete", "--force", b.id)
		for end := time.Now().Add(time.Minute); o.code != 0 && time.Now().Before(end); { // an init that has not heard yet
			o = b.do("delete", "--force", b.id)
		}
		if o.code != 0 {
			t.Errorf("delete: %+v", o)
		}
		if out, _ := exec.Command("find", "/sys/fs/cgroup", "-name", b.id+"*").Output(); len(out) > 0 {
			t.Fatalf("round %d: cgroups left: %s", round, out)
		}
	}
}

// TestPausedBeforeStart: a container that waits to be started can be paused. Until it
// goes on nothing is begun that would hang.
func TestPausedBeforeStart(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.write()
	b.must("create", "--bundle", b.bundle, b.id)
	b.must("pause", b.id)
	if s := b.state(); s.Status != statusPaused || s.PID == 0 {
		t.Errorf("paused: %+v", s)
	}
	for command, code := range map[string]int{"start": exitFailed, "pause": exitFailed, "delete": exitFailed, "exec": execCode} {
		args := []string{command, b.id}
		if command == "exec" {
			args = append(args, "/bin/true")
		}
		if o := b.do(args...); o.code != code || !strings.Contains(o.err, "paused") {
			t.Errorf("%s: %+v", command, o)
		}
	}
	b.must("resume", b.id)
	if s := b.state(); s.Status != specs.StateCreated {
		t.Errorf("resumed: %+v", s)
	}
	b.must("start", b.id)
	if s := b.state(); s.Status != specs.StateRunning {
		t.Errorf("started: %+v", s)
	}
}

// TestWantedGroup: a group in which another container runs is neither written down as
// wanted nor touched.
func TestWantedGroup(t *testing.T) {
	other, b := newBox(t, "sleep 100"), newBox(t, "true")
	other.spec.Linux.CgroupsPath = "/" + other.id
	other.start()
	b.spec.Linux.CgroupsPath = other.spec.Linux.CgroupsPath
	if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, "in use") {
		t.Errorf("%+v", o)
	}
	tree, err := cgroup.ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	place, err := tree.At(other.spec.Linux.CgroupsPath)
	if err != nil {
		t.Fatal(err)
	}
	c := &creation{container: &container{dir: t.TempDir()}}
	if err := c.announce(tree, place); err != nil || len(c.Wanted) > 0 {
		t.Errorf("%v %v", c.Wanted, err)
	}
	if s := other.state(); s.Status != specs.StateRunning {
		t.Errorf("the other one: %+v", s)
	}
}

// TestStartKilled: a start that is killed once it has opened the gate leaves a running
// container, whatever it had still to do.
func TestStartKilled(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.write()
	b.must("create", "--bundle", b.bundle, b.id)
	if s := b.state(); s.Status != specs.StateCreated {
		t.Fatalf("after create: %s", s.Status)
	}
	conn, err := plan.OpenGate(t.Context(), filepath.Join(b.root, b.id), gateName)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for {
		rep, err := conn.Next(t.Context())
		if err != nil || rep.Err() != nil {
			t.Fatal(err, rep.Err())
		}
		if rep.Kind == plan.ReportRunning {
			break
		}
	}
	if _, err := os.Lstat(filepath.Join(b.root, b.id, gateName)); err != nil {
		t.Fatal(err) // there must be what a killed start has left
	}
	if s := b.state(); s.Status != specs.StateRunning {
		t.Errorf("after the start: %s", s.Status)
	}
	if o := b.do("start", b.id); o.code != 1 || !strings.Contains(o.err, "already running") {
		t.Errorf("a second start: %+v", o)
	}
}
