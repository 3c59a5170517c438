package execnative

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc, the same on every architecture that Go
// runs on (USER_HZ).
const tick = time.Second / 100

// mostArgs bounds the words of all processes of a container together, in bytes.
const mostArgs = 4 << 20

// Processes implements execdriver.Meter.
func (d *native) Processes(_ context.Context, k execdriver.Key) ([]execdriver.Task, error) {
	r, err := d.running(k)
	if err != nil {
		return nil, err
	}
	pids, err := d.group(r).Pids()
	if err != nil {
		return nil, err
	}
	boot := bootTime()
	users := hostUsers()
	out := make([]execdriver.Task, 0, len(pids))
	for _, pid := range pids {
		t, ok := readTask(pid, boot)
		if !ok {
			continue // it has just ended
		}
		if t.User = users[t.UID]; t.User == "" {
			t.User = strconv.FormatUint(uint64(t.UID), 10)
		}
		out = append(out, t)
	}
	boundArgs(out, mostArgs)
	return out, nil
}

// boundArgs leaves out the words of processes whose words, with those of the
// processes before, are more bytes than that: each may have some megabytes, and all
// go in one answer.
func boundArgs(tasks []execdriver.Task, most int) {
	for i := range tasks {
		size := 0
		for _, arg := range tasks[i].Args {
			size += len(arg) + 1
		}
		if size > most {
			tasks[i].Args = nil
			continue
		}
		most -= size
	}
}

// bootTime is when the machine started, by the wall clock of now.
func bootTime() time.Time {
	var since unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) // cannot fail
	return time.Now().Add(-time.Duration(since.Nano()))
}

// readTask reads one process (proc_pid_stat(5)).
func readTask(pid int, boot time.Time) (execdriver.Task, bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	text, err := os.ReadFile(dir + "stat")
	if err != nil {
		return execdriver.Task{}, false
	}
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return execdriver.Task{}, false
	}
	t, ok := parseStat(string(text), boot)
	t.PID, t.UID = pid, st.Uid
	if line, err := os.ReadFile(dir + "cmdline"); err == nil && len(line) > 0 {
		for _, arg := range bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0}) {
			t.Args = append(t.Args, string(arg))
		}
	}
	return t, ok
}

// parseStat reads /proc/PID/stat. The name is in brackets, and may hold some.
func parseStat(text string, boot time.Time) (execdriver.Task, bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return execdriver.Task{}, false
	}
	t := execdriver.Task{Name: text[open+1 : end]}
	f := strings.Fields(text[end+1:])
	if len(f) < 22 {
		return t, false
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i-3], 10, 64); return v } // i as in the manual
	t.PPID = int(n(4))
	t.TTY = terminalName(uint32(n(7)))
	t.CPU = time.Duration(n(14)+n(15)) * tick
	t.Started = boot.Add(time.Duration(n(22)) * tick)
	t.RSS = n(24) * int64(os.Getpagesize())
	return t, true
}

// Majors of terminals (Documentation/admin-guide/devices.txt).
const (
	ttyMajor    = 4
	ptyMajor    = 136 // the first of eight
	ptyMajors   = 8
	ptysOfMajor = 256
)

// terminalName names a terminal by its device number, as ps(1) does.
func terminalName(dev uint32) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case major >= ptyMajor && major < ptyMajor+ptyMajors:
		return fmt.Sprintf("pts/%d", (major-ptyMajor)*ptysOfMajor+minor)
	case major == ttyMajor && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	}
	return "?"
}

// hostUsers reads the names of the host's users.
func hostUsers() map[uint32]string {
	out := map[uint32]string{}
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return out
	}
	for line := range bytes.Lines(text) {
		f := strings.SplitN(string(line), ":", 4)
		if len(f) < 4 {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil && out[uint32(id)] == "" {
			out[uint32(id)] = f[0]
		}
	}
	return out
}
