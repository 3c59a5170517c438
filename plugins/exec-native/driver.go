package execnative

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/seccomp"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// Version is the driver's own version.
const Version = "0.1.0"

// native is the driver. What it prepares once, it keeps open: cgroup
// directories, the shim's program, compiled filters.
type native struct {
	cfg        driver.Config
	bootID     [16]byte
	facts      facts // of the machine; User and Hostname are of each start
	tree       cgroup.Tree
	containers *cgroup.Parent
	shims      *cgroup.Parent
	shimEntry  cgroup.Entry // into the shims' group, for all starts
	shim       *os.File     // the shim's program, sealed
	filters    *seccomp.Cache
	apparmor   *confinement
	warnings   []string
	parts      []part // of a plan, that are carried out ahead

	mu       sync.Mutex              // guards what follows, and in runs what says so
	warm     []*plan.Warm            // shims that wait for a start
	warming  int                     // those being executed
	aheads   []*ahead                // what else was made for starts to come
	spares   uint64                  // number of the last one
	parents  map[string]*askedParent // cgroups that containers asked to be put in, by path
	closed   bool                    // no more of them
	runs     map[execdriver.Key]*run
	ended    []*run             // in the order in which their ends were seen
	news     chan struct{}      // closed and replaced when ended grows
	watching bool               // memory of all runs
	oomNews  chan struct{}      // closed and replaced when a run's count rises
	roots    map[string]oldRoot // of ended runs, by container

	spawning   sync.WaitGroup // shims being executed to wait
	poll       *poller        // of running runs' shims and memory
	aheadMaker sync.Mutex     // held while something is made ahead
	meters     meters
	holding    sync.Mutex // orders what is done to user namespaces
	writers    writers    // into the files of containers that do not run
}

// New makes the driver, and finds the runs of an earlier instance again.
//
// NotFound: the shim's program is not in cfg.Libexec. NotImplemented: this
// machine cannot run containers, by what it lacks.
func New(cfg driver.Config) (execdriver.Driver, error) {
	d, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open exec-native: %w", err)
	}
	if err := errors.Join(d.recover(), d.containers.RemoveSpares(), d.dropLogs(true)); err != nil {
		d.close()
		return nil, fmt.Errorf("find earlier runs: %w", err)
	}
	d.parts = d.kitParts()
	go d.warmUp()
	return d, nil
}

// open prepares everything that starts have in common.
func open(cfg driver.Config) (*native, error) {
	d := &native{cfg: cfg, runs: map[execdriver.Key]*run{}, parents: map[string]*askedParent{}, roots: map[string]oldRoot{}, news: make(chan struct{}), oomNews: make(chan struct{})}
	d.meters.open = map[*run]*cgroup.Meter{}
	d.writers = writers{wait: writerWait, busy: map[string]chan struct{}{}}
	for _, dir := range []string{cfg.Root, cfg.Run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if d.poll, err = newPoller(); err != nil {
		return nil, err
	}
	if d.bootID, err = bootID(); err != nil {
		return nil, err
	}
	if d.tree, err = cgroup.ReadTree(); err != nil {
		return nil, err
	}
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	d.filters = seccomp.NewCache(release)
	if d.facts, err = machineFacts(d.tree); err != nil {
		return nil, err
	}
	d.warnings = d.machineWarnings()
	d.apparmor = confine(hasAppArmor(), func() (string, error) { return loadProfile(apparmorFS) })
	if d.containers, err = d.tree.OpenParent(filepath.Join(cfg.Cgroup, "containers"), false); err != nil {
		return nil, err
	}
	if d.shims, err = d.tree.OpenParent(filepath.Join(cfg.Cgroup, "shims"), true); err != nil {
		d.close()
		return nil, err
	}
	if d.shimEntry, err = d.shims.Entry(); err != nil {
		d.close()
		return nil, err
	}
	if d.shim, err = plan.Seal(filepath.Join(cfg.Libexec, "gantry-shim")); err != nil {
		d.close()
		if errors.Is(err, os.ErrNotExist) {
			err = driver.Errorf(errdefs.ErrNotFound, "%w", err)
		}
		return nil, err
	}
	return d, nil
}

// Close implements io.Closer: what was made ahead goes. Runs go on.
func (d *native) Close() error {
	d.close()
	return nil
}

// close lets go of what is open. Runs go on.
func (d *native) close() {
	d.coolDown()
	d.closeMeters()
	d.poll.close()
	for _, p := range []*cgroup.Parent{d.containers, d.shims} {
		if p != nil {
			p.Close()
		}
	}
	d.mu.Lock()
	for _, p := range d.parents {
		p.Close()
	}
	clear(d.parents)
	d.mu.Unlock()
	d.shimEntry.Close()
	if d.shim != nil {
		d.shim.Close()
	}
}

// Info implements execdriver.Driver.
func (d *native) Info(ctx context.Context) (driver.Info, error) {
	if err := d.apparmor.await(ctx); err != nil {
		return driver.Info{}, err
	}
	return driver.Info{
		Name: "native", Version: Version, Abilities: abilities(), Warnings: slices.Concat(d.warnings, d.apparmor.warnings()),
	}, nil
}

// List implements execdriver.Driver. A cgroup without a run directory is held
// too: somebody has removed the directory.
func (d *native) List(context.Context) ([]driver.Item, error) {
	groups, err := d.containers.List()
	if err != nil {
		return nil, err
	}
	out, err := d.listUserNS()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.runs {
		item := driver.Item{Kind: "process", Key: r.key.Container, Run: r.key.Run, Exec: r.key.Exec, State: "held"}
		switch r.state {
		case running:
			item.State, item.PID = "running", r.started.PID
		case exited:
			item.State = "exited"
		}
		out = append(out, item)
	}
	for _, name := range groups {
		if k, ok := keyOfGroup(name); ok && d.runs[k] == nil {
			out = append(out, driver.Item{Kind: "process", Key: k.Container, Run: k.Run, State: "held"})
		}
	}
	slices.SortFunc(out, func(a, b driver.Item) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(a.Run, b.Run), strings.Compare(a.Exec, b.Exec))
	})
	return out, nil
}

// RemoveLog implements execdriver.Driver.
func (d *native) RemoveLog(_ context.Context, container string) error {
	if !isName(container) {
		return driver.Errorf(errdefs.ErrInvalidArgument, "container id %q is not one component of a path", container)
	}
	if err := d.dropLog(container); err != nil {
		return fmt.Errorf("remove log: %w", err)
	}
	return nil
}

// logDir is where a container's log files are.
func (d *native) logDir(container string) string { return filepath.Join(d.cfg.Root, container) }

// isName reports whether a container's id can be one component of a path.
func isName(id string) bool {
	return id != "" && id[0] != '.' && len(id) <= 200 && !strings.ContainsAny(id, "/\x00\n")
}

// kernelRelease is uname -r.
func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
