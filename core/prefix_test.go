package core

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// stories are the logs that the scripts leave.
func stories(t *testing.T) map[string]*script {
	t.Helper()
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*script{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := newScript(t)
		s.play(string(data))
		all[filepath.Base(file)] = s
	}
	return all
}

// resume is an engine that finds the first n events of a log and a world that
// holds what they say.
func resume(t *testing.T, from *script, n int) *engine {
	e := &engine{t: t, s: NewState(), clock: from.clock, jobs: from.jobs + 1000, world: newWorld(t)}
	e.images = from.images
	e.knowExits()
	for _, ev := range from.log[:n] {
		e.s.Apply(ev)
		e.log = append(e.log, ev)
	}
	maps.Copy(e.held, heldBy(e.s))
	for id, c := range e.s.Containers {
		e.stuck[id] = c.Stuck != nil && c.Stuck.Step.slotName() == freezerSlot
	}
	return e
}

// frameEnds are the lengths at which a log can end: frames are atomic, so a
// prefix never ends inside of one.
func frameEnds(log []Event) []int {
	var ends []int
	for i := 1; i <= len(log); i++ {
		if i == len(log) || !log[i].Head().Time.Equal(log[i-1].Head().Time) {
			ends = append(ends, i)
		}
	}
	return ends
}

// TestEveryPrefix kills the engine after every frame of every story: what is
// left is folded and finished. Once as it stands; once for each owed step with
// the step done and its result lost; each also with stop or remove as the first
// command after the restart.
func TestEveryPrefix(t *testing.T) {
	for name, story := range stories(t) {
		t.Run(name, func(t *testing.T) {
			for _, n := range frameEnds(story.log) {
				steps := len(resume(t, story, n).s.Owed())
				for lost := -1; lost < steps; lost++ {
					for _, first := range []string{"", "stop", "remove"} {
						carryOn(t, story, n, lost, first)
					}
				}
			}
		})
	}
}

func carryOn(t *testing.T, story *script, n, lost int, first string) {
	e := resume(t, story, n)
	defer func() {
		if t.Failed() {
			t.Logf("cut after event %d, lost step %d, first command %q", n, lost, first)
		}
	}()
	if lost >= 0 {
		st := e.s.Owed()[lost]
		if _, load := st.(LoadArchive); !load { // it may be told anew only by the same archive
			e.do(st)
		}
	}
	for id, c := range e.s.Containers {
		switch first {
		case "stop":
			e.try(&StopContainer{ID: id})
		case "remove":
			if _, err := e.job(&RemoveContainer{ID: id, Force: true}); err != nil {
				t.Fatalf("remove %s: %v", c.Name, err)
			}
		}
	}
	for d := range e.s.Drivers {
		e.try(&EnableDriver{d})
	}
	e.settle()
	e.atRest()
	if first == "remove" {
		e.removeAll()
	}
}

// TestEveryFailure plays every story with one step of it failing, half done;
// every report is delivered twice anyway. Afterwards nothing is held that the
// log does not tell, and everything can be removed.
func TestEveryFailure(t *testing.T) {
	for name, story := range stories(t) {
		t.Run(name, func(t *testing.T) {
			for _, n := range frameEnds(story.log) {
				for i := range resume(t, story, n).s.Owed() {
					e := resume(t, story, n)
					st := e.s.Owed()[i]
					if len(acquires(st)) > 0 {
						e.do(st) // half done
					}
					e.deliver(&FinishStep{Step: st.ID(), Fault: &Fault{Class: "internal", Message: "it broke"}})
					for d := range e.s.Drivers {
						e.try(&EnableDriver{d})
					}
					e.settle()
					e.atRest()
					e.removeAll()
					if t.Failed() {
						t.Fatalf("step %s failed after event %d", st.ID(), n)
					}
				}
			}
		})
	}
}
