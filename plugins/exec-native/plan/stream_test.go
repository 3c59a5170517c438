package plan

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryd/gantry/internal/stdio"
)

// TestQuickWriters runs a program a thousand times that writes 64 KiB and
// exits at once: every byte must come, through the client and into the log.
func TestQuickWriters(t *testing.T) {
	const workers, size = 4, 64 << 10
	runs := 1000
	if testing.Short() {
		runs = 50
	}
	want := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				quickWriter(t, i, want)
			}
		})
	}
	for i := range runs {
		next <- i
	}
	close(next)
	wg.Wait()
}

func quickWriter(t *testing.T, i int, want []byte) {
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 1<<20).
		host("/usr/bin/awk", fmt.Sprintf(`BEGIN{for(i=0;i<4096;i++)print "0123456789abcde"; exit %d}`, i%256))
	s.start()
	s.until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Stderr: true, Lossless: true})
	var out, errs bytes.Buffer
	e, err := collect(c, &out, &errs)
	if err != nil || e.Code != i%256 || !bytes.Equal(out.Bytes(), want) || errs.Len() != 0 {
		t.Errorf("run %d: %d bytes, %d of errors %q, %+v, %v", i, out.Len(), errs.Len(), errs.String(), e, err)
	}
	if r := s.until(ReportExited); r.Code != i%256 {
		t.Errorf("run %d: %+v", i, r)
	}
	if logged, _ := s.readLog(); logged != string(want) {
		t.Errorf("run %d: %d bytes in the log", i, len(logged))
	}
}

// slowReader reads in odd pieces and stops for a while now and then.
type slowReader struct {
	net.Conn
	n int
}

func (r *slowReader) Read(p []byte) (int, error) {
	r.n++
	if r.n%400 == 0 {
		time.Sleep(time.Millisecond)
	}
	return r.Conn.Read(p[:min(len(p), 1000+r.n%60000)])
}

// TestSlowLosslessClient sends 500 MB through a reader that is slower than the
// program; a follower beside it that stands still changes nothing.
func TestSlowLosslessClient(t *testing.T) {
	size := 500 << 20
	if testing.Short() {
		size = 50 << 20
	}
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 0).
		host("/bin/sh", "-c", fmt.Sprintf("yes 'a line of the many' | head -c %d", size))
	s.start().until(ReportGate)
	raw, err := net.Dial("unix", s.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c, _, err := stdio.Attach(t.Context(), &slowReader{Conn: raw}, stdio.Hello{Stdout: true, Lossless: true})
	if err != nil {
		t.Fatal(err)
	}
	s.attach(stdio.Hello{Stdout: true}) // second: the first one opens the gate
	got, want := sha256.New(), sha256.New()
	line := []byte("a line of the many\n")
	block := bytes.Repeat(line, 1<<16)
	for left := size; left > 0; {
		n := min(left, len(block))
		want.Write(block[:n])
		left -= n
	}
	var count counter
	e, err := collect(c, io.MultiWriter(got, &count), io.Discard)
	if err != nil || e.Code != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	if count != counter(size) || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Fatalf("%d bytes of %d, and not the same", count, size)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// never is longer than a test waits, in milliseconds.
const never = 10 * uint32(patience/time.Millisecond)

// TestExitDoesNotWaitForClient: a lossless client that does not read keeps its
// bytes, but neither record nor report waits for it.
func TestExitDoesNotWaitForClient(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach | OpenStdin, GateMilli: never, DrainMs: never}, 8<<20).
		host("/bin/sh", "-c", "read line; head -c 150000 /dev/zero; exit 3")
	s.start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Stdin: true, Lossless: true})
	control, follower := s.attach(stdio.Hello{Control: true}), s.attach(stdio.Hello{Stdout: true})
	if _, err := c.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if r := s.until(ReportExited); r.Code != 3 {
		t.Fatalf("%+v", r)
	}
	for name, other := range map[string]*stdio.Conn{"control": control, "follower": follower} {
		if e, err := collect(other, io.Discard, io.Discard); err != nil || e.Code != 3 {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if out, _ := s.readLog(); len(out) != 150000 {
		t.Errorf("%d bytes in the log", len(out))
	}
	var count counter
	if e, err := collect(c, &count, io.Discard); err != nil || e.Code != 3 || count != 150000 {
		t.Fatalf("%d bytes, %+v, %v", count, e, err)
	}
	eventually(t, "the shim to leave", func() bool { return !alive(s.pid) })
}

// TestVanishedClient: a lossless client that dies holds nobody up.
func TestVanishedClient(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 0).
		host("/bin/sh", "-c", "head -c 5000000 /dev/zero; exit 4")
	s.start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Lossless: true})
	c.Next()
	c.Close()
	if r := s.until(ReportExited); r.Code != 4 {
		t.Fatalf("%+v", r)
	}
}

// TestFollowerFillsFromLog: what a follower was not sent is told by offsets,
// and lies in the log.
func TestFollowerFillsFromLog(t *testing.T) {
	const size = 8 << 20
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 64<<20).
		host("/bin/sh", "-c", fmt.Sprintf("seq 1 99999999 | head -c %d", size))
	s.start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true})
	s.until(ReportExited)
	logged, _ := s.readLog()
	var at uint64
	lost := 0
	for {
		f, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == stdio.FrameExit {
			break
		}
		switch f.Type {
		case stdio.FrameLost:
			l, err := stdio.ParseLost(f.Payload)
			if err != nil || l.From != at || l.Stream != stdio.Stdout {
				t.Fatalf("%+v at %d, %v", l, at, err)
			}
			at = l.To
			lost++
		case stdio.FrameStdout:
			if !strings.HasPrefix(logged[at:], string(f.Payload)) {
				t.Fatalf("at %d: not what the log has", at)
			}
			at += uint64(len(f.Payload))
		}
	}
	if at != size || lost == 0 {
		t.Fatalf("ended at %d of %d, %d losses", at, size, lost)
	}
}

func TestGateOpensByDeadline(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: 100}, 0).host("/bin/true")
	begin := time.Now()
	s.start().until(ReportGate)
	s.until(ReportExited)
	if d := time.Since(begin); d < 90*time.Millisecond {
		t.Errorf("the gate opened after %v", d)
	}
}

// TestGateNotOpenedByControl: a client that only listens for the exit is not
// one that wants output.
func TestGateNotOpenedByControl(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 0).host("/bin/true")
	s.start().until(ReportGate)
	s.attach(stdio.Hello{Control: true})
	s.heard()
	c, state, err := stdio.Dial(t.Context(), s.socket(), stdio.Hello{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if state.State != stdio.StateMade {
		t.Errorf("state %d with nobody attached", state.State)
	}
	s.until(ReportExited)
}

func TestStdin(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach | OpenStdin, GateMilli: never}, 0).host("/bin/cat")
	s.start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Stdin: true, Lossless: true})
	sent := bytes.Repeat([]byte("0123456789\n"), 300000)
	go func() {
		c.Write(sent)
		c.CloseInput()
	}()
	var out bytes.Buffer
	e, err := collect(c, &out, io.Discard)
	if err != nil || e.Code != 0 || !bytes.Equal(out.Bytes(), sent) {
		t.Fatalf("%d of %d bytes, %+v, %v", out.Len(), len(sent), e, err)
	}
}

// TestStdinOfVanishedClient: what a client had sent before it went is read.
func TestStdinOfVanishedClient(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin}, 0).host("/bin/sh", "-c", "sleep 0.2; n=$(wc -c); [ $n = 150000 ]")
	s.start().until(ReportRunning)
	c := s.attach(stdio.Hello{Stdin: true, StdinOnce: true})
	c.Write(make([]byte, 150000))
	c.Close()
	if r := s.until(ReportExited); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestStdinClosedByProgram(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach | OpenStdin, GateMilli: never}, 0).
		host("/bin/sh", "-c", "exec 0<&-; sleep 0.2; exit 6")
	s.start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Stdin: true, Lossless: true})
	go c.Write(make([]byte, 4<<20))
	if e, err := collect(c, io.Discard, io.Discard); err != nil || e.Code != 6 {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestNoStdinIsNull(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20).host("/bin/sh", "-c", "cat; echo end; echo bad >&2")
	s.start().until(ReportExited)
	if out, errs := s.readLog(); out != "end\n" || errs != "bad\n" {
		t.Fatalf("%q %q", out, errs)
	}
}

// TestGrandchildHoldsPipe: a process that outlives the program and holds its
// output delays the end no longer than DrainMs.
func TestGrandchildHoldsPipe(t *testing.T) {
	s := newShim(t, Monitor{DrainMs: 200}, 1<<20)
	end := s.fifo("end")
	s.host("/bin/sh", "-c", "(read x < "+end.Name()+"; echo late) & echo early; exit 9")
	begin := time.Now()
	r := s.start().until(ReportExited)
	if d := time.Since(begin); r.Code != 9 || d < 200*time.Millisecond {
		t.Fatalf("%+v after %v", r, d)
	}
	fmt.Fprintln(end)
	if out, _ := s.readLog(); out != "early\n" {
		t.Errorf("%q", out)
	}
}

// TestBadClients: whatever connects and talks nonsense is closed, and the
// program runs on.
func TestBadClients(t *testing.T) {
	s := newShim(t, Monitor{}, 0).host("/bin/sleep", "100")
	s.start().until(ReportRunning)
	for _, words := range []string{
		"\x10\x00\x00\x01x",                                 // no hello
		"\x01\x00\x00\x04\x09\x00\x00\x00",                  // another version
		"\x01\xff\xff\xff",                                  // too long
		"\x01\x00\x00\x04\x01\x00\x00\x01\x02\x7f\xff\xff",  // too long, after hello
		"\x01\x00\x00\x04\x01\x00\x00\x01\x04\x00\x00\x01x", // bad resize
	} {
		c, err := net.Dial("unix", s.socket())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(words))
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", words, err)
		}
		c.Close()
	}
	var idle []net.Conn
	for range 40 { // more than there are places
		c, err := net.Dial("unix", s.socket())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	c, state, err := stdio.Dial(t.Context(), s.socket(), stdio.Hello{Control: true})
	if err != nil || state.State != stdio.StateRunning {
		t.Fatalf("%+v, %v", state, err)
	}
	c.Close()
	for _, c := range idle {
		c.Close()
	}
}

// TestRandomClients: clients that send random frames do the shim no harm.
func TestRandomClients(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin}, 1<<20).host("/bin/sh", "-c", "while echo output; do sleep 0.001; done")
	s.start().until(ReportRunning)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 300 {
		c, err := net.Dial("unix", s.socket())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		stdio.WriteFrame(c, stdio.Frame{Type: stdio.FrameHello, Payload: []byte{1, 0, 0, byte(rng.IntN(64))}})
		for range rng.IntN(8) {
			types := []stdio.FrameType{1, 2, 2, 3, 4, 5, 6, 16, 200}
			b := make([]byte, rng.IntN(1+rng.IntN(9000)))
			c.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
			if stdio.WriteFrame(c, stdio.Frame{Type: types[rng.IntN(len(types))], Payload: b}) != nil {
				break
			}
		}
		if rng.IntN(2) == 0 {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			io.CopyN(io.Discard, c, int64(rng.IntN(300)))
		}
		c.Close()
	}
	c, state, err := stdio.Dial(t.Context(), s.socket(), stdio.Hello{Control: true})
	if err != nil || state.State != stdio.StateRunning {
		t.Fatalf("seed %d: %+v, %v", seed, state, err)
	}
	c.Close()
}

// TestTerminalIsClosedAndOpened: a program may close all its streams, and is
// not hung up; what it writes to the terminal later is read.
func TestTerminalIsClosedAndOpened(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin | Terminal}, 1<<20).contain(box(t), allNamespaces)
	s.Add(StageMounts, Console{Rows: 10, Cols: 20}, Pivot{})
	s.sh("echo before; exec 0<&- 1>&- 2>&-; sleep 0.4; exec 1>/dev/console; echo after; exit 7")
	if r := s.start().until(ReportExited); r.Code != 7 {
		t.Errorf("%+v", r)
	}
	if out, _ := s.readLog(); out != "before\r\nafter\r\n" {
		t.Errorf("%q", out)
	}
}

// TestTerminalOfBackgroundProcess: what others of the session have left in the
// terminal comes with the end, which waits no longer than it must.
func TestTerminalOfBackgroundProcess(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin | Terminal, DrainMs: never}, 1<<20).contain(box(t), allNamespaces)
	s.Add(StageMounts, Console{Rows: 10, Cols: 20}, Pivot{})
	s.sh("sleep 100 & echo done; exit 5")
	if r := s.start().until(ReportExited); r.Code != 5 {
		t.Errorf("%+v", r)
	}
	if out, _ := s.readLog(); out != "done\r\n" {
		t.Errorf("%q", out)
	}
}
