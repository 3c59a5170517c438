package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// lived is a world with one running and one ended container.
func lived(t *testing.T) *world {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "frontend", core.Running))
	w.settle()
	w.pass(time.Second)
	w.say("container.create", create(2, "backend", core.Running))
	w.settle()
	w.exit(2, 1, 3)
	w.settle()
	return w
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestLists(t *testing.T) {
	w := lived(t)
	running := must[query.Containers](t)(inquire[query.Containers](w, query.ContainerList, nil))
	if len(running.Containers) != 1 || running.Containers[0].Name != "frontend" || running.Seq != w.e.durable.Seq {
		t.Errorf("running: %+v", running)
	}
	all := must[query.Containers](t)(inquire[query.Containers](w, query.ContainerList, query.ListIn{All: true}))
	if len(all.Containers) != 2 || all.Containers[0].Name != "backend" || all.Containers[0].Exit.Code != 3 || all.Containers[0].Status != "exited" {
		t.Errorf("all, newest first: %+v", all)
	}
	c := running.Containers[0]
	if !c.Running || c.PID != 42 || len(c.Networks) != 1 || c.Networks[0].NetworkName != "bridge" || !c.Networks[0].Address.IP.IsValid() ||
		!slices.Equal(c.Holds, []string{"rootfs", "net-bridge", "process", "log"}) {
		t.Errorf("in a line: %+v", c)
	}
	images := must[query.Images](t)(inquire[query.Images](w, query.ImageList, nil))
	if len(images.Images) != 1 || images.Images[0].Containers != 2 || !images.Images[0].Ready || images.Images[0].Unpacked != 1 {
		t.Errorf("images: %+v", images)
	}
	networks := must[query.Networks](t)(inquire[query.Networks](w, query.NetworkList, nil))
	if len(networks.Networks) != 3 || networks.Networks[0].Name != "bridge" || !networks.Networks[0].Held {
		t.Errorf("networks: %+v", networks)
	}
	drivers := must[query.Drivers](t)(inquire[query.Drivers](w, query.DriverList, nil))
	if len(drivers.Drivers) != 6 || drivers.Drivers[0].ID != "exec/native" || drivers.Drivers[0].Instance != "instance-1" {
		t.Errorf("drivers: %+v", drivers)
	}
	jobs := must[query.Jobs](t)(inquire[query.Jobs](w, query.JobList, query.JobsIn{Noun: "container"}))
	if len(jobs.Jobs) != 2 || jobs.Jobs[0].Seq < jobs.Jobs[1].Seq || jobs.Jobs[0].State != core.JobDone {
		t.Errorf("jobs: %+v", jobs)
	}
	info := must[query.Info](t)(inquire[query.Info](w, query.EngineInfo, nil))
	if info.Containers != 2 || info.Running != 1 || info.Networks != 3 || info.Engine.Name != "test" {
		t.Errorf("info: %+v", info)
	}
	hash := must[query.Hash](t)(inquire[query.Hash](w, query.EngineHash, nil))
	if hash.Hash != w.e.durable.Hash() || hash.Log != w.log.Head().Hash.String() {
		t.Errorf("hash: %+v", hash)
	}
}

func TestInspect(t *testing.T) {
	w := lived(t)
	c := must[query.ContainerDetail](t)(inquire[query.ContainerDetail](w, query.ContainerInspect, query.RefIn{Ref: hexOf(1)[:64]}))
	if c.Name != "frontend" || c.State.Name != "frontend" || c.State.Run != 1 {
		t.Errorf("container: %+v", c)
	}
	i := must[query.ImageDetail](t)(inquire[query.ImageDetail](w, query.ImageInspect, query.RefIn{Ref: "aaaa"}))
	if len(i.Layers) != 1 || i.Layers[0].Slot.State != core.Held {
		t.Errorf("image: %+v", i)
	}
	n := must[query.NetworkDetail](t)(inquire[query.NetworkDetail](w, query.NetworkInspect, query.RefIn{Ref: "bridge"}))
	if len(n.Attachments) != 1 || n.Attachments[0].ContainerName != "frontend" {
		t.Errorf("network: %+v", n)
	}
	for _, ref := range []string{"exec/native", "exec-native", "gantry-exec-native"} {
		d := must[query.DriverDetail](t)(inquire[query.DriverDetail](w, query.DriverInspect, query.RefIn{Ref: ref}))
		if d.ID != "exec/native" || !d.Chosen {
			t.Errorf("driver %s: %+v", ref, d)
		}
	}
	job := must[query.Jobs](t)(inquire[query.Jobs](w, query.JobList, nil)).Jobs[0]
	j := must[query.JobDetail](t)(inquire[query.JobDetail](w, query.JobInspect, query.RefIn{Ref: string(job.ID)}))
	if j.Job.ID != job.ID || j.Job.Actor.UID != 7 {
		t.Errorf("job: %+v", j)
	}
}

func TestWrongNamesGetTheNearestRightOne(t *testing.T) {
	w := lived(t)
	for _, c := range []struct{ name, ref, hint string }{
		{query.ContainerInspect, "frontent", "did you mean frontend?"},
		{query.ContainerInspect, "Backend", "did you mean backend?"},
		{query.ContainerInspect, "zzzzzz", ""},
		{query.NetworkInspect, "brigde", "did you mean bridge?"},
		{query.DriverInspect, "net/brige", "did you mean net/bridge?"},
		{query.ImageInspect, "docker.io/library/busybix:latest", "did you mean busybox?"},
		{query.NounResolve, "frontnd", "did you mean frontend?"},
	} {
		_, err := inquire[json.RawMessage](w, c.name, query.RefIn{Ref: c.ref})
		if !errdefs.IsNotFound(err) || errclass.Hint(err) != c.hint {
			t.Errorf("%s %s: %v, hint %q, want %q", c.name, c.ref, err, errclass.Hint(err), c.hint)
		}
	}
	if _, err := inquire[json.RawMessage](w, query.ContainerInspect, query.RefIn{Ref: "0000"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an ambiguous prefix: %v", err)
	}
	if _, err := inquire[json.RawMessage](w, "no.such", nil); !errdefs.IsNotImplemented(err) {
		t.Errorf("an unknown query: %v", err)
	}
	r := must[query.Resolved](t)(inquire[query.Resolved](w, query.NounResolve, query.ResolveIn{Ref: "busybox"}))
	if r.Kind != "image" || r.Name != "docker.io/library/busybox:latest" {
		t.Errorf("busybox is %+v", r)
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		n    int
	}{{"", "", 0}, {"a", "", 1}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"same", "same", 0}} {
		if n := edits(c.a, c.b, 9); n != c.n {
			t.Errorf("from %q to %q: %d, want %d", c.a, c.b, n, c.n)
		}
	}
}

// events are the names of a page's events.
func events(t *testing.T, p query.LogPage) []string {
	t.Helper()
	var names []string
	for _, line := range p.Events {
		var h eventHead
		if err := json.Unmarshal(line, &h); err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	return names
}

func TestReadLog(t *testing.T) {
	w := lived(t)
	get := func(in query.LogIn) query.LogPage {
		t.Helper()
		return must[query.LogPage](t)(inquire[query.LogPage](w, query.LogRead, in))
	}
	all := get(query.LogIn{})
	if !all.Done || uint64(len(all.Events)) != all.Head || all.Head != w.log.Head().Seq {
		t.Fatalf("%d of %d events, done %v", len(all.Events), all.Head, all.Done)
	}
	var paged []json.RawMessage
	for from := uint64(1); ; {
		p := get(query.LogIn{From: from, Limit: 7})
		if len(p.Events) > 7 {
			t.Fatalf("%d events in a page of 7", len(p.Events))
		}
		paged = append(paged, p.Events...)
		if from = p.Next; p.Done {
			break
		}
	}
	if len(paged) != len(all.Events) {
		t.Errorf("%d events in pages, %d at once", len(paged), len(all.Events))
	}
	about := get(query.LogIn{Noun: "container", ID: hexOf(2)})
	names := events(t, about)
	if names[0] != "job.accepted" || !slices.Contains(names, "container.exited") || !slices.Contains(names, "job.ended") {
		t.Errorf("about one container: %v", names)
	}
	for _, line := range about.Events {
		if !strings.Contains(string(line), hexOf(2)) && !strings.Contains(string(line), `"noun":"job"`) {
			t.Errorf("about another: %s", line)
		}
	}
	job := must[query.Jobs](t)(inquire[query.Jobs](w, query.JobList, nil)).Jobs[0]
	if names := events(t, get(query.LogIn{Job: string(job.ID)})); names[0] != "job.accepted" || len(names) < 4 {
		t.Errorf("of one job: %v", names)
	}
	uid, nobody := uint32(7), uint32(8)
	if n := len(get(query.LogIn{Actor: &uid}).Events); n < 10 {
		t.Errorf("%d events of uid 7", n)
	}
	if n := len(get(query.LogIn{Actor: &nobody}).Events); n != 0 {
		t.Errorf("%d events of uid 8", n)
	}
	if n := len(get(query.LogIn{Noun: "image"}).Events); n == 0 || n > 5 {
		t.Errorf("%d events about images", n)
	}
	if n := len(get(query.LogIn{Since: w.now}).Events); n == 0 || n >= len(all.Events) {
		t.Errorf("%d of %d events since the second container", n, len(all.Events))
	}
	if p := get(query.LogIn{From: 3, To: 5}); len(p.Events) != 3 || !p.Done {
		t.Errorf("from 3 to 5: %d events, done %v", len(p.Events), p.Done)
	}
	if p := get(query.LogIn{From: all.Head + 10}); len(p.Events) != 0 || !p.Done {
		t.Errorf("behind the end: %+v", p)
	}
}

func TestWhy(t *testing.T) {
	w := lived(t)
	chain := func(ref string) (names []string, last query.Link) {
		t.Helper()
		why := must[query.Why](t)(inquire[query.Why](w, query.ContainerWhy, query.RefIn{Ref: ref}))
		for _, l := range why.Chain {
			var h eventHead
			if err := json.Unmarshal(l.Event, &h); err != nil {
				t.Fatal(err)
			}
			names, last = append(names, h.Name), l
		}
		return names, last
	}
	names, last := chain("backend")
	// The endpoint goes beside the rest of the run: both are because of the exit.
	want := "container.process-released container.exited container.started " +
		"container.network-attached container.start-wanted job.accepted"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("an exit of its own:\n%s\nwant\n%s", got, want)
	}
	if last.Job == nil || last.Job.Actor.UID != 7 || last.Job.Command != "container.create" {
		t.Errorf("who asked: %+v", last.Job)
	}
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	w.exit(1, 1, 143)
	w.settle()
	names, last = chain("frontend")
	if !slices.Contains(names, "container.signaled") || !slices.Contains(names, "container.stop-wanted") || last.Job.Command != "container.stop" {
		t.Errorf("a stop: %v, by %+v", names, last.Job)
	}
	if _, err := inquire[query.Why](w, query.ContainerWhy, query.RefIn{Ref: "nobody"}); !errdefs.IsNotFound(err) {
		t.Errorf("nobody: %v", err)
	}
}

func TestOwedStepsAreShown(t *testing.T) {
	w := held(t, "container.start-process")
	steps := must[query.Steps](t)(inquire[query.Steps](w, query.StepList, nil)).Steps
	if len(steps) != 1 || steps[0].State != "running" || steps[0].Driver != "exec/native" || steps[0].Name != "container.start-process" {
		t.Errorf("in flight: %+v", steps)
	}
	d := must[query.ContainerDetail](t)(inquire[query.ContainerDetail](w, query.ContainerInspect, query.RefIn{Ref: "web"}))
	if len(d.Steps) != 1 || len(d.Jobs) != 1 {
		t.Errorf("of the container: %+v, %+v", d.Steps, d.Jobs)
	}
	dr := must[query.DriverDetail](t)(inquire[query.DriverDetail](w, query.DriverInspect, query.RefIn{Ref: "exec/native"}))
	if dr.InFlight != 1 || fmt.Sprint(dr.Steps) != fmt.Sprint(d.Steps) {
		t.Errorf("of the driver: %+v", dr)
	}
}
