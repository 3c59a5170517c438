// Command vm runs the kernel tests on other kernels: in machines of its own
// that qemu boots (with KVM where there is one), with Debian's own kernel and
// with what its backports have, cgroups version 2 alone, AppArmor on, with
// systemd as pid 1 and with a tiny init.
//
// Everything comes from Debian's packages through apt as it is configured. The
// machines have no network but loopback; two disk images hold the distribution
// and the tree with its compiled tests, a virtio port carries the results out.
// What changes on a disk of a machine is dropped with it.
//
//	go run ./test/vm -kernel 6.1 -init tiny -run 'Cgroup' ./plugins/exec-native/...
//
// The report says for each machine what passed, failed and was skipped, and
// which tests ran nowhere. Skipped is not passed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// options are the flags.
type options struct {
	kernels, inits, cgroups []string
	run, skip               string
	packages                []string // patterns of go list
	cache, report           string
	limit, each             time.Duration // of a machine, of a test
	here                    bool          // run them on this machine too
	accel                   string
	kept                    bool // earlier results count too
	atOnce                  int  // machines
	verbose                 bool
}

func main() {
	// The parent-death signal of qemu is of the thread that started it.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := run(ctx, parseFlags())
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/vm:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1) //nolint:gocritic // nothing is owed to the deferred stop
	}
}

func parseFlags() options {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	kernels := flag.String("kernel", "", "only kernels whose version begins so, separated by commas (default all that Debian has)")
	inits := flag.String("init", "", "what is pid 1: tiny, systemd (default both; where qemu translates, newer kernels by turns), none (boots nothing)")
	cgroups := flag.String("cgroup", "v2,v1", "cgroup versions: v2 (alone), v1 (with the oldest kernel and the tiny init only)")
	var o options
	flag.StringVar(&o.run, "run", "", "only tests that match")
	flag.StringVar(&o.skip, "skip", "", "not tests that match")
	flag.StringVar(&o.cache, "cache", filepath.Join(cache, "gantry-vm"), "where images are kept")
	flag.StringVar(&o.report, "report", "", "write the report into this file")
	flag.DurationVar(&o.limit, "limit", 90*time.Minute, "how long a machine may take")
	flag.DurationVar(&o.each, "each", 6*time.Minute, "how long a program may go on without a test that begins or ends")
	flag.IntVar(&o.atOnce, "at-once", 2, "how many machines run at the same time")
	flag.BoolVar(&o.here, "here", true, "run them on this machine too, for comparison")
	flag.BoolVar(&o.kept, "kept", false, "tell in the report also what other machines said in earlier runs")
	flag.StringVar(&o.accel, "accel", "", "kvm or tcg (default what works)")
	flag.BoolVar(&o.verbose, "v", false, "print each test that ends, and what failed ones say")
	flag.Parse()
	o.kernels, o.inits, o.cgroups = list(*kernels), list(*inits), list(*cgroups)
	o.packages = flag.Args()
	return o
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// run does it all and returns how many tests failed.
func run(ctx context.Context, o options) (int, error) {
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("needs root: it unpacks a distribution")
	}
	begun := time.Now()
	if err := os.MkdirAll(o.cache, 0o755); err != nil {
		return 0, err
	}
	lock, err := lockFile(filepath.Join(o.cache, ".lock"))
	if err != nil {
		return 0, err
	}
	defer lock.Close() //nolint:errcheck // closed earlier when all goes well
	all, missing, err := kernels(ctx, o)
	if err != nil {
		return 0, err
	}
	ks, err := chosen(all, o)
	if err != nil {
		return 0, err
	}
	for _, m := range missing {
		progress("not reached: %s", m)
	}
	img, err := rootImage(ctx, o.cache, all)
	if err != nil {
		return 0, fmt.Errorf("make the root image: %w", err)
	}
	// From here on nothing shared is written: another run may begin.
	if err := lock.Close(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(o.cache, "run-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	guest, err := buildGuest(ctx, dir)
	if err != nil {
		return 0, err
	}
	nothing := slices.Contains(o.inits, "none") && !o.here
	fast := !nothing && accelerated(ctx, dir, o.accel, ks[0], guest)
	st, err := stage(ctx, dir, o, fast, nothing)
	if err != nil {
		return 0, fmt.Errorf("stage the tests: %w", err)
	}
	rep := &report{begun: begun, missing: missing, stage: st}
	if rep.results, err = bootAll(ctx, dir, o, img, st, machines(o, ks, fast), fast); err != nil {
		return 0, err
	}
	if o.here && ctx.Err() == nil {
		rep.results = append(rep.results, here(ctx, dir, o, st))
	}
	if err := rep.keep(o.cache); err != nil {
		return 0, err
	}
	if o.kept {
		if err := rep.addKept(o.cache); err != nil {
			return 0, err
		}
	}
	return rep.finish(o)
}

// bootAll boots the machines, a few at once, and returns what they said in their
// order. Only one run has machines: more would share the processors.
func bootAll(ctx context.Context, dir string, o options, img image, st *staged, all []machine, fast bool) ([]*result, error) {
	turn, err := lockFile(filepath.Join(o.cache, ".turn"))
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	results := make([]*result, len(all))
	var g errgroup.Group
	g.SetLimit(max(o.atOnce, 1))
	for i, m := range all {
		g.Go(func() error {
			runtime.LockOSThread() // see main
			defer runtime.UnlockOSThread()
			if ctx.Err() == nil {
				results[i] = boot(ctx, filepath.Join(dir, fmt.Sprintf("machine-%d", i)), o, img, st, m, fast)
			}
			return nil
		})
	}
	err = g.Wait()
	return slices.DeleteFunc(results, func(r *result) bool { return r == nil }), err
}

// machines are those to boot, in the order of kernels. Where qemu translates, a
// newer kernel is booted with one of the inits only: what differs between them
// shows on the oldest.
func machines(o options, ks []kernel, fast bool) []machine {
	var all []machine
	for i, k := range ks {
		inits := o.inits
		switch {
		case len(inits) > 0:
		case fast || i == 0:
			inits = []string{"tiny", "systemd"}
		default:
			inits = []string{[]string{"systemd", "tiny"}[i%2]}
		}
		for _, cg := range o.cgroups {
			for _, in := range inits {
				if in == "none" || cg == "v1" && (in == "systemd" || i > 0) {
					continue // systemd's own choice there is a mixture that this kind of host has
				}
				m := machine{kernel: k, init: in, cgroup: cg}
				if !fast && len(o.packages) == 0 {
					m.leave = left(i == 0, in, cg)
				}
				all = append(all, m)
			}
		}
	}
	return all
}

// left are packages that a machine leaves to others where qemu translates: the
// stories and hard cases take minutes there and are told on the oldest kernel
// only, half of them under each init, and cgroups version 1 matters to few.
func left(oldest bool, in, cgroup string) []string {
	stories, hard := []string{"test/e2e", "test/escape"}, []string{"test/hard", "driverhost"}
	switch {
	case cgroup == "v1":
		return slices.Concat(stories, hard, []string{"plugins/graphdriver-overlay", "plugins/net-bridge", "plugins/net-host", "plugins/net-null",
			"plugins/exec-native/seccomp", "plugins/exec-native/oci", "plugins/exec-native/cgroup/systemd", "internal", "sdk", "cmd", "test/rig"})
	case !oldest:
		return slices.Concat(stories, hard)
	case in == "systemd":
		return stories
	}
	return hard
}

// lockFile waits until nobody else holds the file.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func progress(format string, args ...any) {
	fmt.Printf("%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}
