package core

import (
	"strings"
	"testing"
)

// TestACancelledLoadLeavesWhatContainersStandOn: layers that were lost are unpacked
// again by a load of the same archive; who takes that load back does not want the
// image gone that was there before it.
func TestACancelledLoadLeavesWhatContainersStandOn(t *testing.T) {
	s := newScript(t)
	s.play("load app\n\nsettle\n\ncreate c1 app running\n\nsettle\n\nexit c1 0\n\nsettle")
	for key := range s.held {
		if strings.HasPrefix(key, "layer ") {
			delete(s.held, key)
		}
	}
	s.play("inventory graphdriver/overlay\n\nload app\n\nstep load/read\n\ncancel\n\nsettle")
	image, err := s.s.FindImage("docker.io/library/app:latest")
	if err != nil || !image.Ready {
		t.Fatalf("the image that c1 stands on: %+v, %v\n%s", image, err, s.story(loaded("app").ID.noun()))
	}
	s.wish(&StartContainer{ID: ctrID("c1")})
	s.settle()
	if !s.s.Containers[ctrID("c1")].Running() {
		t.Fatal("c1 does not start")
	}
	s.atRest()
	s.removeAll()
}
