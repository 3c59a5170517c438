package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// fakeAsker answers in a driver's stead. What it has no answer for hangs until
// whoever asks has had enough.
type fakeAsker struct {
	mu      sync.Mutex
	answers map[string]func(bus.Ask) (any, error) // by verb
	asked   []bus.Ask
}

func (a *fakeAsker) Ask(ctx context.Context, q bus.Ask, out any) error {
	a.mu.Lock()
	a.asked = append(a.asked, q)
	f := a.answers[q.Verb]
	a.mu.Unlock()
	if f == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	body, err := f(q)
	if err != nil || out == nil {
		return err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, out)
}

func (a *fakeAsker) on(verb string, f func(bus.Ask) (any, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[verb] = f
}

func (a *fakeAsker) count(verb string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, q := range a.asked {
		if q.Verb == verb {
			n++
		}
	}
	return n
}

func TestTopAndDiff(t *testing.T) {
	w := lived(t)
	w.asks.on(ask.ExecProcesses, func(q bus.Ask) (any, error) {
		if q.Kind != "exec" || q.Driver != "native" || q.Epoch != w.e.Epoch() || !strings.Contains(string(q.Body), hexOf(1)) {
			t.Errorf("asked %+v %s", q, q.Body)
		}
		return ask.Tasks{Tasks: []query.Task{{PID: 42, Name: "true"}}}, nil
	})
	top, err := w.e.Top(t.Context(), body(t, query.RefIn{Ref: "frontend"}))
	if err != nil || len(top.Tasks) != 1 || top.Tasks[0].PID != 42 || top.Container != core.ContainerID(hexOf(1)) {
		t.Errorf("top: %+v, %v", top, err)
	}
	if _, err := w.e.Top(t.Context(), body(t, query.RefIn{Ref: "backend"})); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("top of one that does not run: %v", err)
	}
	w.asks.on(ask.RootfsChanges, func(q bus.Ask) (any, error) {
		if q.Kind != "graphdriver" || q.Driver != "overlay" {
			t.Errorf("asked %+v", q)
		}
		return ask.Changes{Changes: []query.Change{{Kind: "A", Path: "/new"}}}, nil
	})
	diff, err := w.e.Diff(t.Context(), body(t, query.RefIn{Ref: "backend"}))
	if err != nil || len(diff.Changes) != 1 || diff.Changes[0] != (query.Change{Kind: "A", Path: "/new"}) {
		t.Errorf("diff: %+v, %v", diff, err)
	}
	w.asks.on(ask.RootfsChanges, func(bus.Ask) (any, error) {
		return nil, errclass.Errorf(errdefs.ErrNotImplemented, "no ability")
	})
	if _, err := w.e.Diff(t.Context(), body(t, query.RefIn{Ref: "backend"})); !errdefs.IsNotImplemented(err) {
		t.Errorf("a driver that cannot: %v", err)
	}
}

// watchStats reads n samples.
func watchStats(t *testing.T, w *world, in query.StatsIn, n int) ([]query.StatsSample, error) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []query.StatsSample
	err := w.e.Stats(ctx, body(t, in), func() (func(query.StatsSample) error, error) {
		return func(s query.StatsSample) error {
			if got = append(got, s); len(got) == n {
				cancel()
			}
			return nil
		}, nil
	})
	return got, err
}

func TestStatsHaveOnePollerForAll(t *testing.T) {
	w := lived(t)
	w.e.o.Now = time.Now
	w.asks.on(ask.ExecStats, func(q bus.Ask) (any, error) {
		var in ask.Runs
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, err
		}
		var out ask.Stats
		for _, r := range in.Runs {
			out.Runs = append(out.Runs, query.Stats{Container: r.Container, Running: true, Pids: 3})
		}
		return out, nil
	})
	var watchers sync.WaitGroup
	for n := range 8 {
		watchers.Go(func() {
			in := query.StatsIn{}
			if n%2 == 0 {
				in.Refs = []string{"frontend", "backend"}
			}
			got, err := watchStats(t, w, in, 3)
			if err != nil || len(got) != 3 {
				t.Errorf("watcher %d: %d samples, %v", n, len(got), err)
				return
			}
			want := "[{frontend true 3}]"
			if n%2 == 0 {
				want = "[{backend false 0} {frontend true 3}]"
			}
			var said []string
			for _, s := range got[2].Containers {
				said = append(said, fmt.Sprintf("{%s %v %d}", s.Name, s.Running, s.Pids))
			}
			if s := fmt.Sprint(said); s != want {
				t.Errorf("watcher %d: %s, want %s", n, s, want)
			}
		})
	}
	watchers.Wait()
	// Each has one sample of its own at its beginning; then all share one a second, or
	// on a busy machine one in some seconds.
	if n := w.asks.count(ask.ExecStats); n > 8+8 {
		t.Errorf("24 samples took %d questions", n)
	}
	before := w.asks.count(ask.ExecStats)
	time.Sleep(1100 * time.Millisecond)
	if after := w.asks.count(ask.ExecStats); after != before {
		t.Errorf("%d questions while nobody watches", after-before)
	}
	once, err := watchStats(t, w, query.StatsIn{Once: true, All: true}, 9)
	if err != nil || len(once) != 1 || len(once[0].Containers) != 2 {
		t.Errorf("once: %+v, %v", once, err)
	}
	if _, err := watchStats(t, w, query.StatsIn{Refs: []string{"nobody"}}, 1); !errdefs.IsNotFound(err) {
		t.Errorf("stats of nobody: %v", err)
	}
	w.asks.on(ask.ExecStats, func(bus.Ask) (any, error) { return nil, errdefs.ErrNotImplemented })
	if _, err := watchStats(t, w, query.StatsIn{}, 1); !errdefs.IsNotImplemented(err) {
		t.Errorf("a driver that cannot measure: %v", err)
	}
}

func TestQueriesDoNotWaitForHungQuestions(t *testing.T) {
	w := lived(t)
	ctx, cancel := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	for range 20 {
		hung.Go(func() {
			_, err := w.e.Top(ctx, body(t, query.RefIn{Ref: "frontend"}))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("top that hangs: %v", err)
			}
		})
		hung.Go(func() {
			_, err := w.e.Diff(ctx, body(t, query.RefIn{Ref: "frontend"}))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("diff that hangs: %v", err)
			}
		})
		hung.Go(func() {
			err := w.e.Stats(ctx, nil, func() (func(query.StatsSample) error, error) {
				return func(query.StatsSample) error { return nil }, nil
			})
			if err != nil {
				t.Errorf("stats that hang: %v", err)
			}
		})
	}
	for w.asks.count(ask.ExecProcesses) < 20 || w.asks.count(ask.RootfsChanges) < 20 || w.asks.count(ask.ExecStats) < 1 {
		time.Sleep(time.Millisecond)
	}
	psFast(t, w.e)
	o := w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	o.ok(t)
	cancel()
	hung.Wait()
}

// copying is one copy with a client that takes or sends bytes.
func copying(t *testing.T, w *world, p Paths, in query.CopyIn, out bool, bytes string) (query.Copying, string, *query.CopyEnd, error) {
	t.Helper()
	var said query.Copying
	var end *query.CopyEnd
	got := make(chan string, 1)
	err := w.e.Copy(t.Context(), Copy{
		Paths: p, Actor: bus.Actor{UID: 7}, Body: body(t, in), Out: out,
		Open: func(c query.Copying, file *os.File) error {
			said = c
			if file == nil {
				return nil
			}
			conn, err := net.FileConn(file)
			if err != nil {
				return err
			}
			go func() {
				defer conn.Close()
				if !out {
					_, _ = io.WriteString(conn, bytes)
					got <- ""
					return
				}
				data, _ := io.ReadAll(conn)
				got <- string(data)
			}()
			return nil
		},
		End: func(e query.CopyEnd) error { end = &e; return nil },
	})
	if end == nil {
		return said, "", nil, err
	}
	return said, <-got, end, err
}

// onSocket is a driver that serves one connection of a copy.
func onSocket(t *testing.T, p Paths, serve func(ask.Copy, net.Conn) error) func(bus.Ask) (any, error) {
	return func(q bus.Ask) (any, error) {
		var in ask.Copy
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, err
		}
		l, err := net.Listen("unix", p.Copy(in.Socket))
		if err != nil {
			return nil, err
		}
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return nil, serve(in, c)
	}
}

func TestCopy(t *testing.T) {
	w := lived(t)
	dir, err := os.MkdirTemp("", "a") // short, for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p := pathsIn(dir)
	stat := func(q bus.Ask) (any, error) {
		var in ask.Copy
		if err := json.Unmarshal(q.Body, &in); err != nil {
			return nil, err
		}
		switch in.Path {
		case "/link":
			return query.PathStat{Name: "link", Mode: linkMode | 0o777, Link: "/file"}, nil
		case "/file":
			return query.PathStat{Name: "file", Mode: 0o100644, Size: 5}, nil
		}
		return nil, errclass.Errorf(errdefs.ErrNotFound, "no %s", in.Path)
	}
	w.asks.on(ask.ExecStatPath, stat)
	w.asks.on(ask.ExecCopyOut, onSocket(t, p, func(in ask.Copy, c net.Conn) error {
		_, err := fmt.Fprintf(c, "%s of run %d", in.Path, in.Run)
		return err
	}))
	said, got, end, err := copying(t, w, p, query.CopyIn{Ref: "frontend", Path: "file"}, true, "")
	if err != nil || end == nil || end.Error != nil || got != "/file of run 1" || said.Stat == nil || said.Stat.Size != 5 {
		t.Errorf("out: %+v, %q, %+v, %v", said, got, end, err)
	}
	if said, got, _, err = copying(t, w, p, query.CopyIn{Ref: "frontend", Path: "/link", Follow: true}, true, ""); got != "/file of run 1" || err != nil || said.Stat.Size != 5 || said.Stat.Name != "link" {
		t.Errorf("through a link: %q, %v", got, err)
	}
	if said, _, end, err = copying(t, w, p, query.CopyIn{Ref: "frontend", Path: "/link", StatOnly: true}, true, ""); said.Stat.Link != "/file" || end != nil || err != nil {
		t.Errorf("only told: %+v, %+v, %v", said, end, err)
	}
	if _, _, _, err = copying(t, w, p, query.CopyIn{Ref: "frontend", Path: "/nope"}, true, ""); !errdefs.IsNotFound(err) {
		t.Errorf("of nothing: %v", err)
	}
	// Of one that does not run: the driver is given its mounts.
	w.asks.on(ask.ExecCopyIn, onSocket(t, p, func(in ask.Copy, c net.Conn) error {
		data, err := io.ReadAll(c)
		if in.Run != 0 || len(in.Rootfs) != 1 || string(data) != "a tar" || !in.Overwrite {
			t.Errorf("into %+v: %q, %v", in, data, err)
		}
		return errclass.Errorf(errdefs.ErrPermissionDenied, "it is read-only")
	}))
	_, _, end, err = copying(t, w, p, query.CopyIn{Ref: "backend", Path: "/nope", Overwrite: true}, false, "a tar")
	if err != nil || end == nil || end.Error == nil || end.Error.Class != "permission-denied" || end.Error.Message != "it is read-only" {
		t.Errorf("in, refused by the driver: %+v, %v", end, err)
	}
}

func TestCopyOfACreatedContainerPreparesIt(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "fresh", core.Stopped))
	w.settle()
	w.asks.on(ask.ExecStatPath, func(bus.Ask) (any, error) { return query.PathStat{Name: "x"}, nil })
	ended := make(chan error, 1)
	go func() {
		_, _, _, err := copying(t, w, pathsIn(t.TempDir()), query.CopyIn{Ref: "fresh", Path: "/x", StatOnly: true}, true, "")
		ended <- err
	}()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		w.settle()
		select {
		case err := <-ended:
			if c := w.e.durable.Containers[core.ContainerID(hexOf(1))]; err != nil || c.Rootfs.State != core.Held || c.Run != 0 {
				t.Errorf("copied with %v, root filesystem %s, run %d", err, c.Rootfs.State, c.Run)
			}
			return
		default:
			if time.Since(begun) > 10*time.Second {
				t.Fatal("it does not end")
			}
		}
	}
}
