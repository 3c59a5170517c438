package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// mount is one line of what a boot mounts.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}

const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early is the initramfs's whole life: modules, disks, the other root.
func early() error {
	for _, m := range []mount{
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"proc", "/proc", "proc", plain, ""},
		{"sysfs", "/sys", "sysfs", plain, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if parameter("vm.init") == "none" {
		fmt.Fprintln(os.Stderr, wire.Alive)
		powerOff()
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	for _, m := range []mount{
		{"/dev/vda", "/root", "ext4", 0, ""},
		{"/dev/vdb", "/root/vm", "ext4", 0, ""},
	} {
		if err := waitFor(m.source); err != nil {
			return err
		}
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, name := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(name, "/root"+name, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", name, err)
		}
	}
	// The root of an initramfs cannot be pivoted away: it is covered.
	if err := unix.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"}
	if parameter("vm.init") == "systemd" {
		return unix.Exec("/lib/systemd/systemd", []string{"/sbin/init"}, env)
	}
	return unix.Exec("/vm/guest", []string{"/vm/guest", "init"}, env)
}

// loadModules loads all of a directory, in the order of their names.
func loadModules(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		if err := unix.InitModule(b, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", f.Name(), err)
		}
	}
	return nil
}

// waitFor waits until a device is there: drivers look for them on their own.
func waitFor(path string) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		} else if time.Now().After(end) {
			return err
		}
	}
}

// parameter is a word of the kernel's command line.
func parameter(name string) string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(string(b)) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			return v
		}
	}
	return ""
}

// pid1 is the tiny init: what there must be, then the tests, reaping.
func pid1() error {
	for _, m := range []mount{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", plain, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"securityfs", "/sys/kernel/security", "securityfs", plain, ""},
		{"bpf", "/sys/fs/bpf", "bpf", plain, "mode=0700"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := mountCgroups(parameter("vm.cgroup")); err != nil {
		return err
	}
	for _, args := range [][]string{{"ip", "link", "set", "lo", "up"}, {"modprobe", "-a", "loop", "fuse"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "guest: %v: %v\n%s", args, err, out)
		}
	}
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return err
	}
	cmd := exec.Command("/vm/guest", "run", "/vm/manifest.json")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == cmd.Process.Pid {
			powerOff()
			return err
		}
	}
}

// mountCgroups mounts version 2 alone with all its controllers on, or each
// controller of version 1 in a hierarchy of its own.
func mountCgroups(version string) error {
	const top = "/sys/fs/cgroup"
	if version != "v1" {
		if err := (mount{"cgroup2", top, "cgroup2", plain, "nsdelegate"}).do(); err != nil {
			return err
		}
		b, err := os.ReadFile(top + "/cgroup.controllers")
		if err != nil {
			return err
		}
		for name := range strings.FieldsSeq(string(b)) {
			if err := os.WriteFile(top+"/cgroup.subtree_control", []byte("+"+name), 0o644); err != nil {
				fmt.Fprintf(os.Stderr, "guest: controller %s: %v\n", name, err)
			}
		}
		return nil
	}
	if err := (mount{"tmpfs", top, "tmpfs", plain, "mode=0755"}).do(); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") || f[3] != "1" {
			continue
		}
		if err := (mount{"cgroup", top + "/" + f[0], "cgroup", plain, f[0]}).do(); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
		}
	}
	return nil
}
