package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// talker counts until it is told to end, and then says so.
const talker = `trap 'echo bye; exit 9' TERM; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.02; done`

// TestSurvive: containers that were started before live on when everything else
// is killed. After the restart their logs are whole, stop works, and their exit
// codes arrive, also one of an end that nobody was there to see.
func TestSurvive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rig.Options{})
	w.load()
	w.takeStock()
	stays, ends := w.container(talker), w.container("echo begun; until [ -e /end ]; do sleep 0.02; done; echo done; exit 33")
	for _, c := range []*core.CreateContainer{stays, ends} {
		w.must(w.client.Do(w.within(), c))
	}
	before, err := w.client.Container(w.within(), string(stays.ID))
	w.must(err)
	unseen, err := w.client.Container(w.within(), string(ends.ID))
	w.must(err)
	w.lines(stays.ID, 5)
	running := w.inventory()
	busy(t, w.empty, running)

	for _, s := range strikes() {
		if s.engine || s.shim {
			continue
		}
		if !w.hitLater(s) && !strings.HasPrefix(s.name, "image") { // nothing needs that one
			t.Errorf("%s: there was nothing to hit", s.name)
		}
		now := w.lines(stays.ID, 0)
		w.lines(stays.ID, now+3)
	}
	w.must(w.Kill())
	for _, s := range strikes() { // the drivers live on a moment without their host
		if !s.engine && !s.shim {
			_, err := s.hit(w)
			w.must(err)
		}
	}
	w.letEnd(unseen.PID)
	w.restart()

	d := w.ended(ends.ID, nil)
	if d.Exit == nil || d.Exit.Code != 33 || d.Exit.Lost {
		t.Errorf("an end that nobody was there to see was told as %+v", d.Exit)
	}
	if out, err := w.client.Logs(w.within(), string(ends.ID)); err != nil || string(out) != "begun\ndone\n" {
		t.Errorf("its log is %q, %v", out, err)
	}
	after, err := w.client.Container(w.within(), string(stays.ID))
	w.must(err)
	if !after.Running || after.PID != before.PID || after.Run != before.Run {
		t.Errorf("the container that stays is now %+v, was %+v", after.Container, before.Container)
	}
	now := w.lines(stays.ID, 0)
	w.lines(stays.ID, now+3)
	w.must(w.client.Do(w.within(), &core.StopContainer{ID: stays.ID}))
	d = w.ended(stays.ID, nil)
	if d.Exit == nil || d.Exit.Code != 9 {
		t.Errorf("the stopped container ended as %+v: want 9", d.Exit)
	}
	out, err := w.client.Logs(w.within(), string(stays.ID))
	w.must(err)
	if !strings.HasSuffix(string(out), "\nbye\n") {
		t.Errorf("the log does not end as the program did: %q", out[max(0, len(out)-40):])
	}
	w.holds()
	w.gone(stays.ID)
	w.gone(ends.ID)
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
}

// letEnd tells a container's program to end, past the engine, and waits for it.
func (w *world) letEnd(pid int) {
	w.t.Helper()
	w.must(os.WriteFile(fmt.Sprintf("/proc/%d/root/end", pid), nil, 0o600))
	for end := time.Now().Add(limit); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal("the container does not end without an engine")
		}
	}
}

// hitLater strikes as soon as there is something to hit: a driver that was
// killed is started again, but for one that nothing needs.
func (w *world) hitLater(s strike) bool {
	w.t.Helper()
	patience := limit
	if strings.HasPrefix(s.name, "image") {
		patience = time.Second
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		hit, err := s.hit(w)
		w.must(err)
		if hit {
			return true
		}
	}
	return false
}

// lines waits until a container's log has so many lines, and checks that none
// is missing. It returns how many there are.
func (w *world) lines(id core.ContainerID, least int) int {
	w.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		out, err := w.client.Logs(w.within(), string(id))
		if err == nil {
			got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
			for i, line := range got {
				if want := "line " + strconv.Itoa(i+1); line != want && line != "" {
					w.t.Fatalf("line %d of the log is %q, want %q", i+1, line, want)
				}
			}
			if len(got) >= least {
				return len(got)
			}
		}
		if time.Now().After(end) {
			w.t.Fatalf("the log has not %d lines: %v", least, err)
		}
	}
}

// TestRestartAgain kills the engine right after each start, again and again,
// while a container is wanted.
func TestRestartAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rig.Options{})
	w.load()
	w.takeStock()
	c := w.container("echo begun; sleep 0.3; echo done; exit 7")
	_, err := w.client.Send(w.within(), rig.NewJob(), c)
	w.must(err)
	for range 8 {
		w.must(w.Kill())
		w.must(w.Start())
	}
	w.connect()
	d := w.ended(c.ID, nil)
	if d.Exit == nil || d.Exit.Code != 7 || d.Exit.Run != 1 {
		t.Errorf("the run ended as %+v, fault %+v: want 7 in run 1", d.Exit, d.Fault)
	}
	if out, err := w.client.Logs(w.within(), string(c.ID)); err != nil || string(out) != "begun\ndone\n" {
		t.Errorf("the log is %q, %v: the program must have run once", out, err)
	}
	w.gone(c.ID)
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
}
