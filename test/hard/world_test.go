package hard

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/test/rig"
)

// limit bounds a single wait: far more than anything needs.
const limit = 30 * time.Second

// world is an engine with an image, and a clock on how quickly it answers.
type world struct {
	t *testing.T
	*rig.Engine
	client *rig.Client
	empty  rig.Inventory // with the image and the network, without containers
	pulse  *pulse
}

// newWorld starts an engine that must end as it began: no container is left,
// nothing of one, and the log is whole. prepare, if there is one, is done to its
// directories before it starts.
func newWorld(t *testing.T, prepare func(e *rig.Engine)) *world {
	t.Helper()
	e, err := rig.New(rig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, Engine: e}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.Account())
		}
		if err := e.Close(); err != nil {
			t.Errorf("take the engine away: %v", err)
		}
	})
	if prepare != nil {
		prepare(e)
	}
	w.must(e.Start())
	w.connect()
	w.must(w.client.Load(w.within(), os.Getenv(archiveEnv)))
	w.gantry("run", "--rm", "busybox", "true") // so that all is there that stays
	w.must(w.client.Settle(w.within()))
	w.empty, err = w.AtRest(w.within())
	w.must(err)
	w.pulse = watch(t, e)
	return w
}

func (w *world) within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) connect() {
	w.t.Helper()
	if w.client != nil {
		_ = w.client.Close() // lost with the engine
	}
	var err error
	w.client, err = w.Dial(w.within())
	w.must(err)
}

// said is how a command ended.
type said struct {
	code   int
	out    string
	stderr string
	took   time.Duration
}

// call runs gantry, whatever comes of it.
func (w *world) call(args ...string) said {
	w.t.Helper()
	return w.finish(w.CLI(w.within(), args...))
}

// command runs another program, whatever comes of it.
func (w *world) command(name string, args ...string) said {
	w.t.Helper()
	return w.finish(exec.CommandContext(w.within(), name, args...))
}

func (w *world) finish(cmd *exec.Cmd) said {
	w.t.Helper()
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	begun := time.Now()
	err := cmd.Run()
	s := said{out: out.String(), stderr: complaint.String(), took: time.Since(begun)}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		s.code = exit.ExitCode()
	} else if err != nil {
		w.t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, s.stderr)
	}
	return s
}

// gantry runs a command that must succeed.
func (w *world) gantry(args ...string) string {
	w.t.Helper()
	s := w.call(args...)
	if s.code != 0 {
		w.t.Fatalf("gantry %s: code %d: %s", strings.Join(args, " "), s.code, s.stderr)
	}
	return strings.TrimSpace(s.out)
}

// refused runs a command that must end with a code and say what fits a pattern.
func (w *world) refused(code int, pattern string, args ...string) {
	w.t.Helper()
	s := w.call(args...)
	if s.code != code || !regexp.MustCompile("(?m)"+pattern).MatchString(s.stderr) {
		w.t.Errorf("gantry %s: code %d, want %d; it says %q, want %q", strings.Join(args, " "), s.code, code, s.stderr, pattern)
	}
}

// until waits for something that takes a moment.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// container tells all about one.
func (w *world) container(name string) query.ContainerDetail {
	w.t.Helper()
	d, err := w.client.Container(w.within(), name)
	w.must(err)
	return d
}

// ended waits for the end of a container's run.
func (w *world) ended(name string) core.Exit {
	w.t.Helper()
	var exit *core.Exit
	w.until(name+" ends", func() bool {
		d := w.container(name)
		exit = d.Exit
		return !d.Running && exit != nil && exit.Run == d.Run
	})
	return *exit
}

// groupPids are the processes in the cgroup of a container's run.
func (w *world) groupPids(d *query.ContainerDetail) []int {
	var pids []int
	for _, pid := range w.Pids() {
		group, _ := os.ReadFile(procFile(pid, "cgroup")) // it may be gone
		if strings.Contains(string(group), "/containers/"+string(d.ID)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// over removes what is left, and checks that nothing is then, that the log is
// whole, and that the engine answered all the while.
func (w *world) over() {
	w.t.Helper()
	list, err := w.client.Containers(w.within())
	w.must(err)
	for _, c := range list {
		w.must(w.client.Do(w.within(), &core.RemoveContainer{ID: c.ID, Force: true}))
	}
	w.must(w.client.Agrees(w.within(), w.Engine))
	if err := w.Becomes(w.within(), w.empty); err != nil {
		w.t.Errorf("at the end: %v", err)
	}
	w.pulse.end()
	w.must(w.VerifyLive(w.within()))
}

// pulse asks for the list of containers again and again, as ps does.
type pulse struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	took   []time.Duration // of the last one as long as it was waited for
	late   []time.Duration // by how much each pause was longer than asked for
	err    error
}

const (
	// pulsePause is the time between an answer and the next question.
	pulsePause = 10 * time.Millisecond
	// usual bounds the half of many answers, on a machine that wakes everybody at once.
	// One that others use as well does not: an answer takes wakes of them, each as late
	// as one that has slept.
	usual = 5 * time.Millisecond
	many  = 50
	wakes = 4 // the connection's reader and who answers, and the same on the way back
	// hangs is what no answer takes on any machine: it comes from memory.
	hangs = 5 * time.Second
)

func watch(t *testing.T, e *rig.Engine) *pulse {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pulse{t: t, cancel: cancel, done: make(chan struct{})}
	c, err := e.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			begun := time.Now()
			_, err := c.Containers(ctx)
			p.took = append(p.took, time.Since(begun))
			if err != nil {
				if ctx.Err() == nil {
					p.err = err
				}
				break
			}
			rest := time.Now()
			time.Sleep(pulsePause)
			p.late = append(p.late, time.Since(rest)-pulsePause)
		}
		_ = c.Close() // it was only read
	}()
	t.Cleanup(p.stop)
	return p
}

func (p *pulse) stop() {
	p.cancel()
	<-p.done
}

// end sees that the engine always answered, and was quick with half of its answers.
func (p *pulse) end() {
	p.t.Helper()
	p.stop()
	if p.err != nil {
		p.t.Errorf("the list of containers: %v", p.err)
	}
	if len(p.took) == 0 {
		p.t.Fatal("nobody has asked for the list of containers")
	}
	slices.Sort(p.took)
	slices.Sort(p.late)
	n := len(p.took)
	median, most := p.took[n/2], p.took[n-1]
	var late time.Duration
	if len(p.late) > 0 {
		late = p.late[len(p.late)/2]
	}
	p.t.Logf("%d lists of containers: median %v, most %v; woken late by %v", n, median, most, late)
	bound := usual + wakes*late
	if testing.Short() {
		bound *= 20 // a machine that qemu translates
	}
	if n >= many && median > bound || most > hangs {
		p.t.Errorf("%d lists of containers took %v, one of them %v", n, median, most)
	}
}

// patient is a flag of run: who stops such a container otherwise than at once, though
// told to, does not come back within the limit.
const patient = "--stop-timeout=1000"

// helper binds the ill program into a container.
func helper() string { return "--volume=" + os.Getenv(helperEnv) + ":/helper:ro" }

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
