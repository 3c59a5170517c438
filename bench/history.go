package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
)

// history writes a log as a long-lived engine would have: whole lives of
// containers, decided by the core, with a world that always answers.
type history struct {
	log    *eventlog.Journal
	s      *core.State
	clock  time.Time
	jobs   int
	frames []eventlog.Frame
	err    error
}

// framesAtOnce is how many decisions are written with one fdatasync here; an
// engine writes what is queued.
const framesAtOnce = 4096

// newHistory begins a log, or goes on with one.
func newHistory(log *eventlog.Journal, s *core.State, jobs int) *history {
	return &history{log: log, s: s, clock: time.Now().Add(-time.Hour), jobs: jobs}
}

func hexID(kind byte, n int) string { return fmt.Sprintf("%c%063x", kind, n) }

// begin records the engine's first start, and an image. The engine goes on with
// it under the same name, after the same boot.
func (h *history) begin(name string) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		h.err = err
		return
	}
	h.send(&core.StartEngine{
		ID: "11111111-1111-4111-8111-111111111111", Name: name, Version: "0.1.0", BootID: strings.TrimSpace(string(boot)),
		Drivers: core.Choice{Graph: "overlay", Exec: "native", Image: "oci"},
		Pool:    netip.MustParsePrefix("10.9.0.0/16"), PoolBits: 24,
		Networks: [3]core.NetworkID{core.NetworkID(hexID('1', 1)), core.NetworkID(hexID('2', 2)), core.NetworkID(hexID('3', 3))},
	}, "")
	h.job(&core.LoadImage{Archive: "/archive.tar"})
}

// events writes whole lives until the log holds about n events. Every hundredth
// container is kept, stopped, until there are 200.
func (h *history) events(n uint64) error {
	for h.s.Seq < n && h.err == nil {
		id := core.ContainerID(hexID('c', h.jobs+1))
		keep := h.jobs%100 == 0 && len(h.s.Containers) < 200
		h.job(&core.CreateContainer{
			ID: id, Name: fmt.Sprint("life-", h.jobs), Image: "docker.io/library/busybox:latest", Want: core.Running, AutoRemove: !keep,
			Spec: core.Spec{Process: core.Process{Cmd: []string{"true"}}},
		})
		h.send(&core.ReportExit{Container: id, Run: 1, Time: h.clock}, "")
		if len(h.s.Ended) > core.JobsKept+500 {
			h.send(&core.ForgetJobs{}, "")
		}
	}
	h.flush()
	return h.err
}

func (h *history) job(c core.Command) {
	h.jobs++
	h.send(c, core.JobID(fmt.Sprintf("01900000-0000-7000-8000-%012x", h.jobs)))
}

// send decides on a command and on all that follows from it.
func (h *history) send(c core.Command, job core.JobID) {
	for _, n := range h.decide(c, job) {
		for _, st := range core.Next(h.s, n) {
			if kind, _ := st.Driver(); kind != "" && h.err == nil {
				h.send(&core.FinishStep{Step: st.ID(), Result: answer(st)}, "")
			}
		}
	}
}

func (h *history) decide(c core.Command, job core.JobID) []core.Noun {
	h.clock = h.clock.Add(time.Millisecond)
	r := core.Request{Command: c, Job: job, Actor: core.Actor{Engine: job == ""}, Time: h.clock}
	if job != "" {
		r.Digest, r.Client = "0123456789abcdef0123456789abcdef", "gantry/0.1.0"
	}
	events, err := core.Decide(h.s, r)
	if err != nil {
		h.err = fmt.Errorf("%s: %w", core.CommandName(c), err)
	}
	if h.err != nil || len(events) == 0 {
		return nil
	}
	f := eventlog.Frame{First: events[0].Head().Seq, Count: uint32(len(events)), Time: h.clock, Schema: 1}
	var touched []core.Noun
	for _, e := range events {
		line, err := core.EncodeEvent(e)
		if err != nil {
			h.err = err
			return nil
		}
		f.Payload = append(append(f.Payload, line...), '\n')
		touched = append(touched, h.s.Apply(e)...)
	}
	if h.frames = append(h.frames, f); len(h.frames) >= framesAtOnce {
		h.flush()
	}
	return touched
}

func (h *history) flush() {
	if h.err == nil && len(h.frames) > 0 {
		_, h.err = h.log.Append(h.frames)
		h.frames = h.frames[:0]
	}
}

// answer is what a driver would bring back.
func answer(st core.Step) core.Result {
	switch st := st.(type) {
	case core.PrepareRootfs:
		dir := "/var/lib/gantry/drivers/graphdriver-overlay/"
		return core.Result{Mounts: []core.Mount{{Type: "overlay", Source: "overlay", Target: "/", Options: []string{
			"lowerdir+=" + dir + "layers/ucu7xznoy5t3loqdkgeoecpkvi/fs", "upperdir=" + dir + "rootfs/" + string(st.Container) + "/upper",
			"workdir=" + dir + "rootfs/" + string(st.Container) + "/work",
		}}}}
	case core.AttachNetwork:
		return core.Result{Endpoint: &core.Endpoint{
			Namespace: core.Namespace{Mode: "path", Path: "/proc/4711/fd/3", Inode: 4026532000}, Interface: "eth0",
		}}
	case core.StartProcess:
		return core.Result{Started: &core.Started{PID: 4711, Log: "/var/lib/gantry/drivers/exec-native/" + string(st.Container) + "/output.log"}}
	case core.LoadArchive:
		return core.Result{Images: []core.LoadedImage{loadedImage()}}
	}
	return core.Result{}
}

func loadedImage() core.LoadedImage {
	digest := func(n int) string { return "sha256:" + fmt.Sprintf("%064x", n) }
	return core.LoadedImage{
		ID: core.ImageID(digest(1)), Manifest: digest(2), Names: []string{"docker.io/library/busybox:latest"},
		Layers: []core.ImageLayer{{
			ID: core.LayerID(digest(3)), DiffID: digest(3), Digest: digest(4), MediaType: "application/vnd.oci.image.layer.v1.tar", Size: 7, Path: "/blobs/4",
		}},
		Size: 12, OS: "linux", Architecture: "amd64",
		Config: core.ImageConfig{Cmd: []string{"sh"}, Env: []core.Env{{Name: "PATH", Value: "/bin"}}},
	}
}

// jobsOf is how many jobs a state's history has had, as hex ids count them.
func jobsOf(s *core.State) int {
	most := 0
	for id := range s.Jobs {
		var n int
		if _, err := fmt.Sscanf(string(id[24:]), "%x", &n); err == nil && strings.HasPrefix(string(id), "01900000-") {
			most = max(most, n)
		}
	}
	return most
}
