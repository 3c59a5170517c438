package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// facts are what tells machines apart.
func facts() [][2]string {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail with a valid address
	controllers := read("/sys/fs/cgroup/cgroup.controllers")
	if controllers == "" {
		controllers = "version 1"
	} else {
		controllers = "version 2 alone: " + controllers
	}
	return [][2]string{
		{"kernel", text(u.Release[:])},
		{"pid 1", read("/proc/1/comm")},
		{"cgroups", controllers},
		{"security modules", read("/sys/kernel/security/lsm")},
		{"clock", read("/sys/devices/system/clocksource/clocksource0/current_clocksource")},
		{"processors", strings.TrimSpace(fmt.Sprint(bytes.Count([]byte(read("/proc/cpuinfo")), []byte("processor\t"))))},
	}
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// seen is what tests may leave: cgroups, mounts, links and processes by name.
// Where others work too nothing can be said about that.
func seen(here bool) map[string]int {
	all := map[string]int{}
	if here {
		return all
	}
	for line := range strings.Lines(read("/proc/self/mountinfo") + "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			all["mount "+f[4]]++
		}
	}
	links, _ := filepath.Glob("/sys/class/net/*")
	for _, l := range links {
		all["link "+filepath.Base(l)]++
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all["cgroup "+strings.TrimPrefix(path, "/sys/fs/cgroup")]++
		}
		return nil // one that goes away meanwhile was not left
	})
	for _, name := range processes() {
		all["process "+name]++
	}
	return all
}

// processes are the command lines of all that are not the kernel's own and not
// on their way out.
func processes() []string {
	var all []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmd, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(cmd) == 0 {
			continue // a kernel thread, or a zombie
		}
		first, _, _ := strings.Cut(string(cmd), "\x00")
		all = append(all, first)
	}
	return all
}

// left is what is there now and was not before. What ends on its own gets a
// moment for it.
func left(before map[string]int, here bool) []string {
	const most = 20
	var more []string
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		more = nil
		for what, n := range seen(here) {
			if n > before[what] && !passing(what) {
				more = append(more, what)
			}
		}
		if len(more) == 0 || time.Now().After(end) {
			break
		}
	}
	slices.Sort(more)
	if len(more) > most {
		more = append(more[:most], fmt.Sprintf("and %d more", len(more)-most))
	}
	return more
}

// passing are things that the system makes when it likes.
func passing(what string) bool {
	for _, p := range []string{"process /lib/systemd/", "process (", "cgroup /system.slice/", "cgroup /systemd/system.slice",
		"process /vm/guest", "mount /run/credentials", "process /usr/bin/dbus", "process /sbin/modprobe"} {
		if strings.HasPrefix(what, p) {
			return true
		}
	}
	return false
}
