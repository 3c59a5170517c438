package core

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// lives drives the core through whole lives of containers, as an engine would:
// decide, apply, ask what is owed, finish it. Nothing is checked on the way.
type lives struct {
	tb        testing.TB
	s         *State
	w         *world
	answer    func(Step) Result // what a step brings back
	clock     time.Time
	n         int
	decisions int
	keep      func(Event) // nil: events are dropped
}

func newLives(tb testing.TB, keep func(Event)) *lives {
	l := &lives{tb: tb, s: NewState(), w: newWorld(tb), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), keep: keep}
	l.answer = l.w.do
	l.w.exited = func(id ContainerID) bool { return l.s.Containers[id].over() }
	l.w.images = []LoadedImage{loaded("a")}
	l.send(startEngine("boot-1"), "")
	l.job(&LoadImage{Archive: "/archive"})
	return l
}

// job sends c as a new job.
func (l *lives) job(c Command) {
	l.n++
	l.send(c, JobID(fmt.Sprintf("01900000-0000-7000-8000-%012x", l.n)))
}

// send decides on c and on everything that follows from it until nothing is owed.
func (l *lives) send(c Command, job JobID) {
	for _, n := range l.decide(c, job) {
		for st := l.owing(n); st != nil; st = l.owing(n) { // one may bring the end of what another is owed for
			l.send(&FinishStep{Step: st.ID(), Result: l.answer(st)}, "")
		}
	}
}

// owing is the first step that n owes to a driver, or nil.
func (l *lives) owing(n Noun) Step {
	for _, st := range Next(l.s, n) {
		if kind, _ := st.Driver(); kind != "" {
			return st
		}
	}
	return nil
}

func (l *lives) decide(c Command, job JobID) []Noun {
	l.decisions++
	l.clock = l.clock.Add(time.Millisecond)
	r := Request{Command: c, Job: job, Actor: Actor{Engine: job == ""}, Time: l.clock}
	if job != "" {
		r.Digest = "0123456789abcdef0123456789abcdef"
	}
	events, err := Decide(l.s, r)
	if err != nil {
		l.tb.Fatalf("%T: %v", c, err)
	}
	var touched []Noun
	for _, e := range events {
		if l.keep != nil {
			l.keep(e)
		}
		touched = append(touched, l.s.Apply(e)...)
	}
	return touched
}

// one is the life of one container: created, started, exited, removed.
func (l *lives) one() {
	id := ContainerID(fmt.Sprintf("%064x", l.n+1))
	l.job(&CreateContainer{
		ID: id, Name: fmt.Sprint("life-", l.n), Image: "docker.io/library/a:latest", Want: Running, AutoRemove: true,
		Spec: Spec{Process: Process{Cmd: []string{"true"}}, Network: NetworkSpec{Network: "bridge"}},
	})
	l.send(&ReportExit{Container: id, Run: 1, Time: l.clock}, "")
	if l.s.Containers[id] != nil {
		l.tb.Fatalf("container %s is still there: %+v", id, l.s.Containers[id])
	}
	if len(l.s.Ended) > JobsKept+500 {
		l.send(&ForgetJobs{}, "")
	}
}

// BenchmarkDecisions is one operation for each life of a container on a bridge.
// A decision is Decide, Apply of its events and Next of the nouns they touch. The
// goal is 200,000 decisions a second.
func BenchmarkDecisions(b *testing.B) {
	l := newLives(b, nil)
	l.answer = l.w.result // the world's own checks are not the core's work
	l.decisions = 0
	b.ReportAllocs()
	for b.Loop() {
		l.one()
	}
	b.ReportMetric(float64(l.decisions)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkDecodeFold reads lines of the log and folds them, on one goroutine. The
// goal is 100,000 events a second.
func BenchmarkDecodeFold(b *testing.B) {
	var lines [][]byte
	l := newLives(b, func(e Event) {
		line, err := EncodeEvent(e)
		if err != nil {
			b.Fatal(err)
		}
		lines = append(lines, line)
	})
	for range 2000 {
		l.one()
	}
	b.ReportAllocs()
	bytes, folded := 0, 0
	for b.Loop() {
		s := NewState()
		for _, line := range lines {
			e, err := DecodeEvent(line)
			if err != nil {
				b.Fatal(err)
			}
			s.Apply(e)
			bytes += len(line)
		}
		folded += len(lines)
	}
	b.ReportMetric(float64(folded)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(bytes)/float64(folded), "bytes/event")
}

// BenchmarkRunningContainer tells what a container that runs costs in memory: in
// both folds of an engine, with the job that started it. The jobs' ids and
// digests count, too.
func BenchmarkRunningContainer(b *testing.B) {
	const containers = 2000
	perContainer := 0.0
	for b.Loop() {
		second := NewState()
		l := newLives(b, func(e Event) { second.Apply(e) })
		l.answer = l.w.result
		l.job(&NewNetwork{ID: netID("wide"), Name: "wide", Subnet: netip.MustParsePrefix("10.100.0.0/16")})
		before := heap()
		for range containers {
			l.running()
		}
		perContainer = float64(heap()-before) / containers
		if len(second.Containers) != containers || l.s.Hash() != second.Hash() {
			b.Fatalf("%d containers in the second fold, or another state", len(second.Containers))
		}
	}
	b.ReportMetric(perContainer, "bytes/container")
}

// running starts one container that stays.
func (l *lives) running() {
	digits := fmt.Sprintf("%064x", l.n+1)
	path := "/var/lib/gantry/drivers/graphdriver-overlay/rootfs/" + digits
	l.answer = func(st Step) Result {
		r := l.w.result(st)
		switch st.(type) {
		case PrepareRootfs:
			r.Mounts = []Mount{{Type: "overlay", Source: "overlay", Target: "/", Options: []string{
				"lowerdir+=" + path, "upperdir=" + path + "/upper", "workdir=" + path + "/work",
			}}}
		case StartProcess:
			r.Started.Log = "/var/lib/gantry/drivers/exec-native/" + digits + "/output.log"
		}
		return r
	}
	l.job(&CreateContainer{
		ID: ContainerID(digits), Name: fmt.Sprint("life-", l.n), Image: strings.Clone("docker.io/library/a:latest"), Want: Running,
		Spec: Spec{Process: Process{Cmd: []string{"true"}}, Network: NetworkSpec{Network: "wide"}},
	})
}

// heap is how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
