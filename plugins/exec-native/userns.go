package execnative

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"golang.org/x/sys/unix"
)

// A user namespace lives as long as a process is in it or a descriptor names it.
// Descriptors die with the driver, and a bind mount would slow every later start
// down, so a tiny process keeps it: gantry-init --hold. Its directory, beside
// those of the runs:
//
//	userns-ID/lock   locked by the process as long as it lives
//	userns-ID/held   who it is (heldUser), written before it begins
const (
	usernsPrefix  = "userns-"
	heldFile      = "held"
	holdTimeout   = 2 * time.Second // for a killed holder to be gone
	holdPause     = time.Millisecond
	mostIDMapping = 340 // of one map (user_namespaces(7))
)

// heldUser is what a restarted driver must know of a holder.
type heldUser struct {
	Container string       `json:"container"`
	PID       int          `json:"pid"`
	Inode     uint64       `json:"inode"` // of the namespace, which tells the process from another of its pid
	Map       driver.IDMap `json:"map"`
}

func (h heldUser) namespace() netdriver.Namespace {
	return netdriver.Namespace{Mode: netdriver.NamespacePath, Path: h.path(), Inode: h.Inode}
}

func (h heldUser) path() string { return fmt.Sprintf("/proc/%d/ns/user", h.PID) }

func (d *native) usernsDir(container string) string {
	return filepath.Join(d.cfg.Run, usernsPrefix+fmt.Sprintf("%.32s", container))
}

// HoldUserNS implements execdriver.UserNamespacer.
func (d *native) HoldUserNS(_ context.Context, container string, m driver.IDMap) (netdriver.Namespace, error) {
	if !isName(container) {
		return netdriver.Namespace{}, driver.Errorf(errdefs.ErrInvalidArgument, "container id %q is not one component of a path", container)
	}
	if err := checkIDMap(m); err != nil {
		return netdriver.Namespace{}, err
	}
	d.holding.Lock()
	defer d.holding.Unlock()
	held, alive, err := readHeld(d.usernsDir(container))
	if err != nil {
		return netdriver.Namespace{}, err
	}
	if alive {
		if !held.Map.Equal(m) {
			return netdriver.Namespace{}, driver.Errorf(errdefs.ErrFailedPrecondition, "the user namespace of container %s is held with another map", container)
		}
		return held.namespace(), nil
	}
	if err := os.RemoveAll(d.usernsDir(container)); err != nil {
		return netdriver.Namespace{}, fmt.Errorf("hold user namespace: %w", err)
	}
	if held, err = d.hold(container, m); err != nil {
		return netdriver.Namespace{}, errors.Join(fmt.Errorf("hold user namespace: %w", err), os.RemoveAll(d.usernsDir(container)))
	}
	return held.namespace(), nil
}

// checkIDMap refuses maps that the kernel would, by their values.
func checkIDMap(m driver.IDMap) error {
	for field, list := range map[string][]driver.IDMapping{"UIDs": m.UIDs, "GIDs": m.GIDs} {
		if len(list) == 0 || len(list) > mostIDMapping {
			return driver.Errorf(errdefs.ErrInvalidArgument, "IDMap.%s of %d lines: want 1 to %d", field, len(list), mostIDMapping)
		}
		if !mapped(list, 0) {
			return driver.Errorf(errdefs.ErrInvalidArgument, "IDMap.%s %v: nobody is the container's root", field, list)
		}
	}
	return nil
}

// readHeld looks at a holder's directory; alive says that it lives.
func readHeld(dir string) (h heldUser, living bool, err error) {
	living, err = alive(dir)
	if err != nil || !living {
		return h, false, err
	}
	text, err := os.ReadFile(filepath.Join(dir, heldFile))
	if errors.Is(err, os.ErrNotExist) {
		return h, false, nil // it was not let begin, and ends
	}
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return h, false, driver.Errorf(errdefs.ErrDataLoss, "read %s: %w", dir, err)
	}
	var st unix.Stat_t
	if unix.Stat(h.path(), &st) != nil || st.Ino != h.Inode {
		return h, false, nil
	}
	return h, true, nil
}

// hold makes a user namespace and the process that keeps it.
func (d *native) hold(container string, m driver.IDMap) (h heldUser, err error) {
	dir := d.usernsDir(container)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return h, err
	}
	lock, err := takeLock(filepath.Join(dir, lockFile), os.O_CREATE)
	if err != nil {
		return h, err
	}
	defer lock.Close()
	wait, begin, err := os.Pipe()
	if err != nil {
		return h, err
	}
	defer wait.Close()
	defer begin.Close() // without a byte it leaves
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return h, err
	}
	defer null.Close()
	p, err := os.StartProcess(filepath.Join(d.cfg.Libexec, "gantry-init"), []string{"gantry-userns", "--hold"}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, wait, lock},
		Sys: &syscall.SysProcAttr{
			Setsid: true, Cloneflags: unix.CLONE_NEWUSER, GidMappingsEnableSetgroups: true,
			UidMappings: sysMap(m.UIDs), GidMappings: sysMap(m.GIDs),
		},
	})
	if err != nil {
		return h, driver.Errorf(errdefs.ErrInvalidArgument, "start its holder with the map %v: %w", m, err)
	}
	go func() { _, _ = p.Wait() }() // reap it, should it end before the driver
	h = heldUser{Container: container, PID: p.Pid, Map: m}
	var st unix.Stat_t
	if err := unix.Stat(h.path(), &st); err != nil {
		return h, fmt.Errorf("look at %s: %w", h.path(), err)
	}
	h.Inode = st.Ino
	if err := d.moveToShims(p.Pid); err != nil {
		return h, err
	}
	text, err := json.Marshal(h)
	name := filepath.Join(dir, heldFile)
	if err == nil {
		err = os.WriteFile(name+".new", text, 0o600)
	}
	if err == nil { // whole: List may read it at any moment
		err = os.Rename(name+".new", name)
	}
	if err == nil {
		_, err = begin.Write([]byte{1})
	}
	return h, err
}

func sysMap(m []driver.IDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, 0, len(m))
	for _, e := range m {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(e.Container), HostID: int(e.Host), Size: int(e.Size)})
	}
	return out
}

// moveToShims takes a process out of the driver's cgroup, so that the end of
// that leaves it alive.
func (d *native) moveToShims(pid int) error {
	for _, f := range d.shimEntry.Tasks {
		if _, err := f.WriteString(strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move process %d to the shims' cgroup: %w", pid, err)
		}
	}
	if d.shimEntry.Dir == nil {
		return nil
	}
	fd, err := unix.Openat(int(d.shimEntry.Dir.Fd()), "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("move process %d to the shims' cgroup: %w", pid, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(strconv.Itoa(pid))); err != nil {
		return fmt.Errorf("move process %d to the shims' cgroup: %w", pid, err)
	}
	return nil
}

// ReleaseUserNS implements execdriver.UserNamespacer.
func (d *native) ReleaseUserNS(ctx context.Context, container string) error {
	if !isName(container) {
		return driver.Errorf(errdefs.ErrInvalidArgument, "container id %q is not one component of a path", container)
	}
	d.holding.Lock()
	defer d.holding.Unlock()
	dir := d.usernsDir(container)
	h, living, err := readHeld(dir)
	if err != nil && !errdefs.IsDataLoss(err) {
		return err
	}
	if living {
		if err := endHolder(ctx, dir, h); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("release user namespace: %w", err)
	}
	return nil
}

// endHolder kills a holder and waits until it has let go of its lock.
func endHolder(ctx context.Context, dir string, h heldUser) error {
	fd, err := unix.PidfdOpen(h.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return fmt.Errorf("end the holder of a user namespace: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Stat(h.path(), &st) != nil || st.Ino != h.Inode {
		return nil // another has its pid
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the holder of a user namespace: %w", err)
	}
	for end := time.Now().Add(holdTimeout); ; {
		living, err := alive(dir)
		if err != nil || !living {
			return err
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return driver.Errorf(errdefs.ErrUnavailable, "the holder of container %s's user namespace does not end", h.Container)
		}
		time.Sleep(holdPause)
	}
}

// listUserNS tells what is held.
func (d *native) listUserNS() ([]driver.Item, error) {
	entries, err := os.ReadDir(d.cfg.Run)
	if err != nil {
		return nil, err
	}
	var out []driver.Item
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), usernsPrefix) {
			continue
		}
		h, living, err := readHeld(filepath.Join(d.cfg.Run, e.Name()))
		if err != nil {
			return nil, err
		}
		if living {
			out = append(out, driver.Item{Kind: "userns", Key: h.Container, State: "held", Namespace: h.path(), Inode: h.Inode, PID: h.PID})
		}
	}
	return out, nil
}

// dropHolderOf removes a directory whose holder has ended: nothing is held.
func dropHolderOf(dir string) error {
	if _, living, err := readHeld(dir); living || err != nil {
		return nil // err: left to be looked at
	}
	if living, err := alive(dir); living || err != nil {
		return err // it has not begun, and ends by itself
	}
	return os.RemoveAll(dir)
}
