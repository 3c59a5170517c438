package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// driverRounds is how many lives are measured in a row, between two of the
// floor's rounds.
const driverRounds = 5

// driverBench is an exec driver in a process of its own, as the engine has it.
type driverBench struct {
	r       *rig
	d       execdriver.Driver
	dir     string // on the tmpfs
	network netdriver.Namespace
	runs    uint64
}

// quietT is all that opening a program asks of a test.
type quietT struct{ conform.T }

// Logf implements conform.T: what a driver says is of no interest here.
func (quietT) Logf(string, ...any) {}

// openDriver starts the driver; end ends it and removes its cgroups.
func (r *rig) openDriver() (b *driverBench, end func() error, err error) {
	b = &driverBench{r: r, dir: filepath.Join(r.run, "d")}
	cfg := driver.Config{
		EngineID: "bench", EngineName: r.name, Root: filepath.Join(r.scratch, "driver"), Run: filepath.Join(b.dir, "exec"),
		Libexec: r.bin, Cgroup: "/" + r.name + "-driver",
	}
	if err := os.MkdirAll(cfg.Run, 0o700); err != nil {
		return nil, nil, err
	}
	network, err := newNetwork()
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(network.Fd()), &st); err != nil {
		return nil, nil, err
	}
	b.network = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), network.Fd()), Inode: st.Ino}
	open := conform.Program[execdriver.Driver](driver.KindExec, filepath.Join(r.bin, "gantry-exec-native"), execdriver.Plugin{})
	opened, err := open(quietT{}, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, network.Close())
	}
	b.d = opened.Driver
	return b, func() error { return errors.Join(opened.Close(), network.Close(), removeGroups(cfg.Cgroup)) }, nil
}

// newNetwork makes a network namespace.
func newNetwork() (*os.File, error) {
	type made struct {
		f   *os.File
		err error
	}
	out := make(chan made)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			out <- made{nil, fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		out <- made{f, err}
	}()
	m := <-out
	return m.f, m.err
}

// removeGroups removes what the driver has made for itself.
func removeGroups(path string) error {
	tree, err := cgroup.ReadTree()
	if err != nil {
		return err
	}
	p, err := tree.OpenParent(path, false)
	if err != nil {
		return err
	}
	defer p.Close()
	for _, name := range []string{"containers", "shims"} {
		err = errors.Join(err, p.Group(name).Remove(context.Background()))
	}
	return errors.Join(err, p.Remove())
}

// life runs true once: from the call of Start to the program that runs, and to
// the end of Release. As the floor's, its upper directory is on a tmpfs, and made
// before.
func (b *driverBench) life(ctx context.Context) (start, whole time.Duration, err error) {
	b.runs++
	key := execdriver.Key{Container: fmt.Sprintf("bench%d", b.runs), Run: 1}
	upper, work := filepath.Join(b.dir, key.Container+"-u"), filepath.Join(b.dir, key.Container+"-w")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return 0, 0, err
		}
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(upper), os.RemoveAll(work), b.d.RemoveLog(ctx, key.Container))
	}()
	r := execdriver.Start{
		Key: key, Hostname: "bench", Network: b.network,
		Rootfs:  []driver.Mount{{Type: "overlay", Target: "/", Options: []string{"lowerdir+=" + b.r.image.rootfs, "upperdir=" + upper, "workdir=" + work}}},
		Process: execdriver.Process{Args: []string{"/bin/true"}},
	}
	begun := time.Now()
	_, err = b.d.Start(ctx, r)
	start = time.Since(begun)
	err = errors.Join(err, b.d.Release(ctx, key))
	return start, time.Since(begun), err
}

// compareDriver measures the driver and the floor in turns.
func (r *rig) compareDriver(ctx context.Context, f floor) (figures []figure, err error) {
	b, end, err := r.openDriver()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	var start, whole, bare []sample
	begun := time.Now()
	for round := 0; len(start) < r.pairs*driverRounds && (round == 0 || time.Since(begun) < r.patient); round++ {
		r.others.gate(r.share)
		for i := -1; i < driverRounds; i++ {
			s, w, err := b.life(ctx)
			if err != nil {
				return nil, fmt.Errorf("run a container by the driver: %w", err)
			}
			time.Sleep(2 * gateRest) // what a driver makes ahead is there again
			if i < 0 {
				continue // the drivers' caches are cold after the floor's round
			}
			start, whole = append(start, sample{s, true}), append(whole, sample{w, true})
		}
		r.others.gate(r.share)
		all, err := f.run(ctx, driverRounds, "-c", floorCase)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if one.Case == floorCase {
				bare = append(bare, sample{time.Duration(one.Median * float64(time.Microsecond)), true})
			}
		}
	}
	s, w, k := statsOf(start), statsOf(whole), statsOf(bare)
	if k.all == 0 {
		return nil, fmt.Errorf("the floor has no case %s on this machine", floorCase)
	}
	return []figure{{
		name: "driver: start to running program, network made before, by the kernel's whole life of the same run", goal: "median ≤ 1.5 ×",
		met: ratio(s.median, k.median) <= 1.5,
		got: fmt.Sprintf("%.2f × (%s by %s)", ratio(s.median, k.median), ms(s.median), ms(k.median)),
		detail: []string{
			"- start, by gRPC to the driver's process: " + s.String(),
			"- start, end and release: " + w.String(),
			"- the floor's " + floorCase + ", medians of " + fmt.Sprint(driverRounds) + " rounds each, in turns with them: " + k.String(),
			fmt.Sprintf("- by minimum: %.2f ×; whole life by whole life: %.2f ×", ratio(s.min, k.min), ratio(w.median, k.median)),
		},
	}}, nil
}
