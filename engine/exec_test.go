package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// execID differs in its first digits, as random ones do.
func execID(n int) core.ExecID { return core.ExecID(fmt.Sprintf("%016x%048x", n, 0)) }

// execIn wants a further process in the first container.
func execIn(n int, env ...core.Env) core.ExecContainer {
	return core.ExecContainer{
		ID: core.ContainerID(hexOf(1)), Exec: execID(100 + n),
		Spec: core.ExecSpec{Args: []string{"true"}, Env: env}, Attach: true,
	}
}

func TestAnExecIsAttachedToAsSoonAsItListens(t *testing.T) {
	w := lived(t)
	dir, err := os.MkdirTemp("", "a") // short, for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p := Paths{Socket: func(_ core.ContainerID, run uint64, x core.ExecID) string {
		return filepath.Join(dir, string(x[:16]))
	}}
	x := execIn(1)
	attached := make(chan error, 1)
	go func() { // before the command: the two may overtake each other
		_, file, err := w.e.Attach(t.Context(), p, body(t, query.AttachIn{Ref: "frontend", Exec: x.Exec}))
		if err == nil {
			err = file.Close()
		}
		attached <- err
	}()
	time.Sleep(5 * time.Millisecond)
	w.say("container.exec", x)
	w.settle()
	l, err := net.Listen("unix", p.Socket("", 1, x.Exec))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := <-attached; err != nil {
		t.Errorf("attach: %v", err)
	}
}

func TestAttachTellsWhyAnExecFailed(t *testing.T) {
	w := lived(t)
	w.host.fail = func(s bus.Step) *bus.Error {
		if s.Verb == "container.start-exec" {
			return bus.NewError(errclass.Errorf(errdefs.ErrNotFound, "no program nope"))
		}
		return nil
	}
	x := execIn(1)
	w.say("container.exec", x)
	w.settle()
	begun := time.Now()
	_, _, err := w.e.Attach(t.Context(), pathsIn(t.TempDir()), body(t, query.AttachIn{Ref: "frontend", Exec: x.Exec}))
	if !errdefs.IsNotFound(err) || err.Error() != "no program nope" || time.Since(begun) > attachWithin/2 {
		t.Errorf("attach to an exec that failed: %v after %v", err, time.Since(begun))
	}
	d := must[query.ExecDetail](t)(inquire[query.ExecDetail](w, query.ContainerExec, query.RefIn{Ref: string(x.Exec)}))
	if d.Exec.Fault == nil || d.ContainerName != "frontend" {
		t.Errorf("inspected: %+v", d)
	}
	w.atRest()
}

func TestExecsAreFoundAndShown(t *testing.T) {
	w := lived(t)
	for n := range 3 {
		w.say("container.exec", execIn(n))
		w.settle()
	}
	w.host.report("exec", "native", "container.report-exit", core.ReportExit{
		Container: core.ContainerID(hexOf(1)), Run: 1, Exec: execID(100), Code: 9, Time: w.now,
	})
	w.settle()
	d := must[query.ExecDetail](t)(inquire[query.ExecDetail](w, query.ContainerExec, query.RefIn{Ref: string(execID(100))}))
	if d.Exec.Exit == nil || d.Exec.Exit.Code != 9 || d.Container != core.ContainerID(hexOf(1)) {
		t.Errorf("a finished exec tells its code afterwards: %+v", d)
	}
	c := must[query.Containers](t)(inquire[query.Containers](w, query.ContainerList, nil)).Containers[0]
	if c.Execs != 2 {
		t.Errorf("%d execs are shown open, want 2", c.Execs)
	}
	if _, err := inquire[query.ExecDetail](w, query.ContainerExec, query.RefIn{Ref: "0000"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an ambiguous prefix: %v", err)
	}
	if _, err := inquire[query.ExecDetail](w, query.ContainerExec, query.RefIn{Ref: "ffff"}); !errdefs.IsNotFound(err) {
		t.Errorf("no exec: %v", err)
	}
}

func TestSecretsOfAnExec(t *testing.T) {
	w, dir := durable(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running, core.Env{Name: "OWN", Value: "own-" + planted}))
	w.settle()
	o := w.say("container.exec", execIn(1, core.Env{Name: "TOKEN", Value: planted}))
	w.settle()
	o.ok(t)
	var st core.StartExec
	if err := json.Unmarshal(w.host.sentOf("container.start-exec")[0].Body, &st); err != nil {
		t.Fatal(err)
	}
	clear := make(map[string]string)
	for _, e := range st.Spec.Env {
		clear[e.Name] = e.Value
	}
	if clear["TOKEN"] != planted || clear["OWN"] != "own-"+planted {
		t.Errorf("the driver gets %v", clear)
	}
	for path, data := range files(t, dir) {
		if bytes.Contains(data, []byte(planted)) {
			t.Errorf("%s has the value in clear", path)
		}
	}
	d := must[json.RawMessage](t)(inquire[json.RawMessage](w, query.ContainerExec, query.RefIn{Ref: string(execID(101))}))
	i := must[json.RawMessage](t)(inquire[json.RawMessage](w, query.ContainerInspect, query.RefIn{Ref: "web"}))
	if sealed := []byte(`"sealed":true,"value"`); bytes.Contains(d, sealed) || bytes.Contains(i, sealed) || !bytes.Contains(d, []byte("TOKEN")) {
		t.Errorf("a reader sees %s and %s", d, i)
	}
	// What is refused does not cost the container its key.
	bad := execIn(2, core.Env{Name: "TOKEN", Value: planted})
	bad.Spec.Args = nil
	if o := w.say("container.exec", bad); o != nil {
		w.settle()
		if o.err == nil {
			t.Error("an exec of nothing was taken")
		}
	}
	w.exit(1, 1, 0)
	w.settle()
	w.say("container.start", core.StartContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	if n := len(w.host.sentOf("container.start-process")); n != 2 {
		t.Fatalf("%d starts", n)
	}
	if !bytes.Contains(w.host.sentOf("container.start-process")[1].Body, []byte("own-"+planted)) {
		t.Error("the second start has lost the container's own value")
	}
}

func TestManyExecsInARowLeaveNothing(t *testing.T) {
	w := lived(t)
	for n := range 300 {
		x := execIn(n)
		w.say("container.exec", x)
		w.settle()
		w.host.report("exec", "native", "container.report-exit", core.ReportExit{
			Container: x.ID, Run: 1, Exec: x.Exec, Time: w.now,
		})
		w.settle()
	}
	c := w.container(1)
	if len(c.Execs) != core.ExecsKept || len(w.e.dispatch.nouns) != 0 {
		t.Errorf("%d execs are remembered, %d nouns owe something", len(c.Execs), len(w.e.dispatch.nouns))
	}
	w.atRest()
}

func TestLogsGoOnOverARestart(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	c := create(1, "again", core.Running)
	c.Spec.Restart = core.Restart{Policy: "always"}
	w.say("container.create", c)
	w.settle()
	p := pathsIn(t.TempDir())
	if err := os.WriteFile(p.Log(""), logRecord(1, time.Now(), 0, "one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, pipe := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := w.e.Logs(t.Context(), p, body(t, query.LogsIn{Ref: "again", Follow: true}), func(query.Logs) (io.Writer, error) { return pipe, nil })
		ended <- errors.Join(err, pipe.Close())
	}()
	next := func(want string) {
		t.Helper()
		f, err := stdio.ReadFrame(r, make([]byte, stdio.MaxFrame))
		if err != nil || string(f.Payload) != want {
			t.Fatalf("read %q, %v; want %q", f.Payload, err, want)
		}
	}
	next("one\n")
	w.exit(1, 1, 3)
	w.settle()
	time.Sleep(3 * logPoll) // it looks while the container is between two runs
	w.pass(time.Second)
	if c := w.container(1); !c.Running() || c.Run != 2 {
		t.Fatalf("it is %s, run %d", c.Status(), c.Run)
	}
	f, err := os.OpenFile(p.Log(""), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(logRecord(1, time.Now(), 4, "two\n")); err != nil {
		t.Fatal(err)
	}
	next("two\n")
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	w.exit(1, 2, 143)
	w.settle()
	next("") // the end
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestARangeOfALog(t *testing.T) {
	w := lived(t)
	p := pathsIn(t.TempDir())
	log := append(logRecord(1, time.Now(), 0, "0123456789"), logRecord(2, time.Now(), 10, "abcdefghij")...)
	if err := os.WriteFile(p.Log(""), log, 0o600); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	err := w.e.Logs(t.Context(), p, body(t, query.LogsIn{Ref: "frontend", From: 7, To: 12, Follow: true}),
		func(query.Logs) (io.Writer, error) { return &buf, nil })
	if got := frames(t, &buf); err != nil || !slices.Equal(got, []string{"out 789", "err ab", "end"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLogOptionsOfTheEngine(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.e.o.Logging = core.Logging{MaxBytes: 10 << 20, MaxFiles: 3, NonBlocking: true}
	w.image()
	own := create(2, "own", core.Stopped)
	own.Spec.Logging = core.Logging{MaxBytes: 1 << 20}
	none := create(3, "none", core.Stopped)
	none.Spec.Logging = core.Logging{Driver: "none"}
	for _, c := range []*core.CreateContainer{create(1, "plain", core.Stopped), own, none} {
		w.say("container.create", c)
	}
	w.settle()
	for n, want := range []core.Logging{
		{MaxBytes: 10 << 20, MaxFiles: 3, NonBlocking: true}, {MaxBytes: 1 << 20, MaxFiles: 3, NonBlocking: true}, {Driver: "none"},
	} {
		if got := w.container(n + 1).Spec.Logging; got != want {
			t.Errorf("container %d: %+v, want %+v", n+1, got, want)
		}
	}
}
