package nettest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// view is what is seen inside a network namespace.
type view struct {
	names     []string // of all interfaces
	mac       string   // of the interface asked for
	up        bool
	addresses []netip.Prefix
	gateway   netip.Addr // of the default route; zero for none
}

// openNamespace opens the namespace of mode path and holds the driver to its
// inode.
func openNamespace(t conform.T, n netdriver.Namespace) *os.File {
	t.Helper()
	if n.Mode != netdriver.NamespacePath {
		t.Fatalf("namespace %+v: want mode %q", n, netdriver.NamespacePath)
	}
	f, err := os.Open(n.Path)
	if err != nil {
		t.Fatalf("open the namespace: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		t.Fatalf("%s is no namespace (%v)", n.Path, err)
	}
	if got := inode(t, f); n.Inode == 0 || got != n.Inode {
		t.Errorf("the namespace at %s has inode %d, but %d was answered", n.Path, got, n.Inode)
	}
	return f
}

func inode(t conform.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatalf("look at the namespace: %v", err)
	}
	return st.Ino
}

// look enters a namespace on a thread of its own and reads what is there.
func look(t conform.T, ns *os.File, name string) view {
	t.Helper()
	var v view
	var err error
	conform.OnThread(func() {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the namespace: %w", err)
			return
		}
		v, err = readView(name)
	})
	if err != nil {
		t.Fatalf("look into the namespace: %v", err)
	}
	return v
}

func readView(name string) (view, error) {
	var v view
	all, err := net.Interfaces()
	if err != nil {
		return v, err
	}
	for _, i := range all {
		v.names = append(v.names, i.Name)
		if i.Name != name {
			continue
		}
		v.mac, v.up = i.HardwareAddr.String(), i.Flags&net.FlagUp != 0
		addrs, err := i.Addrs()
		if err != nil {
			return v, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				v.addresses = append(v.addresses, p)
			}
		}
	}
	v.gateway, err = defaultRoute()
	return v, err
}

// defaultRoute reads the gateway of the IPv4 default route of this thread's
// namespace (proc_pid_net(5), "route": numbers in hexadecimal, host order).
func defaultRoute() (netip.Addr, error) {
	table, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil {
		return netip.Addr{}, err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		raw, err := strconv.ParseUint(f[2], 16, 32)
		if err != nil {
			return netip.Addr{}, err
		}
		var a [4]byte
		binary.NativeEndian.PutUint32(a[:], uint32(raw))
		return netip.AddrFrom4(a), nil
	}
	return netip.Addr{}, nil
}
