package netfiles

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/netdriver"
)

func TestResolv(t *testing.T) {
	for _, c := range []struct {
		name, in string
		dns      []string
		want     string
		ok       bool
	}{
		{"kept", "search a b\nnameserver 10.0.0.1\noptions ndots:2\n", nil, "search a b\nnameserver 10.0.0.1\noptions ndots:2\n", true},
		{"loopback left out", "nameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9\n", nil, "nameserver 9.9.9.9\n", true},
		{"IPv6 left out", "nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver 0.0.0.0\nnameserver 9.9.9.9\n", nil, "nameserver 9.9.9.9\n", true},
		{"IPv6 asked for", "nameserver 9.9.9.9\n", []string{"2001:db8::1"}, "nameserver 2001:db8::1\n", true},
		{"none left", "nameserver 127.0.0.1\nsearch x\n", nil, "search x\n# the machine has no name server that can be reached from here\n", false},
		{"given", "nameserver 10.0.0.1\nsearch x\n", []string{"1.1.1.1"}, "nameserver 1.1.1.1\nsearch x\n", true},
		{"comments and junk", "# nameserver 1.2.3.4\n;x y\nnameserver\n\nnameserver 8.8.8.8", nil, "nameserver 8.8.8.8\n", true},
		{"empty", "", nil, "# the machine has no name server that can be reached from here\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := Resolv([]byte(c.in), c.dns)
			if string(got) != c.want || ok != c.ok {
				t.Errorf("got %q %v, want %q %v", got, ok, c.want, c.ok)
			}
		})
	}
}

func TestReadResolvBehindTheStub(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadResolv(root); err != nil || len(got) != 0 {
		t.Fatalf("missing file: %q, %v", got, err)
	}
	write("etc/resolv.conf", "nameserver 127.0.0.53\n")
	write("run/systemd/resolve/resolv.conf", "nameserver 10.1.1.1\n")
	if got, err := ReadResolv(root); err != nil || string(got) != "nameserver 10.1.1.1\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestHostsLine(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.2")
	if got := string(HostsLine(a, "box", []string{"web", "box", "", "web"})); got != "10.0.0.2\tbox web\n" {
		t.Errorf("got %q", got)
	}
	if got := HostsLine(netip.Addr{}, "box", nil); got != nil {
		t.Errorf("a line without an address: %q", got)
	}
}

func TestStoreKeepsInodeAndForgets(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	one := netdriver.EndpointKey{Network: "aa", Container: "c-1", Run: 3}
	two := netdriver.EndpointKey{Network: "bb", Container: "c-1", Run: 3}
	mounts, err := s.HoldEndpoint(Endpoint{Key: one, Hosts: []byte("10.0.0.2\ta\n"), Resolv: []byte("x\n")})
	if err != nil {
		t.Fatal(err)
	}
	hosts := mounts[1].Source
	before := inode(t, hosts)
	if _, err := s.HoldEndpoint(Endpoint{Key: two, Hosts: []byte("10.0.1.2\ta\n"), Resolv: []byte("x\n")}); err != nil {
		t.Fatal(err)
	}
	expect(t, hosts, Localhost+"10.0.0.2\ta\n10.0.1.2\ta\n")
	keys, err := s.Endpoints()
	if err != nil || !reflect.DeepEqual(keys, []netdriver.EndpointKey{one, two}) {
		t.Fatalf("endpoints %v, %v", keys, err)
	}
	for range 2 { // giving back twice succeeds
		if err := s.DropEndpoint(one); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, hosts, Localhost+"10.0.1.2\ta\n")
	if inode(t, hosts) != before {
		t.Error("hosts has another inode: a container would keep the old file")
	}
	if err := s.DropEndpoint(two); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.RunDir(two)); !os.IsNotExist(err) {
		t.Errorf("directory of the run is left: %v", err)
	}
}

func TestHostileIDs(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", ".", "..", "../x", "a/b", "-x", "a\x00b", "a\n"} {
		if err := s.HoldNetwork(id); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("network %q: %v", id, err)
		}
		k := netdriver.EndpointKey{Network: "n", Container: id}
		if _, err := s.HoldEndpoint(Endpoint{Key: k}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("container %q: %v", id, err)
		}
	}
}

func expect(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Fatalf("%s: %q, %v; want %q", path, got, err, want)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
