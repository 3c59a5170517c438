package driverhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/driver"
)

// fakeBus keeps what the host says.
type fakeBus struct {
	mu       sync.Mutex
	handlers map[string]bus.StepHandlers
	finishes []bus.Finish // without heartbeats
	beats    []bus.Finish
	reports  []bus.Report
	order    []string // names of reports and ids of finished steps, as they came
	progress int
}

func (b *fakeBus) ServeSteps(kind, name string, h bus.StepHandlers) (*bus.StepServing, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handlers[kind+"/"+name] = h
	return &bus.StepServing{}, nil
}

func (b *fakeBus) Finish(_ context.Context, f bus.Finish) (bus.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.Heartbeat {
		b.beats = append(b.beats, f)
		return bus.Receipt{}, nil
	}
	b.finishes, b.order = append(b.finishes, f), append(b.order, f.Step)
	return bus.Receipt{}, nil
}

func (b *fakeBus) Report(_ context.Context, r bus.Report) (bus.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports, b.order = append(b.reports, r), append(b.order, r.Name)
	return bus.Receipt{}, nil
}

func (b *fakeBus) TellProgress(string, any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress++
	return nil
}

// rig is a host with fake drivers on a fake bus.
type rig struct {
	t    *testing.T
	o    Options
	p    patience
	bus  *fakeBus
	host *Host
	bin  string
	log  *safeBuffer
	n    int
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// quick is impatient where nothing has to happen within the time. A test for which
// something must not says so.
func quick() patience {
	p := usual()
	p.start, p.drain, p.grace = 20*time.Second, 20*time.Second, 20*time.Second
	p.heartbeat, p.hold, p.rescan = 50*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
	return p
}

func options(dir, name string, b Bus, log *slog.Logger) Options {
	return Options{
		Bus: b, Epoch: 1, Path: []string{filepath.Join(dir, "bin")}, Log: log,
		Config: driver.Config{
			EngineID: "e-1", EngineName: "test", Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"),
			Cgroup: "/" + name,
		},
	}
}

// newRig prepares a rig with the drivers; begin starts its host.
func newRig(t *testing.T, programs ...string) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: drivers are put into cgroups and lose capabilities")
	}
	dir, err := os.MkdirTemp("", "gdh") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, p: quick(), bin: filepath.Join(dir, "bin"), log: &safeBuffer{}}
	r.bus = &fakeBus{handlers: map[string]bus.StepHandlers{}}
	r.o = options(dir, filepath.Base(dir), r.bus, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo})))
	for _, p := range programs {
		r.program("bin", p)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out := r.log.String()
			t.Logf("the host's log:\n%s", out[max(0, len(out)-6000):])
		}
	})
	return r
}

// program puts a driver into a folder and gives its path.
func (r *rig) program(folder, name string) string {
	r.t.Helper()
	path := filepath.Join(filepath.Dir(r.bin), folder, name)
	self, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.Symlink(self, path)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) begin() *rig {
	r.t.Helper()
	mounts, err := linux.Hierarchies()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.beginOn(mounts)
}

func (r *rig) beginOn(mounts []linux.Hierarchy) *rig {
	r.t.Helper()
	h, err := start(r.o, r.p, mounts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.host = h
	r.t.Cleanup(r.end)
	return r
}

// end closes the host and sees that nothing is left.
func (r *rig) end() {
	if r.host == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.host.Close(ctx)
	for _, dir := range r.host.cage.swept {
		if _, err := os.Stat(dir); err == nil {
			r.t.Errorf("the cgroup %s is left", dir)
		}
	}
	r.host = nil
}

func (r *rig) dir(id string) string {
	return filepath.Join(r.o.Config.Root, strings.ReplaceAll(id, "/", "-"))
}

// be tells a driver what to be like.
func (r *rig) be(id, mode string) {
	r.t.Helper()
	err := os.MkdirAll(r.dir(id), 0o700)
	if err == nil {
		err = put(filepath.Join(r.dir(id), "mode"), []byte(mode))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// put writes a file that another process may be about to read: whole, or not at all.
func put(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".put-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close(), os.Rename(f.Name(), path))
}

// noted is how often something has happened in a driver.
func (r *rig) noted(id, what string) int { return noted(r.dir(id), what) }

func noted(dir, what string) int {
	data, _ := os.ReadFile(filepath.Join(dir, what)) // nothing yet
	return bytes.Count(data, []byte("\n"))
}

// step makes a step; network is what a fake net driver does.
func (r *rig) step(id string, st core.Step) bus.Step {
	r.t.Helper()
	kind, name, _ := strings.Cut(id, "/")
	body, err := json.Marshal(st)
	if err != nil {
		r.t.Fatal(err)
	}
	r.n++
	return bus.Step{
		Epoch: 1, ID: fmt.Sprintf("network/n%d/network/create@%d", r.n, r.n), Try: 1, Kind: kind, Driver: name,
		Verb: core.StepName(st), Job: "job", Deadline: bus.Seconds(20 * time.Second), Body: body,
	}
}

func (r *rig) network(what string) bus.Step {
	return r.step("net/fake", &core.CreateNetwork{Network: "n", Name: what})
}

func (r *rig) send(s bus.Step) {
	r.t.Helper()
	r.bus.mu.Lock()
	h := r.bus.handlers[s.Kind+"/"+s.Driver]
	r.bus.mu.Unlock()
	if err := h.Step(s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) cancel(s bus.Step) {
	r.t.Helper()
	if err := r.bus.handlers[s.Kind+"/"+s.Driver].Cancel(bus.Cancel{Epoch: s.Epoch, ID: s.ID}); err != nil {
		r.t.Fatal(err)
	}
}

// finish waits for a step's end.
func (r *rig) finish(s bus.Step) bus.Finish {
	r.t.Helper()
	var found bus.Finish
	r.until("the end of "+s.ID, func() bool {
		for _, f := range r.bus.finishes {
			if f.Step == s.ID {
				found = f
				return true
			}
		}
		return false
	})
	return found
}

func (r *rig) run(s bus.Step) bus.Finish {
	r.t.Helper()
	r.send(s)
	return r.finish(s)
}

// held runs a step that does not end before it is let go.
func (r *rig) held() (s bus.Step, letGo func()) {
	r.t.Helper()
	s = r.network("held")
	r.send(s)
	r.until("the begin of "+s.ID, func() bool { return r.noted("net/fake", "did-held") > 0 })
	return s, func() {
		r.t.Helper()
		if err := put(filepath.Join(r.dir("net/fake"), "let-go"), nil); err != nil {
			r.t.Fatal(err)
		}
	}
}

// good runs a step that must succeed.
func (r *rig) good(s bus.Step) bus.Finish {
	r.t.Helper()
	f := r.run(s)
	if f.Error != nil {
		r.t.Fatalf("%s %s: %+v", s.Verb, s.Body, f.Error)
	}
	return f
}

// bad runs a step that must fail with a class and words.
func (r *rig) bad(s bus.Step, class string, words ...string) bus.Finish {
	r.t.Helper()
	f := r.run(s)
	r.fails(f, class, words...)
	return f
}

func (r *rig) fails(f bus.Finish, class string, words ...string) {
	r.t.Helper()
	if f.Error == nil || f.Error.Class != class {
		r.t.Fatalf("the step ended with %+v, want %s", f.Error, class)
	}
	for _, w := range words {
		if !strings.Contains(f.Error.Message, w) {
			r.t.Errorf("%q does not say %q", f.Error.Message, w)
		}
	}
	if strings.Contains(f.Error.Message, "\n") || len(f.Error.Message) > 700 {
		r.t.Errorf("no short sentence: %q", f.Error.Message)
	}
}

// until waits, with the bus's lock held when it looks.
func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		r.bus.mu.Lock()
		ok := f()
		r.bus.mu.Unlock()
		if ok {
			return
		}
	}
	r.t.Fatalf("never came: %s", what)
}

// drivers are the reports of one kind of news about drivers.
func (b *fakeBus) drivers(ended bool) []core.ReportDriver {
	var all []core.ReportDriver
	for _, r := range b.reports {
		var d core.ReportDriver
		if r.Name == "driver.report" && json.Unmarshal(r.Body, &d) == nil && d.Ended == ended {
			all = append(all, d)
		}
	}
	return all
}

// pid is that of the instance started last.
func (r *rig) pid() int {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	all := r.bus.drivers(false)
	if len(all) == 0 {
		r.t.Fatal("no driver was reported")
	}
	return all[len(all)-1].PID
}

// hosted is a driver as the host has it.
func (r *rig) hosted(id string) *hosted {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	return r.host.drivers[id]
}

func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
