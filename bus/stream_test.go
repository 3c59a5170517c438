package bus

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is two ends of a connection.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		_ = f.Close() // c has a descriptor of its own
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// Lines that were sent one by one may arrive together, and a descriptor with those
// that came before its own.
func TestLinesThatArriveTogether(t *testing.T) {
	a, b := pair(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	from, to := OpenedStream(a, nil, nil, nil), OpenedStream(b, nil, nil, nil)
	for i, f := range []*os.File{nil, file, nil} {
		if err := from.Say(i, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	for i, want := range []string{"0", "1", "2"} {
		line, err := to.Next()
		if err != nil || string(line) != want {
			t.Fatalf("line %d is %q, %v", i, line, err)
		}
		if i == 1 && to.File == nil {
			t.Error("the descriptor has not come")
		}
	}
	if _, err := to.Next(); err == nil {
		t.Error("there is a line behind the last one")
	}
	var sent, got unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &sent); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(int(to.File.Fd()), &got); err != nil || got.Ino != sent.Ino {
		t.Errorf("the descriptor is another file: %v", err)
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"": "/run/gantry/gantry.sock", "unix:///a/b.sock": "/a/b.sock", "unix://": "", "tcp://x": "", "/a/b": "",
	} {
		if got, err := socketOf(host); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", host, got, err)
		}
	}
	for path, want := range map[string]string{"/r/gantry.sock": "/r/streams.sock", "/r/read.sock": "/r/read-streams.sock"} {
		if got := streamSocket(path); got != want {
			t.Errorf("streams of %s are at %s", path, got)
		}
	}
}
