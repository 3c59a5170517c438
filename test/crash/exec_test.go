package crash

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/test/rig"
)

// execPoints are the named points of an exec, in their order.
func execPoints() []string {
	return []string{
		"container.exec-wanted", "container.exec-started", "container.exec-exited", "container.exec-released",
	}
}

// execScript marks in the container's own log that it has run, writes, and ends
// with 7.
const execScript = "echo ran > /proc/1/fd/1; echo begun; sleep 0.05; echo done; exit 7"

// TestExec hurts at every point of an exec, in every way. One that was hurt runs
// once, ends with its code, which is told also afterwards, whoever is attached to it
// has all its output, and nothing of it is left.
func TestExec(t *testing.T) {
	for _, s := range strikes() {
		if !s.engine && !s.shim && !strings.HasPrefix(s.name, "exec") {
			continue // have no part in it
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rig.Options{})
			w.load()
			w.takeStock()
			for _, point := range execPoints() {
				if hit := w.hurtExec(s, point); !hit {
					t.Errorf("point %s was never hit", point)
				}
				if !s.engine { // a driver that dies too often is waited for longer and longer
					w.must(w.Stop())
					w.restart()
				}
			}
		})
	}
}

// hurtExec runs an exec in a container of its own, and strikes once.
func (w *world) hurtExec(s strike, point string) bool {
	w.t.Helper()
	c := w.container("")
	c.Spec.Process.Cmd = []string{"sleep", "1000"}
	w.must(w.client.Do(w.within(), c))
	w.must(w.client.Agrees(w.within(), w.Engine)) // nothing is on its way
	before := w.inventory()
	busy(w.t, w.empty, before)
	x := core.ExecID(rig.NewID())
	k := w.strikeAt(s, bus.Filter{Noun: core.KindContainer, ID: string(c.ID)}, point, 0)
	output := w.follow(query.AttachIn{Ref: string(c.ID), Exec: x})
	w.insist(k, &core.ExecContainer{
		ID: c.ID, Exec: x, Attach: true, Spec: core.ExecSpec{Args: []string{"sh", "-c", execScript}},
	})
	d := w.execEnded(x, k)
	select {
	case <-k.done:
	case <-time.After(limit):
		w.t.Fatalf("%s: the point did not come", point)
	}
	w.must(k.err)
	if s.engine {
		w.connect()
	}
	said := <-output
	if s.shim && point != "container.exec-released" {
		// The container's shim dies, too, and its program with it: the exec found nothing to
		// join, or its own shim lived long enough to see the kernel kill it, or to see it
		// write where nobody reads any more.
		told := d.Exit == nil && d.Fault != nil
		if e := d.Exit; e != nil {
			told = e.Lost || e.Code == 7 || e.Signal == int(syscall.SIGKILL) || e.Signal == int(syscall.SIGPIPE)
		}
		if !told {
			w.t.Errorf("its shim was killed, and the exec ended as %+v, fault %+v", d.Exit, d.Fault)
		}
	} else {
		if d.Exit == nil || d.Exit.Code != 7 || d.Exit.Lost || d.Fault != nil {
			w.t.Errorf("%s at %s: the exec ended as %+v, fault %+v: want 7", s.name, point, d.Exit, d.Fault)
		}
		if said.output != "begun\ndone\n" || said.exit.Code != 7 {
			w.t.Errorf("%s at %s: whoever was attached got %q and %+v (%v)", s.name, point, said.output, said.exit, said.err)
		}
		if out, err := w.client.Logs(w.within(), string(c.ID)); err != nil || string(out) != "ran\n" {
			w.t.Errorf("%s at %s: the program has run as %q tells (%v)", s.name, point, out, err)
		}
	}
	w.must(w.client.Settle(w.within()))
	if !s.shim {
		w.is(before)
	}
	w.gone(c.ID)
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
	if w.t.Failed() {
		w.t.Fatalf("%s at %s", s.name, point)
	}
	return k.hit
}

// execEnded waits until an exec has ended and was given back, and tells how.
func (w *world) execEnded(x core.ExecID, k *struck) core.Exec {
	w.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		var d query.ExecDetail
		err := w.client.Query(w.within(), query.ContainerExec, query.RefIn{Ref: string(x)}, &d)
		if err == nil && (d.Exec.Exited || d.Exec.Fault != nil) && d.Exec.State == core.Absent {
			return d.Exec
		}
		if err != nil {
			w.regain(k, err)
		}
		if time.Now().After(end) {
			w.t.Fatalf("exec %.12s does not end: %+v", x, d)
		}
	}
}

// heard is what somebody who was attached has got.
type heard struct {
	output string
	exit   stdio.Exit
	err    error
}

// follow attaches, again while there is no engine to pass the descriptor, and reads
// to the end. A shim that is killed with the driver that was starting it has said
// nothing yet: the next one is attached to.
func (w *world) follow(in query.AttachIn) <-chan heard {
	out := make(chan heard, 1)
	ctx := w.within()
	go func() {
		var h heard
		for ctx.Err() == nil {
			var client *rig.Client
			if client, h.err = w.Dial(ctx); h.err != nil {
				time.Sleep(time.Millisecond)
				continue
			}
			var conn *stdio.Conn
			conn, h.err = client.Attach(ctx, in)
			_ = client.Close() // what is attached needs it no more
			if h.err != nil {
				if !lost(h.err) && !broken(h.err) {
					break
				}
				time.Sleep(time.Millisecond)
				continue
			}
			h.output, h.exit, h.err = rig.Output(conn)
			_ = conn.Close() // it was only read
			if h.output != "" || !broken(h.err) {
				break
			}
		}
		out <- h
	}()
	return out
}

// broken says that the other end of a connection has gone.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// TestAttach: whoever is attached to a container gets all of its output while the
// engine and every driver are killed, again and again, and its exit at the end.
func TestAttach(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rig.Options{})
	w.load()
	w.takeStock()
	c := w.container(talker)
	c.Attach = true
	job := rig.NewJob()
	_, err := w.client.Send(w.within(), job, c)
	w.must(err)
	output := w.follow(query.AttachIn{Ref: string(c.ID)}) // which the program waits for
	_, err = w.client.Ended(w.within(), job)
	w.must(err)
	w.lines(c.ID, 5)
	busy(t, w.empty, w.inventory())
	for _, s := range strikes() {
		if s.shim || s.engine || strings.HasPrefix(s.name, "image") {
			continue
		}
		if !w.hitLater(s) {
			t.Errorf("%s: there was nothing to hit", s.name)
		}
		now := w.lines(c.ID, 0)
		w.lines(c.ID, now+3)
	}
	for range 2 {
		w.must(w.Kill())
		w.restart()
		now := w.lines(c.ID, 0)
		w.lines(c.ID, now+3)
	}
	w.must(w.client.Do(w.within(), &core.StopContainer{ID: c.ID}))
	got := <-output
	log, err := w.client.Logs(w.within(), string(c.ID))
	w.must(err)
	if got.err != nil || got.exit.Code != 9 || got.output != string(log) || !strings.HasSuffix(got.output, "\nbye\n") {
		t.Errorf("attached all the while: %d bytes of %d, %+v, %v", len(got.output), len(log), got.exit, got.err)
	}
	w.gone(c.ID)
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
}
