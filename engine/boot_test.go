package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
)

// After a restart of the machine containers with a policy start again, whoever is
// needed by another before it; what was made on the machine is made anew, and what
// was stopped by hand stays so.
func TestAfterARestartOfTheMachine(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	always := core.Restart{Policy: "always"}
	base := create(2, "base", core.Running)
	base.Spec.Restart = always
	w.say("container.create", base)
	w.settle()
	guest := create(1, "guest", core.Running) // its id comes first, and its start does not
	guest.Spec.Restart = always
	guest.Spec.Security.PID = "container:" + hexOf(2)
	w.say("container.create", guest)
	byHand := create(3, "by-hand", core.Running)
	byHand.Spec.Restart = core.Restart{Policy: "unless-stopped"}
	w.say("container.create", byHand)
	w.say("container.create", create(4, "plain", core.Running))
	w.settle()
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(3))})
	w.settle()
	w.exit(3, 1, 143)
	w.settle()
	for n, want := range map[int]bool{1: true, 2: true, 3: false, 4: true} {
		if got := w.container(n).Running(); got != want {
			t.Fatalf("before: container %d runs: %v", n, got)
		}
	}
	before := len(w.host.sent)
	w.boot = "boot-2"
	w.open()
	w.settle()
	w.pass(2 * time.Second)
	var started []string
	for _, s := range w.host.sent[before:] {
		if s.Verb == "container.start-process" {
			started = append(started, core.StepID(s.ID).Noun().ID)
		}
	}
	if want := []string{hexOf(2), hexOf(1)}; !slices.Equal(started, want) {
		t.Errorf("started %v, want base and then guest", started)
	}
	if !slices.ContainsFunc(w.host.sent[before:], func(s bus.Step) bool { return s.Verb == "network.create" }) {
		t.Error("the bridge was not made again")
	}
	for n, want := range map[int]string{1: "running", 2: "running", 3: "exited", 4: "exited"} {
		if got := w.container(n).Status(); got != want {
			t.Errorf("container %d is %s, want %s", n, got, want)
		}
	}
	w.atRest()
}
