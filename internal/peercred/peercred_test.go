package peercred

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOfIsThisProcess(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := Of(s)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	want := Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), Start: parseStart(stat)}
	if !namesPeers(t, s) {
		// Before Linux 6.5 it is not known, and must not be guessed.
		want.Start = 0
	}
	if got != want || (got.Start == 0) != (want.Start == 0) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if want.Start == 0 {
		t.Skip("the kernel gives no descriptor of a peer (SO_PEERPIDFD, Linux 6.5): only the rest was looked at")
	}
}

// namesPeers says whether the kernel knows SO_PEERPIDFD.
func namesPeers(t *testing.T, c *net.UnixConn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	known := false
	err = raw.Control(func(fd uintptr) {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPIDFD)
		if known = err == nil; known {
			unix.Close(n)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// TestWithoutDescriptor forces what kernels before 6.5 do.
func TestWithoutDescriptor(t *testing.T) {
	if start := startOf(int32(os.Getpid()), -1); start != 0 {
		t.Errorf("a start time that nothing vouches for: %d", start)
	}
}

func TestParseStart(t *testing.T) {
	for _, c := range []struct {
		stat string
		want uint64
	}{
		{"7 (sh) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 9 9", 4711},
		{"7 (a) b) 3 (x) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4712 9 9", 4712},
		{"7 (sh) S 1", 0},
		{"", 0},
		{"7 (sh) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 soon 9 9", 0},
	} {
		if got := parseStart([]byte(c.stat)); got != c.want {
			t.Errorf("parseStart(%q) = %d, want %d", c.stat, got, c.want)
		}
	}
}
