package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup/systemd"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/resctrl"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Names in a container's directory.
const (
	stateFile  = "state.json"
	configFile = "config.json"
	gateName   = "gate"
	filtersDir = ".filters" // beside the containers: compiled seccomp filters
)

// longestID bounds a container's id in bytes: it is a file name with others.
const longestID = 200

// statusPaused is runc's word for a container that is frozen.
const statusPaused specs.ContainerState = "paused"

// state is what is kept about a container.
type state struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Owner       int               `json:"owner"` // uid of who made it
	Annotations map[string]string `json:"annotations,omitempty"`
	Init        process           `json:"init"`
	Cgroup      cgroup.Place      `json:"cgroup,omitempty"`
	Wanted      cgroup.Place      `json:"wanted,omitempty"`   // where the cgroup is being made, or was when that broke off
	Unit        *systemd.Unit     `json:"unit,omitempty"`     // that has the cgroup
	OwnPIDs     bool              `json:"ownPids"`            // it has a PID namespace of its own
	Joins       uint64            `json:"joins"`              // CLONE_NEW… of what another program of it joins
	Keyring     bool              `json:"keyring"`            // it has a session keyring of its own
	Class       *resctrl.Class    `json:"class,omitempty"`    // of resource control
	HostRoot    *hostRoot         `json:"hostRoot,omitempty"` // where its mounts are the host's
	Poststop    []specs.Hook      `json:"poststop,omitempty"`
}

// container is one below the root.
type container struct {
	dir    string
	making bool // when it was loaded, its creation was not over
	state
}

// checkID refuses what cannot be a directory's name, or would hide.
func checkID(id string) error {
	ok := id != "" && len(id) <= longestID && id[0] != '.'
	for _, c := range id {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c))
	}
	if !ok {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "container id %q: want letters, digits, _ + - and .", id)
	}
	return nil
}

// load finds a container.
func load(g *globals, id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{dir: filepath.Join(g.root, id)}
	c.making = isMaking(c.dir) // first: the state of a creation that is over is whole
	text, err := os.ReadFile(filepath.Join(c.dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		if _, dirErr := os.Lstat(c.dir); dirErr == nil { // it is just being made, or that broke off
			c.state = state{Version: specs.Version, ID: id}
			return c, nil
		}
		return nil, errclass.Errorf(errdefs.ErrNotFound, "container %q does not exist", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read state of %s: %w", id, err)
	}
	if err := json.Unmarshal(text, &c.state); err != nil {
		return nil, errclass.Errorf(errdefs.ErrDataLoss, "read state of %s: %w", id, err)
	}
	return c, nil
}

// save writes the state whole.
func (c *container) save() error {
	text, err := json.Marshal(&c.state)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, stateFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return os.Rename(path+".new", path)
}

// isMaking reports whether somebody makes the container of a directory: the
// specification's copy is locked for nothing else. Before there is one the
// directory's lock tells it, which other commands hold too. Those who look do not
// see one another.
func isMaking(dir string) bool {
	f, err := os.Open(filepath.Join(dir, configFile))
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(dir)
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(flock(f, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lock keeps others from changing the container, until the file is closed. Who
// does is waited for; what is there afterwards may be another container of this id.
func (c *container) lock() (*os.File, error) {
	for {
		d, err := os.Open(c.dir)
		if err != nil {
			return nil, errclass.Errorf(errdefs.ErrNotFound, "container %q does not exist", filepath.Base(c.dir))
		}
		if err := flock(d, unix.LOCK_EX); err != nil {
			d.Close()
			return nil, fmt.Errorf("lock container %s: %w", filepath.Base(c.dir), err)
		}
		held, err := d.Stat()
		if now, nowErr := os.Lstat(c.dir); err == nil && nowErr == nil && os.SameFile(held, now) {
			return d, nil
		}
		d.Close() // of one that has gone meanwhile
	}
}

// open loads a container and locks it. What another command was doing to it is
// waited for.
func open(g *globals, id string) (*container, *os.File, error) {
	c, err := load(g, id)
	if err != nil {
		return nil, nil, err
	}
	lock, err := c.lock()
	if err != nil {
		return nil, nil, err
	}
	if c, err = load(g, id); err != nil { // as it is now
		lock.Close()
		return nil, nil, err
	}
	return c, lock, nil
}

// status says how far the container is. pid is 0 where there is no process.
func (c *container) status() (specs.ContainerState, int) {
	switch {
	case c.making:
		return specs.StateCreating, c.Init.PID
	case c.Init.PID == 0: // its creation broke off
		return specs.StateStopped, 0
	case !c.Init.alive():
		return specs.StateStopped, 0
	}
	if group, err := c.group(); err == nil { // one that waits to be started can be frozen, too
		defer group.Close()
		if frozen, err := group.Frozen(); err == nil && frozen {
			return statusPaused, c.Init.PID
		}
	}
	if c.waits() {
		return specs.StateCreated, c.Init.PID
	}
	return specs.StateRunning, c.Init.PID
}

// waits reports whether the init, if there is one, waits to be started. A start that
// was killed has left the gate's name.
func (c *container) waits() bool { return plan.GateWaits(c.dir, gateName) }

// group opens the container's cgroup.
func (c *container) group() (*cgroup.Group, error) {
	if len(c.Cgroup) == 0 {
		return nil, errclass.Errorf(errdefs.ErrNotFound, "container %s has no cgroup", c.ID)
	}
	tree, err := cgroup.ReadTree()
	if err != nil {
		return nil, err
	}
	return tree.Open(c.Cgroup)
}

// config reads the specification that the container was made from.
func (c *container) config() (*bundle, error) {
	return readConfig(filepath.Join(c.dir, configFile), c.Bundle)
}

// specState is the state as hooks and callers get it.
func (c *container) specState(status specs.ContainerState, pid int) specs.State {
	return specs.State{Version: specs.Version, ID: c.ID, Status: status, Pid: pid, Bundle: c.Bundle, Annotations: c.Annotations}
}
