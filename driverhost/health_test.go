package driverhost

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// clinic is a prober whose probes are answered by a function.
type clinic struct {
	*prober
	t *testing.T

	mu      sync.Mutex
	answer  func(execdriver.Probe) (execdriver.Probed, error)
	probes  []time.Time
	reports []core.ReportHealth
	refuse  bool // reports do not arrive
	refused int
}

func newClinic(t *testing.T, answer func(execdriver.Probe) (execdriver.Probed, error)) *clinic {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c := &clinic{prober: newProber(), t: t, answer: answer}
	c.probe = func(ctx context.Context, r execdriver.Probe) (execdriver.Probed, error) {
		c.mu.Lock()
		c.probes = append(c.probes, time.Now())
		answer := c.answer
		c.mu.Unlock()
		out, err := answer(r)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		return out, err
	}
	c.tell = func(_ context.Context, r *core.ReportHealth) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.refuse {
			c.refused++
			return errclass.Errorf(errdefs.ErrUnavailable, "no engine")
		}
		c.reports = append(c.reports, *r)
		return nil
	}
	go c.run(ctx)
	return c
}

func (c *clinic) say(answer func(execdriver.Probe) (execdriver.Probed, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func code(n int) func(execdriver.Probe) (execdriver.Probed, error) {
	return func(execdriver.Probe) (execdriver.Probed, error) {
		return execdriver.Probed{Code: n, Output: []byte(fmt.Sprint("code ", n)), Begun: time.Now(), Ended: time.Now()}, nil
	}
}

func broken(class error) func(execdriver.Probe) (execdriver.Probed, error) {
	return func(execdriver.Probe) (execdriver.Probed, error) {
		return execdriver.Probed{}, errclass.Errorf(class, "no probe")
	}
}

// until waits for a number of reports and gives the last one.
func (c *clinic) until(n int) core.ReportHealth {
	c.t.Helper()
	c.wait(fmt.Sprint(n, " reports"), func() bool { return len(c.reports) >= n })
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reports[n-1]
}

// wait waits for something that is told under the clinic's lock.
func (c *clinic) wait(what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		ok := f()
		c.mu.Unlock()
		if ok {
			return
		}
	}
	c.t.Fatalf("never came: %s", what)
}

// made waits for that many probes.
func (c *clinic) made(n int) {
	c.t.Helper()
	c.wait(fmt.Sprint(n, " probes"), func() bool { return len(c.probes) >= n })
}

func (c *clinic) counts() (probes, reports int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.probes), len(c.reports)
}

// patient is a step for one container's watch.
func patient(n int, h core.Health) *core.WatchHealth {
	h.Test = []string{"CMD", "true"}
	return &core.WatchHealth{
		Container: core.ContainerID(fmt.Sprintf("%064x", n)), Run: 1, Spec: h, Status: core.HealthStarting, Started: time.Now(),
	}
}

func TestHealthIsToldWhenItChanges(t *testing.T) {
	c := newClinic(t, code(0))
	c.watch(watchOf(patient(1, core.Health{Interval: 5 * time.Millisecond, Retries: 3})))
	if r := c.until(1); r.Status != core.Healthy || r.Streak != 0 || len(r.Probes) != 1 || r.Probes[0].Output != "code 0" {
		t.Errorf("first report: %+v", r)
	}
	c.made(4)
	if probes, reports := c.counts(); reports != 1 {
		t.Errorf("%d probes, %d reports: want several and one", probes, reports)
	}
	c.say(code(1))
	r := c.until(2)
	if r.Status != core.Unhealthy || r.Streak != 3 || len(r.Probes) != 5 {
		t.Errorf("second report: %+v", r)
	}
	if p := r.Probes; p[4].Code != 1 || p[2].Code != 1 || p[1].Code != 0 {
		t.Errorf("the last probes: %+v", p)
	}
	c.say(code(0))
	if r := c.until(3); r.Status != core.Healthy || r.Streak != 0 {
		t.Errorf("third report: %+v", r)
	}
	c.unwatch(execdriver.Key{Container: string(r.Container), Run: 1})
	c.wait("the end of the last probe", func() bool { return c.prober.underWay() == 0 })
	before, _ := c.prober.numbers()
	probes, _ := c.counts()
	time.Sleep(30 * time.Millisecond)
	if after, _ := c.counts(); after != probes || before != 0 {
		t.Errorf("%d probes after the watch ended, %d watches", after-probes, before)
	}
}

// numbers are those of watches and of what waits.
func (p *prober) numbers() (watches, due int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.watches), len(p.due)
}

// underWay is how many probes run.
func (p *prober) underWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

func TestFailuresInTheStartPeriodDoNotCount(t *testing.T) {
	c := newClinic(t, code(1))
	c.watch(watchOf(patient(1, core.Health{
		Interval: time.Hour, StartPeriod: time.Hour, StartInterval: time.Millisecond, Retries: 1,
	})))
	c.made(6) // by the start interval
	if _, reports := c.counts(); reports != 0 {
		t.Errorf("%d reports of failures in the start period", reports)
	}
	// After it they count.
	c = newClinic(t, code(1))
	st := patient(3, core.Health{Interval: time.Millisecond, StartPeriod: 50 * time.Millisecond, StartInterval: time.Millisecond, Retries: 1})
	c.watch(watchOf(st))
	r := c.until(1)
	if begun := r.Probes[len(r.Probes)-1].Begun; r.Status != core.Unhealthy || r.Streak != 1 || begun.Sub(st.Started) < 50*time.Millisecond {
		t.Errorf("%+v, begun %v after the start", r, begun.Sub(st.Started))
	}
	// Once healthy, a failure counts in the start period, too, and the interval does.
	c = newClinic(t, code(0))
	c.watch(watchOf(patient(2, core.Health{
		Interval: 20 * time.Millisecond, StartPeriod: time.Hour, StartInterval: time.Millisecond, Retries: 2,
	})))
	c.until(1)
	c.say(code(7))
	if r := c.until(2); r.Status != core.Unhealthy || r.Streak != 2 || r.Probes[0].Code != 0 {
		t.Errorf("a failure of a healthy one: %+v", r)
	}
}

func TestWhatIsNotTheContainersFaultDoesNotCount(t *testing.T) {
	for _, class := range []error{errdefs.ErrUnavailable, errdefs.ErrFailedPrecondition, errdefs.ErrAborted} {
		c := newClinic(t, broken(class))
		c.watch(watchOf(patient(1, core.Health{Interval: 2 * time.Millisecond, Retries: 1})))
		c.made(4)
		if probes, reports := c.counts(); reports != 0 {
			t.Errorf("%v: %d probes, %d reports", class, probes, reports)
		}
	}
	c := newClinic(t, broken(errdefs.ErrNotFound)) // its program is not there: that is its fault
	c.watch(watchOf(patient(1, core.Health{Interval: 2 * time.Millisecond, Retries: 1})))
	if r := c.until(1); r.Status != core.Unhealthy || r.Probes[0].Code != -1 || r.Probes[0].Output != "no probe" {
		t.Errorf("a program that is not there: %+v", r)
	}
}

func TestATimeoutIsAFailure(t *testing.T) {
	c := newClinic(t, func(r execdriver.Probe) (execdriver.Probed, error) {
		return execdriver.Probed{TimedOut: true, Code: 137, Output: []byte(strings.Repeat("x", r.Keep)), Begun: time.Now(), Ended: time.Now()}, nil
	})
	c.watch(watchOf(patient(1, core.Health{Interval: time.Millisecond, Timeout: 3 * time.Second, Retries: 1})))
	r := c.until(1)
	if p := r.Probes[0]; p.Code != -1 || !p.TimedOut || len(p.Output) != outputKept || !strings.HasPrefix(p.Output, "Health check exceeded timeout (3s)") {
		t.Errorf("told as %d %v %.60q, %d bytes", p.Code, p.TimedOut, p.Output, len(p.Output))
	}
}

func TestAPausedContainerIsNotProbed(t *testing.T) {
	release := make(chan struct{})
	c := newClinic(t, func(execdriver.Probe) (execdriver.Probed, error) { <-release; return execdriver.Probed{Code: 1}, nil })
	st := patient(1, core.Health{Interval: 5 * time.Millisecond, Retries: 1})
	c.watch(watchOf(st))
	for probes := 0; probes == 0; probes, _ = c.counts() {
		time.Sleep(time.Millisecond)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		close(release) // the probe ends because it is told to
	}()
	resume := c.pause(string(st.Container))
	time.Sleep(40 * time.Millisecond)
	if probes, reports := c.counts(); probes != 1 || reports != 0 {
		t.Errorf("while paused: %d probes, %d reports; want the one that ran, and none", probes, reports)
	}
	c.say(code(0))
	resume()
	resume() // twice is once
	if r := c.until(1); r.Status != core.Healthy {
		t.Errorf("after it: %+v", r)
	}
	if _, due := c.numbers(); due > 1 {
		t.Errorf("it waits %d times", due)
	}
}

func TestAChangeThatIsNotTakenIsToldAgain(t *testing.T) {
	c := newClinic(t, code(0))
	c.refuse = true
	c.watch(watchOf(patient(1, core.Health{Interval: 2 * time.Millisecond})))
	c.wait("a report that is not taken", func() bool { return c.refused > 0 })
	c.mu.Lock()
	c.refuse = false
	c.mu.Unlock()
	if r := c.until(1); r.Status != core.Healthy {
		t.Errorf("%+v", r)
	}
}

// TestAChangeDoesNotOvertake: while the engine is slow to take a change there comes
// another one. It is told when the first was taken, and not beside it.
func TestAChangeDoesNotOvertake(t *testing.T) {
	c := newClinic(t, code(0))
	take := c.tell
	slow, telling := make(chan struct{}), make(chan struct{}, 100)
	c.tell = func(ctx context.Context, r *core.ReportHealth) error {
		telling <- struct{}{}
		<-slow
		return take(ctx, r)
	}
	c.watch(watchOf(patient(1, core.Health{Interval: 2 * time.Millisecond, Retries: 1})))
	<-telling
	c.say(code(1))
	before, _ := c.counts()
	c.wait("more probes", func() bool { return len(c.probes) > before+2 })
	if n := len(telling); n > 0 {
		t.Errorf("%d more are told beside the first", n)
	}
	close(slow)
	if r := c.until(2); r.Status != core.Unhealthy {
		t.Errorf("the last: %+v", r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reports[0].Status != core.Healthy || len(c.reports) != 2 {
		t.Errorf("told: %+v", c.reports)
	}
}

func TestALaterRunTakesTheWatchOver(t *testing.T) {
	c := newClinic(t, code(0))
	st := patient(1, core.Health{Interval: time.Hour})
	c.watch(watchOf(st))
	c.watch(watchOf(st)) // asked again, it goes on
	st.Run = 2
	c.watch(watchOf(st))
	c.unwatch(execdriver.Key{Container: string(st.Container), Run: 1}) // of the run before
	if watches, due := c.numbers(); watches != 1 || due != 1 {
		t.Errorf("%d watches, %d wait", watches, due)
	}
	c.unwatch(execdriver.Key{Container: string(st.Container), Run: 2})
	if watches, due := c.numbers(); watches != 0 || due != 0 {
		t.Errorf("%d watches, %d wait after the end", watches, due)
	}
}

// Two hundred containers cost no goroutine each, and no more than so many probes
// run at once; being late is no failure.
func TestManyPatients(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	c := newClinic(t, func(execdriver.Probe) (execdriver.Probed, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
		return execdriver.Probed{}, nil
	})
	for n := range 200 {
		c.watch(watchOf(patient(n, core.Health{Interval: time.Millisecond})))
	}
	c.until(200)
	mu.Lock()
	defer mu.Unlock()
	if most > probesAtOnce {
		t.Errorf("%d probes at once", most)
	}
	for _, r := range c.reports {
		if r.Status != core.Healthy {
			t.Errorf("%+v", r)
		}
	}
}

func TestWhatIsProbed(t *testing.T) {
	st := patient(1, core.Health{})
	st.Spec.Test = []string{"CMD-SHELL", "curl -f localhost || exit 1"}
	st.Process = core.Process{User: "app", Cwd: "/srv", TTY: true, Env: []core.Env{{Name: "A", Value: "b"}}}
	w := watchOf(st)
	got := fmt.Sprintf("%q %s %s %v %v", w.process.Args, w.process.User, w.process.Cwd, w.process.Env, w.process.TTY)
	if got != `["/bin/sh" "-c" "curl -f localhost || exit 1"] app /srv [A=b] false` {
		t.Errorf("probed with %s", got)
	}
	if w.timeout() != 30*time.Second || w.interval(time.Now()) != 30*time.Second {
		t.Errorf("Docker's defaults: %v, %v", w.timeout(), w.interval(time.Now()))
	}
}
