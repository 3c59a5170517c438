package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

const victimVariable = "GANTRY_TEST_VICTIM"

// victim is what the killed driver process is told.
type victim struct {
	Config  driver.Config
	Network netdriver.Network
	First   uint64 // run
	Stay    bool   // attach once, then wait to be killed
	Confine bool   // give up the capabilities that the driver host takes away
	UserNS  netdriver.Namespace
}

// runVictim is the driver process that is killed: it attaches and detaches
// until that happens. TestMain calls it.
func runVictim(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	if v.Confine {
		v.Confine = false
		return confined(v)
	}
	d, err := New(v.Config)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for run := v.First; ; run++ {
		r := request4(v.Network, "c1", 2)
		r.Run, r.UserNS = run, v.UserNS
		if v.Stay {
			r.MAC = "02:00:00:00:00:55" // announced by a packet socket
		}
		ep, err := d.Attach(ctx, r)
		if err != nil {
			return err
		}
		if run == v.First {
			fmt.Println("attached", ep.Namespace.Path)
		}
		if v.Stay {
			_, err := io.Copy(io.Discard, os.Stdin) // the test's end
			return err
		}
		if err := d.Detach(ctx, r.EndpointKey); err != nil {
			return err
		}
	}
}

// confined executes the victim again with what a net driver may have.
func confined(v victim) error {
	runtime.LockOSThread()
	keep := map[int]bool{
		unix.CAP_NET_ADMIN: true, unix.CAP_NET_RAW: true, unix.CAP_SYS_ADMIN: true, unix.CAP_SYS_PTRACE: true,
		unix.CAP_DAC_OVERRIDE: true, unix.CAP_CHOWN: true, unix.CAP_FOWNER: true, unix.CAP_KILL: true,
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.Setenv(victimVariable, string(data)); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", []string{"driver"}, os.Environ())
}

// start runs a victim and returns once it has attached; before is called with
// its pid while it waits to be let go.
func start(t *testing.T, v victim, before func(pid int)) *exec.Cmd {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	// The shell waits for a line, so that its cgroup is settled before.
	cmd := exec.Command("/bin/sh", "-c", `read line; exec /proc/`+fmt.Sprint(os.Getpid())+`/exe`)
	cmd.Env = append(os.Environ(), victimVariable+"="+string(data))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	before(cmd.Process.Pid)
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	var path string
	if _, err := fmt.Fscanf(out, "attached %s\n", &path); err != nil {
		t.Fatalf("the victim did not attach: %v", err)
	}
	return cmd
}

// A driver is killed at random moments of attach and detach. What its
// successor lists must be whole, and all of it can be given back.
func TestDriverKilled(t *testing.T) {
	e := newEngine(t, "killed")
	n := e.network("aa11", "10.80.1.0/24", nil)
	peer := e.attach(n, "c9", 9, nil)
	listen(t, peer.Namespace)
	e.holder.close() // the victim's turn
	held, half := 0, 0
	for round := range 25 {
		v := victim{Config: e.cfg, Network: n, First: uint64(round*100000 + 1)}
		cmd := start(t, v, func(int) {})
		time.Sleep(time.Duration(rand.IntN(9000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		e.open(e.cfg)
		items, err := e.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ports := len(ownLinks(t)) - 1
		for _, it := range items {
			if it.Kind != "endpoint" || it.Key != "c1" {
				continue
			}
			held++
			ep := e.attach(n, "c1", 2, func(r *netdriver.Attach) { r.Run = it.Run })
			if ep.Namespace.Inode != it.Inode {
				t.Errorf("round %d: attached to %d, listed %d", round, ep.Namespace.Inode, it.Inode)
			}
			mustReach(t, ep.Namespace, "10.80.1.9", "10.80.1.2")
			e.detach(n, "c1", it.Run)
			ports--
		}
		if ports > 1 {
			half++
		}
		runs, err := filepath.Glob(filepath.Join(e.cfg.Run, "c1-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range runs { // files of a detach that did not finish: it is owed still
			var run uint64
			if _, err := fmt.Sscanf(filepath.Base(r), "c1-%d", &run); err != nil {
				t.Fatal(err)
			}
			e.detach(n, "c1", run)
		}
		e.holder.close()
	}
	t.Logf("25 rounds: %d endpoints whole, %d rounds with a link of none", held, half)
	waitFor(t, "half-made links to go", func() bool { return len(ownLinks(t)) == 2 })
	if left, _ := filepath.Glob(filepath.Join(e.cfg.Run, "c1-*")); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
}

// The holder leaves the driver's cgroup, so that killing that spares it.
func TestHolderLeavesTheCgroup(t *testing.T) {
	e := newEngine(t, "cgroup")
	root := "/sys/fs/cgroup/pids"
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		root = "/sys/fs/cgroup"
	}
	parent := fmt.Sprintf("/gantry-bridge-test-%d", os.Getpid())
	for _, dir := range []string{parent, parent + "/driver"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e.cfg.Cgroup = parent
	n := e.network("aa11", "10.81.1.0/24", nil)
	cmd := start(t, victim{Config: e.cfg, Network: n, First: 1, Stay: true}, func(pid int) {
		procs := filepath.Join(root, parent, "driver", "cgroup.procs")
		if err := os.WriteFile(procs, []byte(fmt.Sprint(pid)), 0); err != nil {
			t.Fatal(err)
		}
	})
	if err := e.holder.connect(false); err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", e.holder.pid))
	if err != nil || !strings.Contains(string(cgroup), parent+"/shims\n") || strings.Contains(string(cgroup), parent+"/driver") {
		t.Errorf("the holder's cgroups: %s, %v", cgroup, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if items, err := e.List(t.Context()); err != nil || len(items) != 2 {
		t.Errorf("after the driver's end: %+v, %v", items, err)
	}
	e.end()
	for _, dir := range []string{parent + "/driver", parent + "/shims", parent} {
		waitFor(t, "cgroup "+dir+" to be empty", func() bool { return os.Remove(filepath.Join(root, dir)) == nil })
	}
	e.open(e.cfg)
}

// The driver host leaves a net driver eight capabilities: they must do.
func TestConfinedDriver(t *testing.T) {
	e := newEngine(t, "confined")
	n := e.network("aa11", "10.82.1.0/24", nil)
	_, user := userNamespace(t)
	for i, owner := range []netdriver.Namespace{{}, user} {
		if err := e.holder.quit(); err != nil { // the confined one starts it
			t.Fatal(err)
		}
		v := victim{Config: e.cfg, Network: n, First: uint64(i + 1), Stay: true, Confine: true, UserNS: owner}
		cmd := start(t, v, func(int) {})
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil || !strings.Contains(string(status), "CapEff:\t000000000028302b\n") {
			t.Errorf("the driver's capabilities: %s, %v", status, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		items, err := e.List(t.Context())
		if err != nil || len(items) != 2 {
			t.Fatalf("list: %+v, %v", items, err)
		}
		last := items[1]
		ns := netdriver.Namespace{Mode: netdriver.NamespacePath, Path: last.Namespace, Inode: last.Inode}
		peer := e.attach(n, "c9", 9, nil)
		listen(t, peer.Namespace)
		mustReach(t, ns, "10.82.1.9", "10.82.1.2")
		e.detach(n, "c1", last.Run)
		e.detach(n, "c9", 1)
	}
}
