package driverhost

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// asked reads what the fake exec driver was asked for last.
func asked[T any](r *rig, what string) T {
	r.t.Helper()
	var v T
	data, err := os.ReadFile(filepath.Join(r.dir("exec/fake"), "asked-"+what))
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		r.t.Fatalf("what was asked of %s: %v", what, err)
	}
	return v
}

// reported are the bodies of the reports of a name.
func (r *rig) reported(name string) (bodies []string) {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	for _, p := range r.bus.reports {
		if p.Name == name {
			bodies = append(bodies, string(p.Body))
		}
	}
	return bodies
}

const someID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestExecSteps(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	exec := core.ExecID(strings.Repeat("e", 64))
	f := r.good(r.step("exec/fake", &core.StartExec{
		Container: "c", Run: 1, Exec: exec, Attach: true, Groups: []string{"wheel"},
		Spec: core.ExecSpec{
			Args: []string{"sh", "-i"}, Env: []core.Env{{Name: "A", Value: "b"}}, Cwd: "/srv", User: "app",
			TTY: true, Rows: 24, Columns: 80, OpenStdin: true, Privileged: true,
		},
	}))
	if !strings.Contains(string(f.Result), `"pid":8`) {
		t.Errorf("result %s", f.Result)
	}
	x := asked[execdriver.Exec](r, "exec")
	got := fmt.Sprintf("%s %d %.4s %v %v %s %s %v %v %d %d %v %v %v %s", x.Container, x.Run, x.Exec, x.Process.Args, x.Process.Env, x.Process.Cwd,
		x.Process.User, x.Process.Groups, x.Process.TTY, x.Process.Rows, x.Process.Columns, x.Privileged, x.Stdio.OpenStdin, x.Stdio.WaitAttach, x.Stdio.Log.Driver)
	if want := "c 1 eeee [sh -i] [A=b] /srv app [wheel] true 24 80 true true true none"; got != want {
		t.Errorf("asked for\n%s\nwant\n%s", got, want)
	}
	r.good(r.step("exec/fake", &core.SignalProcess{Container: "c", Run: 1, Exec: exec, Signal: 2}))
	if k := asked[execdriver.Key](r, "signal"); k.Exec != string(exec) {
		t.Errorf("a signal to %+v", k)
	}
	if err := put(filepath.Join(r.dir("exec/fake"), "exec-ends"), []byte(exec)); err != nil {
		t.Fatal(err)
	}
	r.until("the exec's exit", func() bool {
		for _, p := range r.bus.reports {
			var e core.ReportExit
			if p.Name == "container.report-exit" && json.Unmarshal(p.Body, &e) == nil && e.Exec == exec && e.Code == 5 {
				return true
			}
		}
		return false
	})
	r.good(r.step("exec/fake", &core.Freeze{Container: "c", Run: 1}))
	r.good(r.step("exec/fake", &core.Thaw{Container: "c", Run: 1}))
	swap := int64(30)
	r.good(r.step("exec/fake", &core.UpdateResources{Container: "c", Run: 1, Resources: core.Resources{
		MemoryBytes: 1 << 30, MemorySwappiness: &swap, BlkioWeightDevices: []core.DeviceWeight{{Path: "/dev/sda", Weight: 10}},
	}}))
	if u := asked[execdriver.Resources](r, "update"); u.MemoryBytes != 1<<30 || *u.MemorySwappiness != 30 || u.BlkioWeightDevices[0].Rate != 10 {
		t.Errorf("updated to %+v", u)
	}
	f = r.good(r.step("exec/fake", &core.HoldUserNS{Container: "c", IDMap: core.IDMap{UIDs: []core.IDMapping{{Host: 1 << 19, Size: 65536}}}}))
	if !strings.Contains(string(f.Result), "/proc/1/ns/user") {
		t.Errorf("result %s", f.Result)
	}
	r.good(r.step("exec/fake", &core.ReleaseUserNS{Container: "c"}))
	r.good(r.step("exec/fake", &core.GiveBack{Item: core.Item{Kind: "userns", Key: "c"}}))
	if n := r.noted("exec/fake", "userns-gone"); n != 2 {
		t.Errorf("%d user namespaces were given back", n)
	}
}

// Every field of a Spec reaches the driver.
func TestTheWholeSpecIsStarted(t *testing.T) {
	swap := int64(7)
	st := &core.StartProcess{Container: someID, Run: 3, Name: "web", Hostname: "lender", Attach: true, LogEnd: 77, Spec: &core.Spec{
		Process: core.Process{
			Entrypoint: []string{"a"}, Cmd: []string{"b"}, Groups: []string{"g"}, OpenStdin: true, StdinOnce: true, TTY: true,
			Rows: 2, Columns: 3, Init: true, Cwd: "/w", User: "u",
		},
		Rootfs: core.Rootfs{ReadOnly: true, ShmBytes: 9},
		Mounts: []core.MountSpec{
			{Type: "bind", Source: "/h", Target: "/etc/hosts"}, {Type: "tmpfs", Target: "/a/b", Options: []string{"size=1m"}},
			{Type: "bind", Source: "/d", Target: "/a"},
		},
		Resources: core.Resources{MemorySwappiness: &swap, Ulimits: []core.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, CgroupParent: "/p"},
		Security: core.Security{
			PID: "host", IPC: "none", UTS: "container:x", CgroupNS: "host", OOMScoreAdj: -5, Seccomp: "{}", AppArmor: "p",
			SELinux: []string{"type:t"}, OpenPaths: true, DeviceRules: []string{"c 1:3 rwm"}, Sysctls: map[string]string{"a": "b"},
			Devices: []core.Device{{Host: "/dev/null", Container: "/dev/n"}},
		},
		Network: core.NetworkSpec{Domain: "nis"},
		Logging: core.Logging{Driver: "json-file", MaxBytes: 1, MaxFiles: 2, MaxAge: 3, NonBlocking: true, MaxBufferBytes: 4},
	}}
	st.Shares.UTS = &core.RunKey{Container: "other", Run: 4, PID: 12}
	st.IDMap = core.IDMap{UIDs: []core.IDMapping{{Host: 5, Size: 6}}}
	st.UserNS = core.Namespace{Mode: "path", Path: "/u"}
	st.Endpoint.Files = []core.Mount{{Type: "bind", Source: "/n/hosts", Target: "/etc/hosts"}, {Type: "bind", Source: "/n/r", Target: "/etc/resolv.conf"}}
	s, err := startOf(st)
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range s.Mounts {
		targets = append(targets, m.Source+":"+m.Target+":"+strings.Join(m.Options, ","))
	}
	got := fmt.Sprint(targets, s.Hostname, s.Domain, s.ReadOnly, s.ShmBytes, s.Init, s.Process, s.Namespaces, s.Stdio, s.IDMap, s.UserNS,
		s.Security, *s.Resources.MemorySwappiness, s.Resources.CgroupParent)
	for _, part := range []string{
		"[/d:/a:rbind /n/r:/etc/resolv.conf: /h:/etc/hosts:rbind :/a/b:noexec,nosuid,nodev,size=1m]", "lender", "nis",
		"[a b]", "/w u [g] true 2 3 -5 [{nofile 1 2}]", "{{host {  0 } false}", "{container {other 4 } false}", "true}",
		"{true true true {local 1 2 3ns true 4 77}}", "{[{0 5 6}] []}", "{path /u 0}", "{} p [type:t] true [{/dev/null /dev/n }] [c 1:3 rwm] map[a:b]", " 7/p",
	} {
		if !strings.Contains(strings.ReplaceAll(got, "  ", " "), strings.ReplaceAll(part, "  ", " ")) {
			t.Errorf("%q is not in\n%s", part, got)
		}
	}
	st.Shares.UTS.PID = 0
	if _, err := startOf(st); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "container other, whose uts namespace") {
		t.Errorf("with one that does not run: %v", err)
	}
}

func TestOOMKillsAreReported(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	r.be("exec/fake", "out-of-memory")
	r.good(r.step("exec/fake", &core.Freeze{Container: "c", Run: 1}))
	r.until("the report", func() bool {
		for _, p := range r.bus.reports {
			if p.Name == "container.report-oom" && strings.Contains(string(p.Body), `"count":2`) {
				return true
			}
		}
		return false
	})
}

// ask asks the host and waits for the answer.
func (r *rig) ask(verb string, in any) (chan bus.Answer, bus.Ask) {
	r.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		r.t.Fatal(err)
	}
	r.n++
	a := bus.Ask{Epoch: 1, ID: fmt.Sprint("ask/", r.n), Kind: "exec", Driver: "fake", Verb: verb, Body: body}
	out := make(chan bus.Answer, 1)
	r.bus.mu.Lock()
	h := r.bus.handlers["exec/fake"]
	r.bus.mu.Unlock()
	h.Ask(a, func(body any, err error) {
		data, _ := json.Marshal(body)
		out <- bus.Answer{Body: data, Error: bus.NewError(err)}
	})
	return out, a
}

func TestQuestions(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	runs := ask.Runs{Runs: []ask.Run{{Container: "c", Run: 4}}}
	ch, _ := r.ask(ask.ExecStats, runs)
	a := <-ch
	var s ask.Stats
	if err := json.Unmarshal(a.Body, &s); err != nil || a.Error != nil || len(s.Runs) != 1 || s.Runs[0].Pids != 3 || s.Runs[0].Interfaces[0].RxBytes != 9 || !s.Runs[0].Running {
		t.Errorf("stats: %s, %+v, %v", a.Body, a.Error, err)
	}
	ch, _ = r.ask(ask.ExecProcesses, runs.Runs[0])
	if a = <-ch; !strings.Contains(string(a.Body), `"args":["sh"]`) {
		t.Errorf("processes: %s, %+v", a.Body, a.Error)
	}
	ch, _ = r.ask(ask.ExecStatPath, ask.Copy{Container: "c", Path: "/there"})
	var p query.PathStat
	if a = <-ch; json.Unmarshal(a.Body, &p) != nil || p.Size != 4 {
		t.Errorf("a path: %s, %+v", a.Body, a.Error)
	}
	ch, _ = r.ask(ask.ExecStatPath, ask.Copy{Container: "c", Path: "/nope"})
	if a = <-ch; !errdefs.IsNotFound(a.Error.Err()) {
		t.Errorf("no path: %+v", a.Error)
	}
	ch, _ = r.ask(ask.ExecCopyIn, ask.Copy{
		Container: "c", Path: "/x", Socket: "00ff", KeepIDs: true, Rootfs: []core.Mount{{Type: "overlay"}},
		Mounts: []core.MountSpec{{Type: "bind", Source: "/s", Target: "/t"}},
	})
	if a = <-ch; a.Error != nil {
		t.Errorf("copy: %+v", a.Error)
	}
	if c := asked[execdriver.Copy](r, "copy"); c.Socket != "00ff" || !c.KeepIDs || c.Mounts[0].Options[0] != "rbind" || len(c.Rootfs) != 1 {
		t.Errorf("copied %+v", c)
	}
	ch, _ = r.ask("exec.dance", nil)
	if a = <-ch; !errdefs.IsNotImplemented(a.Error.Err()) {
		t.Errorf("an unknown question: %+v", a.Error)
	}
	ch, _ = r.ask(ask.RootfsChanges, nil)
	if a = <-ch; !errdefs.IsNotImplemented(a.Error.Err()) {
		t.Errorf("a question to another kind of driver: %+v", a.Error)
	}
}

// Questions that hang keep no step waiting, end when they are taken back, and are
// bounded in number.
func TestHungQuestions(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	r.be("exec/fake", "hung")
	var answers []chan bus.Answer
	var asks []bus.Ask
	for range asksAtOnce {
		ch, a := r.ask(ask.ExecStats, ask.Runs{Runs: []ask.Run{{Container: "c", Run: 4}}})
		answers, asks = append(answers, ch), append(asks, a)
	}
	ch, _ := r.ask(ask.ExecStats, ask.Runs{})
	if a := <-ch; !errdefs.IsResourceExhausted(a.Error.Err()) {
		t.Errorf("one too many: %+v", a.Error)
	}
	begun := time.Now()
	r.good(r.step("exec/fake", &core.Freeze{Container: "c", Run: 1}))
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("a step took %v beside questions that hang", took)
	}
	r.until("all questions", func() bool { return r.noted("exec/fake", "stats") == asksAtOnce })
	for n, a := range asks {
		r.cancel(bus.Step{Kind: "exec", Driver: "fake", ID: a.ID, Epoch: 1})
		if got := <-answers[n]; !errdefs.IsCanceled(got.Error.Err()) {
			t.Fatalf("one that was taken back: %+v", got.Error)
		}
	}
	r.until("the driver's end of them", func() bool { return r.noted("exec/fake", "stats-ended") == asksAtOnce })
}

// A question that a driver dies over is answered by the next one.
func TestQuestionsOutliveADriver(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	r.be("exec/fake", "hung")
	ch, _ := r.ask(ask.ExecStats, ask.Runs{Runs: []ask.Run{{Container: "c", Run: 4}}})
	r.until("the question", func() bool { return r.noted("exec/fake", "stats") == 1 })
	r.be("exec/fake", "")
	if err := unix.Kill(r.pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if a := <-ch; a.Error != nil || r.noted("exec/fake", "stats") != 2 {
		t.Errorf("after its death: %+v, asked %d times", a.Error, r.noted("exec/fake", "stats"))
	}
}

// Health is probed by the driver that serves, told when it changes, and outlives
// the driver: that it is away is no failure.
func TestHealthOverTheDeathOfADriver(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	r.good(r.step("exec/fake", &core.WatchHealth{
		Container: "c", Run: 1, Status: core.HealthStarting, Started: time.Now(),
		Spec:    core.Health{Test: []string{"CMD", "true"}, Interval: 10 * time.Millisecond, Timeout: time.Second, Retries: 2},
		Process: core.Process{User: "app"},
	}))
	status := func(want ...string) func() bool {
		return func() bool {
			var got []string
			for _, p := range r.bus.reports {
				var h core.ReportHealth
				if p.Name == "container.report-health" && json.Unmarshal(p.Body, &h) == nil {
					got = append(got, h.Status)
				}
			}
			return fmt.Sprint(got) == fmt.Sprint(want)
		}
	}
	r.until("healthy", status(core.Healthy))
	if p := asked[execdriver.Probe](r, "probe"); p.Process.User != "app" || p.Keep != outputKept || p.Timeout != time.Second || p.Run != 1 {
		t.Errorf("probed %+v", p)
	}
	for n := range 3 {
		if err := unix.Kill(r.pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.until("another driver", func() bool { return len(r.bus.drivers(false)) == n+2 })
		time.Sleep(30 * time.Millisecond)
	}
	if n := len(r.reported("container.report-health")); n != 1 {
		t.Errorf("%d changes were told: %v", n, r.reported("container.report-health"))
	}
	r.be("exec/fake", "sick")
	r.until("unhealthy", status(core.Healthy, core.Unhealthy))
	r.good(r.step("exec/fake", &core.Freeze{Container: "c", Run: 1}))
	before := r.noted("exec/fake", "probe")
	time.Sleep(60 * time.Millisecond)
	if after := r.noted("exec/fake", "probe"); after > before+1 { // one may have been under way
		t.Errorf("%d probes of a frozen container", after-before)
	}
	r.good(r.step("exec/fake", &core.Thaw{Container: "c", Run: 1}))
	r.be("exec/fake", "")
	r.until("healthy again", status(core.Healthy, core.Unhealthy, core.Healthy))
	r.good(r.step("exec/fake", &core.UnwatchHealth{Container: "c", Run: 1}))
	before = r.noted("exec/fake", "probe")
	time.Sleep(60 * time.Millisecond)
	if after := r.noted("exec/fake", "probe"); after > before+1 {
		t.Errorf("%d probes after the watch ended", after-before)
	}
}
