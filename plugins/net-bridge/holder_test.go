package bridge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestHolderRefuses(t *testing.T) {
	e := newEngine(t, "refuses")
	fd, err := e.holder.makeNamespace(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	uts, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = uts.Close() }()
	for _, c := range []struct {
		name string
		q    request
		want unix.Errno
	}{
		{"a file", request{op: opPut, key: "k", fd: int(null.Fd())}, unix.EINVAL},
		{"a namespace of another kind", request{op: opPut, key: "k", fd: int(uts.Fd())}, unix.EINVAL},
		{"no descriptor", request{op: opPut, key: "k", fd: -1}, unix.EBADF},
		{"no key", request{op: opPut, fd: fd}, unix.EINVAL},
		{"not held", request{op: opGet, key: "k", fd: -1}, unix.ENOENT},
		{"no user namespace", request{op: opMake, fd: int(uts.Fd())}, unix.EINVAL},
		{"unknown operation", request{op: 99, fd: -1}, unix.ENOSYS},
	} {
		if _, _, err := e.holder.call(c.q, false); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := e.holder.put("k", fd); err != nil {
		t.Fatal(err)
	}
	if _, err := e.holder.put("k", fd); !errors.Is(err, unix.EEXIST) {
		t.Errorf("the same key twice: %v", err)
	}
	if err := e.holder.quit(); err != nil { // busy: it stays
		t.Fatal(err)
	}
	if _, there, err := e.holder.get("k"); !there || err != nil {
		t.Errorf("the holder left while it held something: %v", err)
	}
	if _, err := e.holder.drop("k"); err != nil {
		t.Fatal(err)
	}
}

// What is not a request costs the connection and nothing else.
func TestHolderDropsWhoTalksNonsense(t *testing.T) {
	e := newEngine(t, "nonsense")
	if _, err := e.holder.makeNamespace(-1); err != nil {
		t.Fatal(err)
	}
	for _, packet := range []string{
		"x", "\x02\x01\x00\x00\x00\x00\x00\x00", // another version
		"\x01\x03\xff\xff\x00\x00\x00\x00short",                       // longer key than the packet
		"\x01\x04\x00\x00\x00\x00\x00\x00trailing",                    // key of no length
		"\x01\x04\x21\x01\x00\x00\x00\x00" + strings.Repeat("k", 400), // longer than any key
	} {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: e.holder.path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 64)); err == nil && n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q was answered with %d bytes, %v", packet, n, err)
		}
		_ = c.Close()
	}
	if _, err := e.holder.list(); err != nil {
		t.Errorf("the holder is gone: %v", err)
	}
}

// The keys of a full holder come in several pages, each once.
func TestHolderFull(t *testing.T) {
	e := newEngine(t, "full")
	fd, err := e.holder.makeNamespace(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	const most = 4096
	key := func(i int) string { return fmt.Sprintf("%0200d/c/%d", 0, i) }
	for i := range most {
		if _, err := e.holder.put(key(i), fd); err != nil {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	if _, err := e.holder.put("one more", fd); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("key %d: %v", most+1, err)
	}
	all, err := e.holder.list()
	seen := map[string]bool{}
	for _, k := range all {
		seen[k.Key] = true
	}
	if err != nil || len(all) != most || len(seen) != most {
		t.Errorf("%d keys, %d of them different, %v", len(all), len(seen), err)
	}
	begin := time.Now()
	if _, there, err := e.holder.get(key(most - 1)); !there || err != nil {
		t.Error(err)
	}
	t.Logf("last of %d keys found in %v", most, time.Since(begin))
	for i := range most {
		others, err := e.holder.drop(key(i))
		if err != nil || others != most-1-i {
			t.Fatalf("drop %d: %d others, %v", i, others, err)
		}
	}
}

func TestHolderGivesNothingAway(t *testing.T) {
	e := newEngine(t, "shut")
	if _, err := e.holder.makeNamespace(-1); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(e.holder.path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", e.holder.pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", e.holder.pid, f.Name()))
		if err != nil {
			continue // one that was just made or given
		}
		switch {
		case to == "/dev/null", strings.HasPrefix(to, "socket:"), strings.HasPrefix(to, "net:"), strings.HasSuffix(to, "/netns.lock"):
		default:
			t.Errorf("the holder has inherited %s", to)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.holder.pid))
	if err != nil || !strings.Contains(string(status), "CapEff:\t0000000000201000\n") { // SYS_ADMIN, NET_ADMIN
		t.Errorf("capabilities: %s, %v", status, err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", e.holder.pid))
	if err != nil || len(env) != 0 {
		t.Errorf("environment: %q, %v", env, err)
	}
	session, err := unix.Getsid(e.holder.pid)
	if err != nil || session != e.holder.pid {
		t.Errorf("session %d of process %d, %v", session, e.holder.pid, err)
	}
}

// Somebody removes an engine's directories and leaves the processes.
func TestHolderThatNobodyCanFindLeaves(t *testing.T) {
	e := newEngine(t, "orphan")
	dir := t.TempDir()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	listener, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	cmd := exec.Command(filepath.Join(e.cfg.Libexec, holderProgram), "1")
	cmd.ExtraFiles = []*os.File{listener, lock}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it left while its lock file was there: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	if err := os.Remove(lock.Name()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		t.Error("it stays although its lock file is gone")
	}
}

// A holder that does not answer is waited for once, and nobody behind that call for
// longer.
func TestHolderThatIsSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			defer func() { _ = c.Close() }()
		}
	}()
	h := &holder{path: path, patience: 10 * time.Millisecond}
	defer h.close()
	for range 2 {
		if _, err := h.list(); !errdefs.IsUnavailable(err) {
			t.Errorf("a silent holder: %v", err)
		}
	}
	waitFor(t, "both calls to be taken", func() bool { return calls.Load() >= 2 })
	_ = l.Close()
	<-ended
	if n := calls.Load(); n != 2 {
		t.Errorf("called %d times, want once for each question", n)
	}
}
