package hard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/test/rig"
)

// logsAt puts the engine's logs elsewhere, so that what is mounted there is no mount
// of the engine's.
func logsAt(t *testing.T, e *rig.Engine, dir string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Join(e.Root, "drivers"), 0o700), os.Symlink(dir, filepath.Join(e.Root, "drivers/exec-native")))
	if err != nil {
		t.Fatal(err)
	}
}

// TestFullLogDisk: what the disk cannot take is dropped and counted; the program
// goes on and ends as it would, whoever is attached gets all, and with space again
// the log goes on.
func TestFullLogDisk(t *testing.T) {
	t.Parallel()
	const room = 2 << 20
	w := newWorld(t, func(e *rig.Engine) {
		dir := t.TempDir()
		logsAt(t, e, dir)
		if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", room)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // the test has what it wants
	})
	const parts = 100 // of 64 KiB: more than three times what there is room for
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do cat /pattern; i=$((i+1)); done; echo the end; exit 6", parts)
	s := w.call("run", "--name", "much", "busybox", "sh", "-c", script)
	if want := string(bytes.Repeat(rig.Pattern(), parts)) + "the end\n"; s.code != 6 || s.out != want {
		t.Errorf("with a full disk: code %d, %d bytes of %d, after %v: %s", s.code, len(s.out), len(want), s.took, s.stderr)
	}
	w.gantry("run", "-d", "--name", "more", "busybox", "sh", "-c", script) // with nobody attached
	if e := w.ended("more"); e.Code != 6 || e.Lost {
		t.Errorf("with a full disk and nobody attached it ended as %+v", e)
	}
	logs := w.call("logs", "much")
	if logs.code != 0 || len(logs.out) < room/4 || len(logs.out) > room {
		t.Errorf("of the log %d bytes are told, code %d: %s", len(logs.out), logs.code, logs.stderr)
	}
	// A short piece of the output may fit where a longer one did not.
	if n := strings.Count(logs.stderr, "missing"); n == 0 || n > parts/4 {
		t.Errorf("the log does not tell in a few lines that something is missing: %.600q", logs.stderr)
	}

	// Space comes back while a program writes.
	w.gantry("run", "-d", "--name", "later", "busybox", "sh", "-c",
		"while [ ! -e /go ]; do echo early; sleep 0.02; done; while [ ! -e /end ]; do echo late; sleep 0.02; done")
	w.gantry("rm", "much", "more")
	w.gantry("exec", "later", "touch", "/go")
	w.until("the log goes on", func() bool { return strings.Contains(w.call("logs", "later").out, "late\n") })
	w.gantry("exec", "later", "touch", "/end")
	if e := w.ended("later"); e.Code != 0 {
		t.Errorf("with space again it ended as %+v", e)
	}
	w.over()
}

// TestStandingLogDisk: a disk that takes nothing for a while holds up who wants every
// byte kept, and nobody else: with non-blocking delivery the program ends, and what
// is missing of its log is told.
func TestStandingLogDisk(t *testing.T) {
	t.Parallel()
	const parts, buffer = 20, 64 << 10 // parts are as large
	disk := mountDisk(t)
	w := newWorld(t, func(e *rig.Engine) {
		logs := filepath.Join(disk, "logs")
		if err := os.Mkdir(logs, 0o700); err != nil {
			t.Fatal(err)
		}
		logsAt(t, e, logs)
	})
	flood := fmt.Sprintf("until [ -e /go ]; do sleep 0.02; done; i=0; while [ $i -lt %d ]; do cat /pattern; i=$((i+1)); done; touch /done; ", parts)
	loose := []string{"--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=" + strconv.Itoa(buffer)}
	run := func(name, script string, flags ...string) query.ContainerDetail {
		w.gantry(append(append([]string{"run", "-d", "--name", name}, flags...), "busybox", "sh", "-c", script)...)
		return w.container(name)
	}
	ends, held := run("ends", "echo begun; "+flood+"exit 6", loose...), run("held", flood+"exit 6")
	stays := run("stays", flood+"until [ -e /over ]; do sleep 0.02; done; echo the end; exit 6", loose...)
	file := func(d query.ContainerDetail, name string) string { return procFile(d.PID, "root/"+name) }
	w.until("the log is begun", func() bool { return w.call("logs", "ends").out != "" })
	thaw := freeze(t, disk)
	for _, d := range []query.ContainerDetail{ends, held, stays} { // past the engine, which may want the disk
		w.must(os.WriteFile(file(d, "go"), nil, 0o600))
	}
	if e := w.ended("ends"); e.Code != 6 || e.Lost {
		t.Errorf("beside a disk that stands still it ended as %+v", e)
	}
	w.until("who gives up what the disk cannot take goes on", func() bool { _, err := os.Stat(file(stays, "done")); return err == nil })
	time.Sleep(300 * time.Millisecond)
	if _, err := os.Stat(file(held, "done")); err == nil || !w.container("held").Running {
		t.Error("who wants every byte kept goes on beside a disk that stands still")
	}
	thaw()
	// What waits for the disk is in the log, or the end may find no room beside it.
	w.until("the log goes on", func() bool { return len(w.call("logs", "stays").out) > buffer/2 })
	w.must(os.WriteFile(file(stays, "over"), nil, 0o600))
	for _, name := range []string{"held", "stays"} {
		if e := w.ended(name); e.Code != 6 || e.Lost {
			t.Errorf("when the disk went on %s ended as %+v", name, e)
		}
	}
	want := string(bytes.Repeat(rig.Pattern(), parts))
	if s := w.call("logs", "held"); s.out != want || s.stderr != "" {
		t.Errorf("of its log %d bytes of %d are told: %s", len(s.out), len(want), s.stderr)
	}
	w.checkLoose("stays", len(want+"the end\n"), "the end\n")
	// Of the one that ended meanwhile no gap could be written.
	whole := len("begun\n" + want)
	w.checkLoose("ends", whole, "")
	if s := w.call("inspect", "-f", "{{.State.Error}}", "ends"); s.out != "the log lacks the end of the output: its disk did not take it\n" {
		t.Errorf("inspect says %q", s.out)
	}
	w.gantry("start", "ends") // /go is there still
	w.ended("ends")
	w.checkLoose("ends", 2*whole, "")
	w.over()
}

// checkLoose sees that a log and what it is said to lack are size bytes together,
// and something of either, with this end.
func (w *world) checkLoose(name string, size int, end string) {
	w.t.Helper()
	s := w.call("logs", name)
	missing := 0
	for _, m := range regexp.MustCompile(`(\d+) bytes are missing here`).FindAllStringSubmatch(s.stderr, -1) {
		n, err := strconv.Atoi(m[1])
		w.must(err)
		missing += n
	}
	if missing == 0 || len(s.out)+missing != size || !strings.HasSuffix(s.out, end) {
		w.t.Errorf("of %d bytes of %s %d are told and %d are said to be missing: %s", size, name, len(s.out), missing, s.stderr)
	}
}

// TestNeverReads: clients that are attached and do not read, or stand still, hold
// up nobody but the program whose whole output they asked for.
func TestNeverReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const flood = "i=0; while [ $i -lt 200 ]; do cat /pattern; i=$((i+1)); done; echo x > /done; exit 8"
	w.gantry("run", "-d", "--name", "free", "busybox", "sh", "-c", "until [ -e /go ]; do echo; sleep 0.02; done; "+flood)

	// A follower that stands still. It is attached when it has shown something.
	follower := w.CLI(w.within(), "attach", "free")
	shown, err := follower.StdoutPipe()
	w.must(err)
	w.must(follower.Start())
	_, err = io.ReadFull(shown, make([]byte, 1))
	w.must(err)
	w.must(follower.Process.Signal(syscall.SIGSTOP))

	// A client that wants all, and does not read.
	w.gantry("run", "-d", "--name", "held", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; "+flood)
	conn, err := w.client.Attach(w.within(), query.AttachIn{Ref: "held"})
	w.must(err)
	w.gantry("exec", "held", "touch", "/go")
	begin, err := w.client.Attach(w.within(), query.AttachIn{Ref: "free"})
	w.must(err)
	go func() { _, _, _ = rig.Output(begin) }() // a third, who reads
	w.gantry("exec", "free", "touch", "/go")
	if e := w.ended("free"); e.Code != 8 {
		t.Errorf("beside a client that stands still it ended as %+v", e)
	}
	if s := w.call("exec", "held", "sh", "-c", "[ -e /done ]"); s.code != 1 {
		t.Errorf("the program with a client that wants all and does not read is at its end: %d %s", s.code, s.stderr)
	}
	w.gantry("run", "--rm", "busybox", "true")
	w.must(conn.Close()) // the client vanishes
	if e := w.ended("held"); e.Code != 8 {
		t.Errorf("when its client had vanished it ended as %+v", e)
	}
	out, err := w.client.Logs(w.within(), "held")
	if want := bytes.Repeat(rig.Pattern(), 200); err != nil || !bytes.Equal(out, want[max(0, len(want)-len(out)):]) || len(out) < len(want)/2 {
		t.Errorf("the log has %d bytes of %d, or others: %v", len(out), len(want), err)
	}
	w.must(follower.Process.Kill())
	_ = follower.Wait() // it was killed
	_ = begin.Close()   // it is at its end
	w.over()
}

// TestNobodyReadsLogs: a reader of a log that stands still holds up nobody.
func TestNobodyReadsLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "talker", "busybox", "sh", "-c", "i=0; while [ $i -lt 400 ]; do cat /pattern; i=$((i+1)); done; exit 9")
	reader := w.CLI(w.within(), "logs", "-f", "talker")
	out, err := reader.StdoutPipe()
	w.must(err)
	w.must(reader.Start())
	if e := w.ended("talker"); e.Code != 9 {
		t.Errorf("beside a reader of its log that does not read it ended as %+v", e)
	}
	w.gantry("rm", "talker")
	w.must(out.Close())
	_ = reader.Wait() // it has nobody to write to
	w.over()
}
