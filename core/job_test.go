package core

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"
)

// jobAt is an id as it is made at t, n of them in one millisecond.
func jobAt(t time.Time, n int) JobID {
	id := lastJobAt(t)
	return id[:len(id)-12] + JobID(sprintf("%012x", n))
}

// clocked sends a create at the engine's time, under an id made at another one.
func (e *engine) clocked(made time.Time, n int) (JobID, error) {
	id := jobAt(made, n)
	_, err := e.request(Request{
		Command: &EnableDriver{Driver: "net/bridge"}, Job: id, Digest: "d", Actor: Actor{UID: 1000}, Time: e.clock,
	})
	return id, err
}

// TestAClockThatWasAheadRefusesNothing: ids carry the time of whoever made them. One
// from the future, or a whole time in which the machine's clock was ahead, does not
// have everything refused that comes afterwards.
func TestAClockThatWasAheadRefusesNothing(t *testing.T) {
	forget := func(e *engine, after time.Duration) {
		e.clock = e.clock.Add(after)
		if events, err := e.send(&ForgetJobs{}); err != nil || len(events) != 1 {
			t.Fatalf("%v %v", events, err)
		}
	}
	for name, mishap := range map[string]func(e *engine){
		"a client's": func(e *engine) {
			if _, err := e.clocked(e.clock.AddDate(20, 0, 0), 1); err != nil {
				t.Fatal(err)
			}
			forget(e, 2*JobsKeptFor)
		},
		"the machine's": func(e *engine) {
			e.clock = e.clock.AddDate(20, 0, 0)
			if _, err := e.clocked(e.clock, 1); err != nil {
				t.Fatal(err)
			}
			forget(e, 2*JobsKeptFor)
			e.clock = e.clock.AddDate(-20, 0, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			mishap(e)
			made := e.clock
			old, err := e.clocked(made, 2)
			if err != nil {
				t.Fatalf("a new command is refused: %v", err)
			}
			// And the bound stands again, by the clock that is right.
			forget(e, 2*JobsKeptFor)
			if _, err := e.clocked(made, 2); !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("%s, which was forgotten, is not refused: %v", old, err)
			}
			if _, err := e.clocked(e.clock, 3); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestLastJobAt: the ids that others make at a time are not above it.
func TestLastJobAt(t *testing.T) {
	for range 100 {
		id := JobID(uuid.Must(uuid.NewV7()).String())
		sec, nsec := uuid.MustParse(string(id)).Time().UnixTime()
		made := time.Unix(sec, nsec)
		if id > lastJobAt(made) || id <= lastJobAt(made.Add(-time.Millisecond)) || !isUUIDv7(string(lastJobAt(made))) {
			t.Fatalf("%s was made at %v, whose last is %s", id, made, lastJobAt(made))
		}
	}
}
