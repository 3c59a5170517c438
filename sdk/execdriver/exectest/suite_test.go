package exectest

import (
	"context"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// TestMain makes the test binary a container's init where the reference driver
// has started it as one.
func TestMain(m *testing.M) {
	if os.Args[0] == initName {
		containerInit()
	}
	os.Exit(m.Run())
}

// altered is the reference with some of its methods replaced.
type altered struct {
	*reference
	info    func() (driver.Info, error)
	start   func(context.Context, execdriver.Start) (execdriver.Started, error)
	signal  func(context.Context, execdriver.Key, int) error
	release func(context.Context, execdriver.Key) error
	log     func(context.Context, string) error
	exits   func(context.Context, func(execdriver.Exit) error) error
	list    func() ([]driver.Item, error)
}

func (a *altered) Info(ctx context.Context) (driver.Info, error) {
	if a.info != nil {
		return a.info()
	}
	return a.reference.Info(ctx)
}

func (a *altered) Start(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
	if a.start != nil {
		return a.start(ctx, r)
	}
	return a.reference.Start(ctx, r)
}

func (a *altered) Signal(ctx context.Context, k execdriver.Key, signal int) error {
	if a.signal != nil {
		return a.signal(ctx, k, signal)
	}
	return a.reference.Signal(ctx, k, signal)
}

func (a *altered) Release(ctx context.Context, k execdriver.Key) error {
	if a.release != nil {
		return a.release(ctx, k)
	}
	return a.reference.Release(ctx, k)
}

func (a *altered) RemoveLog(ctx context.Context, container string) error {
	if a.log != nil {
		return a.log(ctx, container)
	}
	return a.reference.RemoveLog(ctx, container)
}

func (a *altered) Exits(ctx context.Context, f func(execdriver.Exit) error) error {
	if a.exits != nil {
		return a.exits(ctx, f)
	}
	return a.reference.Exits(ctx, f)
}

func (a *altered) List(ctx context.Context) ([]driver.Item, error) {
	if a.list != nil {
		return a.list()
	}
	return a.reference.List(ctx)
}

type flaws = []conform.Flaw[execdriver.Driver]

func flaw(check, what string, alter func(a *altered)) conform.Flaw[execdriver.Driver] {
	w := &world{}
	return conform.Flaw[execdriver.Driver]{Check: check, What: what, Open: func(c driver.Config) (execdriver.Driver, error) {
		a := &altered{reference: w.open(c)}
		alter(a)
		return a, nil
	}}
}

// ignores makes a flaw of a field that is not heeded.
func ignores(check, what string, change func(*execdriver.Start)) conform.Flaw[execdriver.Driver] {
	return flaw(check, what, func(a *altered) {
		a.start = func(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
			change(&r)
			return a.reference.Start(ctx, r)
		}
	})
}

// classless hides every class of Start.
func classless(check string) conform.Flaw[execdriver.Driver] {
	return flaw(check, "calls it Internal", func(a *altered) {
		a.start = func(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
			s, err := a.reference.Start(ctx, r)
			if err != nil {
				err = driver.Errorf(errdefs.ErrInternal, "%s", err.Error())
			}
			return s, err
		}
	})
}

// tells makes a flaw of what Exits tells.
func tells(check, what string, change func(*execdriver.Exit)) conform.Flaw[execdriver.Driver] {
	return flaw(check, what, func(a *altered) {
		a.exits = func(ctx context.Context, f func(execdriver.Exit) error) error {
			return a.reference.Exits(ctx, func(e execdriver.Exit) error {
				change(&e)
				return f(e)
			})
		}
	})
}

func TestSuite(t *testing.T) {
	w := &world{}
	good := conform.Value(func(c driver.Config) (execdriver.Driver, error) { return w.open(c), nil })
	suite := Suite(BuildRootfs(conform.Testing(t), t.TempDir()))
	conform.Prove(t, suite, good, slices.Concat(lifeFlaws(), releaseFlaws(), startFlaws(), restartFlaws(), liveFlaws()))
}

func TestOverGRPC(t *testing.T) {
	w := &world{}
	suite := Suite(BuildRootfs(conform.Testing(t), t.TempDir()))
	suite.Run(conform.Testing(t), OverGRPC(func(c driver.Config) (execdriver.Driver, error) { return w.open(c), nil }))
}

// Without busybox the root filesystem is made of the machine's own tools.
func TestRootfsWithoutBusybox(t *testing.T) {
	t.Setenv("PATH", "/usr/sbin:/sbin:"+withoutBusybox(t))
	root := BuildRootfs(conform.Testing(t), t.TempDir())
	if _, err := os.Lstat(root + "/bin/busybox"); err == nil {
		t.Fatal("there is a busybox after all")
	}
	s := Suite(root)
	s.Checks = slices.DeleteFunc(s.Checks, func(c conform.Check[execdriver.Driver]) bool { return c.Name != "exit-code" && c.Name != "users" })
	w := &world{}
	s.Run(conform.Testing(t), conform.Value(func(c driver.Config) (execdriver.Driver, error) { return w.open(c), nil }))
}

// withoutBusybox is a directory with links to all tools but busybox.
func withoutBusybox(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range tools() {
		for _, bin := range []string{"/usr/bin/", "/bin/"} {
			if _, err := os.Stat(bin + name); err == nil {
				os.Symlink(bin+name, dir+"/"+name)
				break
			}
		}
	}
	return dir
}

func lifeFlaws() flaws {
	return flaws{
		flaw("info", "has no version", func(a *altered) {
			a.info = func() (driver.Info, error) { return driver.Info{Name: "x"}, nil }
		}),
		tells("exit-code", "tells success", func(e *execdriver.Exit) { e.Code = 0 }),
		tells("signal", "tells the bare signal", func(e *execdriver.Exit) { e.Code = e.Signal }),
		flaw("signal", "always kills", func(a *altered) {
			a.signal = func(ctx context.Context, k execdriver.Key, _ int) error { return a.reference.Signal(ctx, k, 9) }
		}),
		flaw("signal-not-running", "says nothing", func(a *altered) {
			a.signal = func(ctx context.Context, k execdriver.Key, n int) error {
				a.reference.Signal(ctx, k, n)
				return nil
			}
		}),
		flaw("start-repeated", "refuses a repeat", func(a *altered) {
			a.start = func(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
				if _, ok := a.runs[r.Key]; ok {
					return execdriver.Started{}, driver.Errorf(errdefs.ErrAlreadyExists, "run %d runs", r.Run)
				}
				return a.reference.Start(ctx, r)
			}
		}),
		flaw("start-repeated", "starts it again", func(a *altered) {
			a.start = func(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
				a.reference.Release(ctx, r.Key)
				return a.reference.Start(ctx, r)
			}
		}),
		flaw("list", "tells no pid", func(a *altered) {
			a.list = func() ([]driver.Item, error) {
				items, err := a.reference.List(context.Background())
				for i := range items {
					items[i].PID = 0
				}
				return items, err
			}
		}),
	}
}

func releaseFlaws() flaws {
	return flaws{
		flaw("release", "refuses what is not held", func(a *altered) {
			a.release = func(ctx context.Context, k execdriver.Key) error {
				if _, ok := a.runs[k]; !ok {
					return driver.Errorf(errdefs.ErrNotFound, "run %d", k.Run)
				}
				return a.reference.Release(ctx, k)
			}
		}),
		flaw("release", "leaves the directory", func(a *altered) {
			a.release = func(ctx context.Context, k execdriver.Key) error {
				err := a.reference.Release(ctx, k)
				os.MkdirAll(execdriver.RunDir(a.config.Run, k), 0o700)
				return err
			}
		}),
		flaw("release-all-processes", "only forgets", func(a *altered) { a.release = a.forget }),
		flaw("next-run", "serves one run only", func(a *altered) {
			a.start = func(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
				if r.Run > 1 {
					return execdriver.Started{}, driver.Errorf(errdefs.ErrAlreadyExists, "container %s", r.Container)
				}
				return a.reference.Start(ctx, r)
			}
		}),
		flaw("log", "keeps it", func(a *altered) {
			a.log = func(context.Context, string) error { return nil }
		}),
		ignores("log", "always keeps one", func(r *execdriver.Start) { r.Stdio.Log.Driver = "local" }),
		ignores("attach-socket", "does not wait", func(r *execdriver.Start) { r.Stdio.WaitAttach = false }),
		flaw("side-by-side", "fails when asked twice at once", busy()),
	}
}

// forget drops a run without ending it; at the end of the test the rest is
// killed.
func (a *altered) forget(_ context.Context, k execdriver.Key) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, ok := a.runs[k]; ok {
		delete(a.runs, k)
		// Later than the check looks, so that the machine is left clean.
		go func() {
			time.Sleep(3 * time.Second)
			p.cmd.Process.Kill()
		}()
	}
	return os.RemoveAll(execdriver.RunDir(a.config.Run, k))
}

// busy refuses a call while another one is in it.
func busy() func(a *altered) {
	var inside atomic.Int32
	return func(a *altered) {
		a.start = func(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
			defer inside.Add(-1)
			if inside.Add(1) > 1 {
				return execdriver.Started{}, driver.Errorf(errdefs.ErrUnavailable, "another one is starting")
			}
			return a.reference.Start(ctx, r)
		}
	}
}

func startFlaws() flaws {
	return flaws{
		classless("start-not-found"), classless("start-not-executable"), classless("start-invalid"),
		ignores("start-invalid", "takes an odd directory", func(r *execdriver.Start) { r.Process.Cwd = "" }),
		ignores("process", "loses the environment", func(r *execdriver.Start) { r.Process.Env = r.Process.Env[:1] }),
		ignores("process", "ignores the directory", func(r *execdriver.Start) { r.Process.Cwd = "" }),
		ignores("process", "ignores the host's name", func(r *execdriver.Start) { r.Hostname = "other" }),
		ignores("users", "is always root", func(r *execdriver.Start) { r.Process.User = "" }),
		ignores("isolation", "stays on the machine's network", func(r *execdriver.Start) {
			r.Network = netdriver.Namespace{Mode: netdriver.NamespaceHost}
		}),
		ignores("isolation", "shows the machine's files", func(r *execdriver.Start) {
			r.Mounts = append(r.Mounts, driver.Mount{Type: "bind", Source: os.TempDir(), Target: os.TempDir()})
		}),
		ignores("network-host", "makes a new one", func(r *execdriver.Start) { r.Network = netdriver.Namespace{} }),
		ignores("network-path", "makes a new one", func(r *execdriver.Start) { r.Network = netdriver.Namespace{} }),
		ignores("network-path", "does not compare inodes", func(r *execdriver.Start) {
			if f, err := os.Open(r.Network.Path); err == nil {
				defer f.Close()
				if info, err := f.Stat(); err == nil {
					r.Network.Inode = info.Sys().(*syscall.Stat_t).Ino
				}
			}
		}),
		ignores("read-only", "mounts it writable", func(r *execdriver.Start) { r.Mounts[1].Options = nil }),
		ignores("memory-limit", "limits nothing and says nothing", func(r *execdriver.Start) { r.Resources = execdriver.Resources{} }),
		ignores("pids-limit", "limits nothing and says nothing", func(r *execdriver.Start) { r.Resources = execdriver.Resources{} }),
		ignores("capabilities", "gives all", func(r *execdriver.Start) { r.Security.Privileged = true }),
		ignores("capabilities", "drops none", func(r *execdriver.Start) { r.Security.CapDrop = nil }),
		ignores("no-new-privileges", "forgets them", func(r *execdriver.Start) { r.Security.NoNewPrivileges = false }),
		ignores("seccomp", "filters nothing", func(r *execdriver.Start) { r.Security.Seccomp = "unconfined" }),
		ignores("seccomp", "always filters", func(r *execdriver.Start) { r.Security.Seccomp = "" }),
	}
}

// liveFlaws are drivers that claim what they have not.
func liveFlaws() flaws {
	var out flaws
	for check, ability := range map[string]string{
		"exec": execdriver.AbilityExec, "probe": execdriver.AbilityExec, "freeze": execdriver.AbilityFreeze, "update": execdriver.AbilityUpdate,
		"meter": execdriver.AbilityMeter, "copy": execdriver.AbilityCopy, "userns": execdriver.AbilityUserNS, "oom": execdriver.AbilityOOM,
	} {
		out = append(out, flaw(check, "claims the ability", func(a *altered) {
			a.info = func() (driver.Info, error) {
				return driver.Info{Name: "reference", Version: "1", Abilities: []string{ability}}, nil
			}
		}))
	}
	return out
}

func restartFlaws() flaws {
	return flaws{
		flaw("outlives-the-driver", "ends its processes", func(a *altered) {
			for _, p := range a.runs {
				p.cmd.Process.Kill()
				<-p.done
			}
		}),
		flaw("exit-while-away", "has not seen the end", func(a *altered) {
			a.mu.Lock()
			defer a.mu.Unlock()
			for k := range a.runs {
				lost := execdriver.Exit{Key: k, Code: 137, Lost: true}
				a.exits = func(_ context.Context, f func(execdriver.Exit) error) error { return f(lost) }
			}
		}),
		flaw("exits-until-released", "tells each but once", func(a *altered) {
			told := map[execdriver.Key]bool{}
			a.exits = func(ctx context.Context, f func(execdriver.Exit) error) error {
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return a.reference.Exits(short, func(e execdriver.Exit) error {
					if told[e.Key] {
						return nil
					}
					told[e.Key] = true
					return f(e)
				})
			}
		}),
		flaw("exits-until-released", "tells the newest first", func(a *altered) {
			a.exits = func(ctx context.Context, f func(execdriver.Exit) error) error {
				a.mu.Lock()
				slices.SortStableFunc(a.ended, func(x, y execdriver.Exit) int { return y.Code - x.Code })
				a.mu.Unlock()
				return a.reference.Exits(ctx, f)
			}
		}),
	}
}
