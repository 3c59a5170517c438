package core

import (
	"slices"
	"testing"
)

// TestTheLogGoesOn: the next run's log begins where the last run's output ended, if
// the log could not take its end.
func TestTheLogGoesOn(t *testing.T) {
	l := newLives(t, nil)
	var begun []uint64
	l.answer = func(st Step) Result {
		if s, ok := st.(StartProcess); ok {
			begun = append(begun, s.LogEnd)
		}
		return l.w.do(st)
	}
	id := ctrID("c1")
	l.job(&CreateContainer{
		ID: id, Name: "c1", Image: "docker.io/library/a:latest", Want: Running,
		Spec: Spec{Process: Process{Cmd: []string{"true"}}, Network: NetworkSpec{Network: "none"}},
	})
	for i, end := range []uint64{900, 0, 1 << 40} {
		l.send(&ReportExit{Container: id, Run: uint64(i + 1), LogEnd: end, Time: l.clock}, "")
		l.job(&StartContainer{ID: id})
	}
	if want := []uint64{0, 900, 0, 1 << 40}; !slices.Equal(begun, want) {
		t.Errorf("the runs' logs begin behind %v, want %v", begun, want)
	}
}
