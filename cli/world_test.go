package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/cli"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/engine/answer"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gantry": func() {
		os.Exit(cli.Main(cli.Env{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv, Version: "0.0-test",
		}))
	}})
}

// TestScripts: what is printed, where, and with which exit code, against the real
// engine on a real bus; the drivers are fakes in this process.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status, "until": until},
		Setup: func(env *testscript.Env) error {
			// A socket's path must be short.
			dir, err := os.MkdirTemp("", "gcli")
			if err != nil {
				return err
			}
			w := newWorld(t, dir)
			env.Defer(func() {
				w.close()
				_ = os.RemoveAll(dir) // left behind, it does no harm
			})
			env.Setenv("GANTRY_HOST", "unix://"+filepath.Join(dir, "run", bus.ControlSocket))
			env.Setenv("ROOT", filepath.Join(dir, "root"))
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// status runs a command and wants its exit code: status CODE COMMAND ARG...
func status(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("it ended with %d, want %s\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// until runs a command again and again until its output fits: until PATTERN COMMAND ARG...
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%s never fits %q:\n%s%s", strings.Join(args[1:], " "), args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

// world is an engine and its bus.
type world struct {
	t         *testing.T
	dir       string
	journal   *eventlog.Journal
	bus       *server.Server
	publisher *server.Publisher
	engine    *engine.Engine
	host      *fakeHost
	cancel    context.CancelFunc
	turning   sync.WaitGroup
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{t: t, dir: dir}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	must(os.MkdirAll(w.path("run"), 0o700))
	must(os.MkdirAll(w.path("root", "spool"), 0o700))
	w.journal, err = eventlog.Open(w.path("root", "log"), eventlog.Options{})
	must(err)
	const id = "6f1c1f8e-0000-4000-8000-000000000001"
	w.bus, err = server.Start(server.Config{Node: id, Store: w.path("root", "stream"), Run: w.path("run")})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.publisher, _, err = w.bus.OpenStream(ctx, engine.NewJournal(w.journal))
	must(err)
	w.host = newFakeHost(w)
	w.engine, err = engine.Open(engine.Options{
		Log: w.journal, Hosts: w.host, Asker: w.host, Keys: engine.MemKeys(), Version: "test", BootID: "boot-1", Logger: slog.New(slog.DiscardHandler),
		Begin: engine.Begin{
			ID: id, Name: "test", Pool: netip.MustParsePrefix("10.9.0.0/16"), PoolBits: 24,
			Drivers: core.Choice{Graph: "overlay", Exec: "native", Image: "oci"},
		},
		Machine: query.Info{PID: os.Getpid(), Root: w.path("root"), Run: w.path("run"), OS: "test", Kernel: "6.0", Architecture: "amd64"},
		Committed: func(records []eventlog.Record) {
			for _, r := range records {
				w.publisher.Publish(engine.FrameOf(r))
			}
		},
	})
	must(err)
	must(w.bus.Serve(answer.Messages(w.engine)))
	streams := answer.Streams(w.engine, w.paths())
	streams[bus.OpUpload] = server.Spool(w.path("root", "spool"), 1<<20)
	must(w.bus.ServeStreams(streams))
	w.turning.Go(func() { _ = w.engine.Run(ctx) }) // its error would show in every script
	return w
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *world) close() {
	w.host.end()
	w.cancel()
	w.turning.Wait()
	close(w.host.ended)
	w.host.wg.Wait()
	w.bus.Close()
	_ = w.journal.Close() // the test is over
}

func (w *world) paths() engine.Paths {
	return engine.Paths{
		Socket: func(id core.ContainerID, run uint64, x core.ExecID) string { return w.host.socket(id, run, x) },
		Copy:   func(name string) string { return w.path("run", name) },
		Log:    func(id core.ContainerID) string { return w.host.logPath(id) },
	}
}

// fakeHost does in memory what steps ask for.
type fakeHost struct {
	w *world

	mu        sync.Mutex // guards what follows
	instances map[string]bool
	runs      map[string]*fakeShim // by container and exec
	ending    bool                 // what is started now ends at once

	files *fakeFiles

	wg    sync.WaitGroup // of everything that it has begun
	ended chan struct{}  // closed when the engine takes no more turns
}

func newFakeHost(w *world) *fakeHost {
	return &fakeHost{w: w, instances: make(map[string]bool), runs: make(map[string]*fakeShim), files: newFakeFiles(), ended: make(chan struct{})}
}

// Send runs a step on a goroutine.
func (h *fakeHost) Send(s bus.Step) error {
	h.wg.Go(func() {
		h.introduce(s.Kind, s.Driver)
		h.w.engine.Heard(s.ID)
		result, err := h.run(s)
		f := bus.Finish{
			Epoch: s.Epoch, Kind: s.Kind, Driver: s.Driver, Instance: "instance-1", Step: s.ID, Try: s.Try, Error: bus.NewError(err),
		}
		if err == nil {
			f.Result, _ = json.Marshal(result) // of plain fields
		}
		h.w.engine.Finish(f, func(bus.Receipt, error) {})
	})
	return nil
}

// Cancel ends a start that waits for a client.
func (h *fakeHost) Cancel(c bus.Cancel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.runs {
		if r.step == c.ID {
			r.cancel()
		}
	}
	return nil
}

// end ends every program.
func (h *fakeHost) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = true
	for _, r := range h.runs {
		r.kill(9)
		r.cancel()
	}
}

func (h *fakeHost) introduce(kind, name string) {
	h.mu.Lock()
	known := h.instances[kind+"/"+name]
	h.instances[kind+"/"+name] = true
	h.mu.Unlock()
	if !known {
		h.report(kind, name, "driver.report", core.ReportDriver{Driver: kind + "/" + name, Instance: "instance-1", PID: 1, Version: "1"})
	}
}

func (h *fakeHost) report(kind, name, what string, c any) {
	body, _ := json.Marshal(c) // of plain fields
	done := make(chan struct{})
	h.w.engine.Report(bus.Report{
		Epoch: h.w.engine.Epoch(), Kind: kind, Driver: name, Instance: "instance-1", Name: what, Body: body,
	}, func(bus.Receipt, error) { close(done) })
	select {
	case <-done:
	case <-h.ended:
	}
}

const busyboxID = "sha256:beefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeef"

// run does one step.
func (h *fakeHost) run(s bus.Step) (core.Result, error) {
	step, err := core.DecodeStep(s.Verb, s.Body)
	if err != nil {
		return core.Result{}, err
	}
	switch st := step.(type) {
	case *core.PrepareRootfs:
		return core.Result{Mounts: []core.Mount{{Type: "overlay", Source: "overlay"}}}, nil
	case *core.AttachNetwork:
		return core.Result{Endpoint: &core.Endpoint{Namespace: core.Namespace{Mode: "path", Path: "/x"}}}, nil
	case *core.ApplyLayer:
		return core.Result{Size: 4_260_000}, nil
	case *core.LoadArchive:
		return loadArchive(st.Archive)
	case *core.StartProcess:
		return h.start(launch{
			step: s.ID, container: st.Container, run: st.Run, args: st.Spec.Process.Args(), attach: st.Attach,
		})
	case *core.StartExec:
		return h.start(launch{
			step: s.ID, container: st.Container, run: st.Run, exec: st.Exec, args: st.Spec.Args, attach: st.Attach,
		})
	case *core.SignalProcess:
		h.mu.Lock()
		r := h.runs[string(st.Container)+string(st.Exec)]
		h.mu.Unlock()
		if r != nil {
			r.kill(st.Signal)
		}
	case *core.UpdateResources:
		if st.Resources.PidsLimit == 3 {
			return core.Result{}, errclass.Errorf(errdefs.ErrInvalidArgument, "pids.max: 3: the kernel says no")
		}
	case *core.WatchHealth:
		h.wg.Go(func() { h.probe(st) })
	case *core.ReplaceDriver:
		if !strings.HasPrefix(st.Path, "/good/") {
			return core.Result{}, errclass.Errorf(errdefs.ErrFailedPrecondition, "the program %s does not answer the handshake", st.Path)
		}
		return core.Result{Version: "2"}, nil
	}
	return core.Result{}, nil
}

// loadArchive: an archive is the names of its images, one a line; "truncated" is a
// bad one.
func loadArchive(path string) (core.Result, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return core.Result{}, err
	}
	if bytes.Contains(data, []byte("truncated")) {
		return core.Result{}, errclass.Errorf(errdefs.ErrInvalidArgument, "read archive: unexpected end of file")
	}
	img := core.LoadedImage{
		ID: busyboxID, Manifest: busyboxID, Created: time.Now().Add(-48 * time.Hour), Architecture: "amd64", OS: "linux",
		Layers: []core.ImageLayer{{ID: busyboxID, DiffID: busyboxID, Digest: busyboxID, Path: "/blob", Size: 100}}, Size: 100,
		Config: core.ImageConfig{Cmd: []string{"sh"}, Env: []core.Env{{Name: "PATH", Value: "/bin"}}},
	}
	img.Names = strings.Fields(string(data))
	return core.Result{Images: []core.LoadedImage{img}}, nil
}
