package core

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// inventory has a driver report what the world holds of its kind.
func (e *engine) inventory(driver string) {
	kind, name := splitDriver(driver)
	report := &ReportInventory{Kind: kind, Driver: name, Instance: "i"}
	for k := range e.held {
		f := strings.Fields(k)
		item := Item{Kind: f[0], Key: f[1], State: "held"}
		var owner string
		switch f[0] {
		case "layer", "rootfs":
			owner = "graphdriver/overlay"
		case "image":
			owner = "image/oci"
		case "exec":
			owner = "exec/native"
			item.Kind, item.State, item.Exec = "process", "running", f[3]
			fmt.Sscan(f[2], &item.Run)
		case "userns":
			owner = "exec/native"
		case "process":
			owner = "exec/native"
			fmt.Sscan(f[2], &item.Run)
			item.State = "running"
		case "network":
			owner = "net/" + e.s.netDriver(f[1])
		case "endpoint":
			owner = "net/" + e.s.netDriver(f[1])
			item.Network, item.Key = f[1], f[2]
			fmt.Sscan(f[3], &item.Run)
		}
		if owner == driver {
			report.Items = append(report.Items, item)
		}
	}
	e.deliver(report)
}

func (s *State) netDriver(id string) string {
	if n := s.Networks[NetworkID(id)]; n != nil {
		return n.Driver
	}
	return "bridge"
}

func TestInventoryOfWhatTheLogNeverKnew(t *testing.T) {
	e := newEngine(t)
	e.held["layer sha256:stray"] = true
	e.held["rootfs "+string(ctrID("x"))] = true
	e.held[fmt.Sprintf("endpoint %s %s 3", netID("bridge"), ctrID("x"))] = true
	e.held["network "+string(netID("gone"))] = true
	e.held[fmt.Sprintf("process %s 1", ctrID("x"))] = true
	for _, d := range []string{"graphdriver/overlay", "net/bridge", "exec/native"} {
		e.inventory(d)
	}
	e.settle()
	want := []string{fmt.Sprintf("process %s 1", ctrID("x")), "rootfs " + string(ctrID("x"))}
	if fmt.Sprint(keys(e.held)) != fmt.Sprint(want) {
		t.Fatalf("left: %q, want the quarantined %q alone", keys(e.held), want)
	}
	if len(e.s.Strays) != 2 {
		t.Fatalf("quarantined: %v, want the process and the root filesystem", e.s.Strays)
	}
}

// TestInventoryOfStraysBesideARun gives back what an exec driver holds of a container
// that does not have it: an exec, a user namespace. Those that it has stay.
func TestInventoryOfStraysBesideARun(t *testing.T) {
	l := newLives(t, nil)
	e := newEngine(t)
	e.s, e.held = l.s, l.w.held
	id := ctrID("c1")
	l.job(&CreateContainer{
		ID: id, Name: "c1", Image: "docker.io/library/a:latest", Want: Running,
		Spec: Spec{Process: Process{Cmd: []string{"true"}}, Network: NetworkSpec{Network: "none"}, Security: Security{UserNS: "private"}},
	})
	l.job(&ExecContainer{ID: id, Exec: execID("e1"), Spec: ExecSpec{Args: []string{"true"}}})
	e.jobs, e.clock = l.n+100, l.clock
	before := fmt.Sprint(keys(e.held))
	e.inventory("exec/native")
	e.settle()
	if now := fmt.Sprint(keys(e.held)); now != before {
		t.Fatalf("what the container has changed from\n%s to\n%s", before, now)
	}
	e.held[execKey(id, 1, execID("e2"))] = true
	e.held["userns "+string(ctrID("x"))] = true
	e.inventory("exec/native")
	e.settle()
	if now := fmt.Sprint(keys(e.held)); now != before {
		t.Fatalf("strays: held\n%s want\n%s", now, before)
	}
}

// TestDisabledDriverDoesNotStart refuses an instance that a cancelled step has
// started: the end of the one before would otherwise be taken for its end, and its
// results be refused ever after.
func TestDisabledDriverDoesNotStart(t *testing.T) {
	e := newEngine(t)
	if _, err := e.job(&DisableDriver{"image/oci"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.send(&ReportDriver{Driver: "image/oci", Instance: "late"}); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("an instance of a disabled driver: %v", err)
	}
	e.settle()
	if _, err := e.job(&EnableDriver{"image/oci"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.send(&ReportDriver{Driver: "image/oci", Instance: "new"}); err != nil || e.s.Drivers["image/oci"].Instance != "new" {
		t.Fatalf("an instance of an enabled driver: %v", err)
	}
}

// TestAnInventoryOfBeforeIsNotTheWholeTruth: a driver is asked what it holds, for a
// load that was taken back, while another load ends. Its image is not lost although it
// is not in the answer; one that was held before the question is.
func TestAnInventoryOfBeforeIsNotTheWholeTruth(t *testing.T) {
	s := newScript(t)
	s.play("load old\n\nsettle\n\nload late\n\ncancel")
	asked := s.owing("load/reconcile").ID()
	s.play("load new\n\nstep load/read")
	s.deliver(&ReportInventory{Kind: "image", Driver: "oci", Instance: "i", Since: asked.Turn()})
	if i := s.s.Images[loaded("old").ID]; i.Store.State != Unsure {
		t.Errorf("what was there before the question, and is not: %+v", i.Store)
	}
	if i := s.s.Images[loaded("new").ID]; i.Store.State != Held {
		t.Errorf("what has come since the question: %+v", i.Store)
	}
}

// TestALoadThatWasTakenBackIsLookedAfterWhenNobodyReads: what the driver holds beside
// another reading may be that one's, and what the first has left would stay for ever.
func TestALoadThatWasTakenBackIsLookedAfterWhenNobodyReads(t *testing.T) {
	s := newScript(t)
	s.play("load late\n\nlose load/read\n\ncancel\n\nload new")
	look := func() {
		for _, st := range s.s.Owed() {
			if st, ok := st.(Reconcile); ok {
				s.inventory("image/oci")
				s.finish(st)
			}
		}
	}
	look()
	s.play("step load/read")
	look()
	s.settle()
	s.atRest()
}

// TestALostRunAndItsUserNamespace: with a run its user namespace may be gone, too; what
// follows by the container's policy is not made in what is not there.
func TestALostRunAndItsUserNamespace(t *testing.T) {
	s := newScript(t)
	s.play("load a\n\nsettle")
	id := s.container("c1")
	s.wish(&CreateContainer{
		ID: id, Name: "c1", Image: "docker.io/library/a:latest", Want: Running,
		Spec: Spec{Process: Process{Cmd: []string{"true"}}, Security: Security{UserNS: "private"}, Restart: Restart{Policy: restartAlways}},
	})
	s.settle()
	delete(s.held, fmt.Sprintf("process %s 1", id))
	delete(s.held, "userns "+string(id))
	s.inventory("exec/native")
	s.settle()
	if c := s.s.Containers[id]; !c.Running() || c.Process.Run == 1 || c.Fault != nil {
		t.Errorf("the container is %s: run %d, %+v", c.Status(), c.Process.Run, c.Fault)
	}
	s.atRest()
}
