package plan

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/stdio"
)

// fifo makes a FIFO in the run directory, and opens it as both ends: nobody waits for
// the other to come.
func (s *shim) fifo(name string) *os.File {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { f.Close() })
	return f
}

// heard waits until the shim has looked at what the clients before had sent: it takes
// them in the order in which they came.
func (s *shim) heard() {
	s.t.Helper()
	s.attach(stdio.Hello{Control: true}).Close()
}

// offset is how far the shim has read the program's output.
func (s *shim) offset() uint64 {
	s.t.Helper()
	c, state, err := stdio.Dial(s.t.Context(), s.socket(), stdio.Hello{Control: true})
	if err != nil {
		s.t.Fatal(err)
	}
	c.Close()
	return state.Offset
}

// TestStdinOfVanishedClientBeforeStart: a client that goes before the program runs is
// found gone when that is told. What it had sent is read all the same.
func TestStdinOfVanishedClientBeforeStart(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin}, 0)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Sync{1})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", "n=$(wc -c); [ $n = 150000 ]"}, Env: []string{"PATH=/bin:/usr/bin"}})
	s.start().until(ReportSync)
	c := s.attach(stdio.Hello{Stdin: true, StdinOnce: true})
	c.Write(make([]byte, 150000))
	c.Close()
	s.heard()
	s.conn.Continue(1)
	if r := s.until(ReportExited); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
}

// TestStdinOfVanishedReader: output that a client takes no more says nothing about the
// input that it had sent.
func TestStdinOfVanishedReader(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin}, 1<<20)
	go1 := s.fifo("go")
	s.host("/bin/sh", "-c", "read x < "+go1.Name()+"; echo output; read x < "+go1.Name()+"; n=$(wc -c); [ $n = 150000 ]").start().until(ReportRunning)
	c := s.attach(stdio.Hello{Stdout: true, Stdin: true, StdinOnce: true})
	c.Write(make([]byte, 150000))
	c.Close()
	fmt.Fprintln(go1)
	eventually(t, "the output", func() bool { out, _ := s.readLog(); return out == "output\n" })
	s.heard()
	fmt.Fprintln(go1)
	if r := s.until(ReportExited); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
}

// TestStdinOfReaderGoneMeanwhile: the same where the shim sees its end in the moment
// in which there is output for it.
func TestStdinOfReaderGoneMeanwhile(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin}, 1<<20)
	words, written := s.fifo("words"), filepath.Join(s.dir, "written")
	script := fmt.Sprintf("read x < %[1]s; echo output; : > %[2]s; read x < %[1]s; n=$(wc -c); [ $n = 150000 ]", words.Name(), written)
	s.host("/bin/sh", "-c", script).start().until(ReportRunning)
	c := s.attach(stdio.Hello{Stdout: true, Stdin: true, StdinOnce: true})
	c.Write(make([]byte, 150000))
	for range 5 { // a frame in each round of the shim's loop, until the program's input is full
		s.heard()
	}
	unix.Kill(s.pid, unix.SIGSTOP)
	eventually(t, "the shim to stand still", func() bool { return strings.HasPrefix(field(t, s.pid, "status", "State:"), "T") })
	c.Close()
	fmt.Fprintln(words)
	eventually(t, "the output", func() bool { _, err := os.Stat(written); return err == nil })
	unix.Kill(s.pid, unix.SIGCONT)
	s.heard()
	fmt.Fprintln(words)
	if r := s.until(ReportExited); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
}

// TestInputBeforeTerminal: what a client says before there is a terminal is for it.
func TestInputBeforeTerminal(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin | Terminal}, 1<<20)
	fd := s.add(tree(t, box(t)))
	s.Add(StageClone, Clone{Flags: allNamespaces, Cgroup: NoFD})
	s.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE}, Root{FD: fd, Attr: Attr{Propagation: unix.MS_PRIVATE}}, Sync{1})
	s.ordinary()
	s.Add(StageMounts, Console{Rows: 10, Cols: 20}, Pivot{})
	s.sh("stty -echo; stty size; read x; echo got $x").start().until(ReportSync)
	c := s.attach(stdio.Hello{Stdin: true, Stdout: true, Lossless: true})
	c.Resize(stdio.Size{Rows: 33, Cols: 44})
	io.WriteString(c, "early\n")
	s.heard()
	s.conn.Continue(1)
	s.until(ReportExited)
	if out, _ := s.readLog(); !strings.HasSuffix(out, "33 44\r\ngot early\r\n") {
		t.Errorf("%q", out)
	}
}

// TestInputForFullTerminal: more input than a terminal holds waits for the program, and
// its end behind it.
func TestInputForFullTerminal(t *testing.T) {
	sent := strings.Repeat(strings.Repeat("x", 99)+"\n", 600)
	s := newShim(t, Monitor{Flags: OpenStdin | Terminal}, 1<<20)
	words := s.fifo("words")
	s.contain(box(t), allNamespaces)
	s.Add(StageMounts, Attach{FD: s.add(tree(t, words.Name())), Target: "/words", Create: CreateFile}, Console{Rows: 10, Cols: 20}, Pivot{})
	s.sh("stty -echo; echo ready; read x < /words; echo $(wc -c)").start().until(ReportRunning)
	c := s.attach(stdio.Hello{Stdin: true})
	eventually(t, "the terminal to be set", func() bool { out, _ := s.readLog(); return out == "ready\r\n" })
	io.WriteString(c, sent)
	c.CloseInput()
	s.heard()
	fmt.Fprintln(words)
	s.until(ReportExited)
	if out, _ := s.readLog(); out != fmt.Sprintf("ready\r\n%d\r\n", len(sent)) {
		t.Errorf("%q", out)
	}
}

// fill has the program write parts of its output, for which it waits for the word
// more, until the shim does not take a whole one: a client keeps what came before.
// It gives how much was written.
func (s *shim) fill(words io.Writer, part int) (size int) {
	s.t.Helper()
	for taken := 0; taken == size; {
		fmt.Fprintln(words, "more")
		size += part
		for end := time.Now().Add(500 * time.Millisecond); taken < size && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			taken = int(s.offset())
		}
	}
	return size
}

// TestEndOfFullTerminal: a terminal that was full at the end is read to its last byte,
// also while a client keeps the one before.
func TestEndOfFullTerminal(t *testing.T) {
	const part = 8000
	s := newShim(t, Monitor{Flags: Terminal, DrainMs: never}, 8<<20)
	words := s.fifo("words")
	s.contain(box(t), allNamespaces)
	s.Add(StageMounts, Attach{FD: s.add(tree(t, words.Name())), Target: "/words", Create: CreateFile}, Console{Rows: 10, Cols: 20}, Pivot{})
	s.sh(fmt.Sprintf("exec < /words; while read x && [ $x = more ]; do busybox head -c %d /dev/zero; done; exit 3", part)).start().until(ReportRunning)
	c := s.attach(stdio.Hello{Stdout: true, Lossless: true})
	size := s.fill(words, part)
	fmt.Fprintln(words, "end")
	if r := s.until(ReportExited); r.Code != 3 {
		t.Fatalf("%+v", r)
	}
	if out, _ := s.readLog(); len(out) != size {
		t.Errorf("%d bytes of %d in the log", len(out), size)
	}
	var count counter
	if e, err := collect(c, &count, io.Discard); err != nil || e.Code != 3 || int(count) != size {
		t.Errorf("%d bytes of %d, %+v, %v", count, size, e, err)
	}
}

// TestMemoryOfLostFollowers: what a follower was in the middle of when it was passed over
// is kept for it, and no longer than it lives.
func TestMemoryOfLostFollowers(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 0)
	more := s.fifo("more")
	s.host("/bin/sh", "-c", "head -c 8000000 /dev/zero; read x < "+more.Name()).start().until(ReportGate)
	var all []*stdio.Conn
	for range 12 {
		all = append(all, s.attach(stdio.Hello{Stdout: true}))
	}
	eventually(t, "the shim to read all of it", func() bool { return s.offset() == 8000000 })
	// Counted page by page: the counters of a process may be some pages behind.
	rss := func() int { return status(t, s.pid, "smaps_rollup", "Anonymous:") }
	kept := rss()
	for _, c := range all {
		c.Close()
	}
	s.heard()
	const bare = 150 // kB, with a piece of output
	if left := rss(); left > bare {
		t.Errorf("%d kB of %d are left", left, kept)
	}
	fmt.Fprintln(more)
	s.until(ReportExited)
}

// TestLateClient: what comes live to a client begins where its first state says, also
// where another one still keeps what came before.
func TestLateClient(t *testing.T) {
	const part = 8000
	s := newShim(t, Monitor{DrainMs: never}, 8<<20)
	words, end := s.fifo("words"), s.fifo("end")
	s.host("/bin/sh", "-c", fmt.Sprintf("(exec 1>&-; read x < %s) & exec < %s; while read x && [ $x = more ]; do head -c %d /dev/zero; done",
		end.Name(), words.Name(), part)).start().until(ReportRunning)
	first := s.attach(stdio.Hello{Stdout: true, Lossless: true})
	size := s.fill(words, part)
	fmt.Fprintln(words, "end")
	eventually(t, "the rest to be taken out of the pipe", func() bool { return s.offset() == uint64(size) })
	late := s.attach(stdio.Hello{Stdout: true, Lossless: true})
	s.heard()
	fmt.Fprintln(end)
	for _, c := range []struct {
		*stdio.Conn
		want int
	}{{late, 0}, {first, size}} { // nor does it wait for the other
		var count counter
		if e, err := collect(c.Conn, &count, io.Discard); err != nil || e.Code != 0 || int(count) != c.want {
			t.Errorf("%d bytes instead of %d, %+v, %v", count, c.want, e, err)
		}
	}
}

// TestPlaceForDriver: however many are attached, a driver finds a place.
func TestPlaceForDriver(t *testing.T) {
	s := newShim(t, Monitor{}, 0).host("/bin/sleep", "100")
	s.start().until(ReportRunning)
	for range 15 {
		s.attach(stdio.Hello{Stdout: true})
	}
	if _, _, err := stdio.Dial(t.Context(), s.socket(), stdio.Hello{Stdout: true}); err == nil {
		t.Error("a place too many")
	}
	s.heard()
}

// processorTime is what a process has used, in ticks of 10 ms.
func processorTime(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

// TestDeadProgramUnderDebugger: a dead process that another one traces is that one's
// to look at first. The shim sees its end at once but may not reap it, and waits
// without using the processor up.
func TestDeadProgramUnderDebugger(t *testing.T) {
	s := newShim(t, Monitor{}, 0).host("/bin/sleep", "100")
	s.start().until(ReportRunning)
	letGo, traced := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread() // a thread traces, not a process
		const seize = 0x4206   // PTRACE_SEIZE
		var err error
		if _, _, e := unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(s.init), 0, 0, 0, 0); e != 0 {
			err = e
		}
		traced <- err
		<-letGo
		_, err = unix.Wait4(s.init, nil, unix.WALL, nil)
		traced <- err
	}()
	if err := <-traced; err != nil {
		t.Fatal(err)
	}
	unix.Kill(s.init, unix.SIGKILL)
	eventually(t, "the program's end", func() bool { return !alive(s.init) })
	before := processorTime(t, s.pid)
	time.Sleep(time.Second)
	if used := processorTime(t, s.pid) - before; used > 10 {
		t.Errorf("%d ms of a second used by waiting", used*10)
	}
	close(letGo)
	if err := <-traced; err != nil {
		t.Fatal(err)
	}
	if r := s.until(ReportExited); r.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", r)
	}
}
