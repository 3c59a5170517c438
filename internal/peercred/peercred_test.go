package peercred

import (
	"net"
	"os"
	"path/filepath"
	"testing"
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
	if got != want || got.Start == 0 {
		t.Errorf("got %+v, want %+v", got, want)
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
