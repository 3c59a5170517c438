package bridge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/driver"
)

const (
	holderProgram = "gantry-netns"
	holderLooks   = 30 // seconds after which it looks whether it is still to be found
	startTime     = 5 * time.Second
	addressMax    = 107 // bytes of a unix socket's path
)

// newHolder returns the client of this engine's holder, which is started when
// it is first needed.
func newHolder(cfg driver.Config, run *os.File) *holder {
	path := filepath.Join(cfg.Run, "netns.sock")
	if len(path) > addressMax {
		path = fmt.Sprintf("/proc/self/fd/%d/netns.sock", run.Fd())
	}
	return &holder{path: path, patience: callTime, start: func() error { return startHolder(cfg, path) }}
}

// startHolder starts the process. The lock file says that one runs: it stays
// locked, through the descriptor that the holder inherits, until that is gone.
func startHolder(cfg driver.Config, socket string) error {
	lock, err := os.OpenFile(filepath.Join(cfg.Run, "netns.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the namespace holder's lock: %w", err)
	}
	defer func() { _ = lock.Close() }()
	for deadline := time.Now().Add(startTime); ; {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return driver.Errorf(errdefs.ErrUnavailable, "lock %s (another namespace holder does not answer)", lock.Name())
		}
		if conn, err := net.Dial("unixpacket", socket); err == nil {
			return conn.Close() // somebody else has started one
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the namespace holder's old socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("listen for the namespace holder: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer func() { _ = l.Close() }()
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	listener, err := l.File()
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	return spawnHolder(cfg, listener, lock)
}

// spawnHolder runs the program as a session of its own with nothing inherited
// but the two descriptors, and takes it out of the driver's cgroup, so that
// killing that leaves it alive.
func spawnHolder(cfg driver.Config, listener, lock *os.File) error {
	program := filepath.Join(cfg.Libexec, holderProgram)
	cmd := exec.Command(program, strconv.Itoa(holderLooks))
	cmd.Dir = "/"
	cmd.Env = []string{} // nil would be the driver's own
	cmd.ExtraFiles = []*os.File{listener, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return driver.Errorf(errdefs.ErrNotFound, "start the namespace holder %s: there is no such program", program)
		}
		return fmt.Errorf("start the namespace holder: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reap it, should it end before the driver
	if err := leaveCgroup(cfg.Cgroup, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("move the namespace holder out of the driver's cgroup: %w", err)
	}
	return nil
}

// leaveCgroup moves a process to <parent>/shims in every hierarchy in which
// this driver is below parent. Elsewhere the driver has no cgroup of its own,
// and there is nothing to leave.
func leaveCgroup(parent string, pid int) error {
	if parent == "" {
		return nil
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	hierarchies, err := linux.Hierarchies()
	if err != nil {
		return err
	}
	below := hierarchiesBelow(own, parent)
	for _, h := range hierarchies {
		if !slices.Contains(below, h.Key()) {
			continue
		}
		dir := filepath.Join(h.Mount, parent, "shims")
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := fillCpuset(dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// hierarchiesBelow reads /proc/PID/cgroup: the hierarchies, "" for v2 and the
// list of controllers for v1, in which the process is below parent.
func hierarchiesBelow(cgroup []byte, parent string) []string {
	var found []string
	for s := bufio.NewScanner(bytes.NewReader(cgroup)); s.Scan(); {
		parts := strings.SplitN(s.Text(), ":", 3)
		if len(parts) == 3 && strings.HasPrefix(parts[2], strings.TrimSuffix(parent, "/")+"/") {
			found = append(found, parts[1])
		}
	}
	return found
}

// fillCpuset gives a new v1 cpuset its parent's processors and memory nodes:
// without, nothing may enter it.
func fillCpuset(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || len(bytes.TrimSpace(have)) > 0 {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), parent, 0); err != nil {
			return err
		}
	}
	return nil
}
