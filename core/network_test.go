package core

import "testing"

// TestANetworkOutlivesAFailureToMakeItAgain: what was lost with the machine's restart,
// or to a driver's fault, is made again; if that fails, it is tried with the next
// start, and not forgotten.
func TestANetworkOutlivesAFailureToMakeItAgain(t *testing.T) {
	s := newScript(t)
	s.play("load app\n\nsettle\n\nnetwork web\n\nsettle\n\ncreate c1 app running net=web restart=always\n\nsettle\n\n" +
		"create c2 app running net=web\n\nsettle\n\nstop c2\n\nsettle")
	if _, err := s.send(startEngine("boot-2")); err != nil {
		t.Fatal(err)
	}
	s.command([]string{"fail", "web/network/create", "unavailable"})
	s.settle()
	n := s.s.Networks[netID("web")]
	if n == nil || n.Want != Present {
		t.Fatalf("the network is gone: %+v", n)
	}
	if _, err := s.s.FindNetwork("web"); err != nil {
		t.Fatal(err)
	}
	if c := s.s.Containers[ctrID("c1")]; !c.Running() {
		t.Fatalf("its policy does not start c1 again:\n%s", s.story(c.ID.noun()))
	}
	if n.Slot.State != Held {
		t.Fatalf("the network is %q", n.Slot.State)
	}
	s.wish(&StartContainer{ID: ctrID("c2")})
	s.settle()
	if !s.s.Containers[ctrID("c2")].Running() {
		t.Fatal("c2 does not start")
	}
	s.atRest()
	s.removeAll()
}
