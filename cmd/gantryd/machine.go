package main

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux/probe"
	"github.com/gantryd/gantry/internal/query"
)

// machine is what is told about the process and the machine.
func machine(o options) query.Info {
	i := query.Info{
		PID: os.Getpid(), Root: o.root, Run: o.run, OS: osName(), Architecture: runtime.GOARCH, CPUs: runtime.NumCPU(),
		Warnings: warnings(),
	}
	i.Hostname, _ = os.Hostname() // a name for people; empty if there is none
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		i.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		i.MemoryBytes = int64(s.Totalram) * int64(s.Unit)
	}
	return i
}

// security is what keeps containers in on this machine. It is looked at once, when
// somebody asks: the start does not wait for it.
func security() func() []query.Protection {
	return sync.OnceValue(func() []query.Protection {
		var out []query.Protection
		for _, f := range probe.Security() {
			p := query.Protection{Name: f.Name, Have: f.Have, Detail: f.Detail}
			if !f.Have {
				p.Follows = f.Consequence
			}
			out = append(out, p)
		}
		return out
	})
}

// osName is what the system calls itself (os-release(5)).
func osName() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return "Linux"
}

// warnings says what is amiss with the place that gantryd runs in.
func warnings() []string {
	var w []string
	own, err := os.Readlink("/proc/self/ns/mnt")
	init, err2 := os.Readlink("/proc/1/ns/mnt")
	if err == nil && err2 == nil && own != init {
		w = append(w, "gantryd does not live in the host's mount namespace: mounts that are made on the host later are not seen in containers; "+
			"start it without PrivateMounts, PrivateTmp or unshare")
	}
	if os.Geteuid() != 0 {
		w = append(w, "gantryd does not run as root: containers cannot be started")
	}
	return w
}

// raiseFiles raises the soft limit of open files to the hard one. Setting it by hand
// also makes it hold for the processes that are started.
func raiseFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// freePool is the network that subnets of a new engine come from: 172.30.0.0/16
// for the usual name, for others a /20 of 10.128.0.0/9 by the name's hash; the
// next one if the machine has a route into it.
func freePool(name string) (netip.Prefix, error) {
	taken, err := routes()
	if err != nil {
		return netip.Prefix{}, err
	}
	free := func(p netip.Prefix) bool {
		for _, r := range taken {
			if r.Overlaps(p) {
				return false
			}
		}
		return true
	}
	if p := netip.MustParsePrefix("172.30.0.0/16"); name == "gantry" && free(p) {
		return p, nil
	}
	h := fnv.New32a()
	h.Write([]byte(name)) //nolint:errcheck // a hash takes everything
	const pools = 1 << (20 - 9)
	for i := range uint32(pools) {
		n := (h.Sum32() + i) % pools
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 | byte(n>>4), byte(n << 4), 0}), 20)
		if free(p) {
			return p, nil
		}
	}
	return netip.Prefix{}, errclass.WithHint(
		errclass.Errorf(errdefs.ErrResourceExhausted, "the machine has routes into every network that this engine would take its subnets from"),
		"name one with --pool")
}

// routes are the destinations of the machine's IPv4 routes, without the default
// one, and the networks of its interfaces.
func routes() ([]netip.Prefix, error) {
	f, err := os.Open("/proc/net/route")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without IPv4
	}
	if err != nil {
		return nil, fmt.Errorf("read the routes: %w", err)
	}
	defer f.Close()
	var all []netip.Prefix
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		dst, err1 := hostOrder(fields[1])
		mask, err2 := hostOrder(fields[7])
		if err1 != nil || err2 != nil {
			continue // the heading
		}
		ones, _ := net.IPMask(mask[:]).Size()
		if ones > 0 {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4(dst), ones))
		}
	}
	return all, lines.Err()
}

// hostOrder reads an address as the kernel prints it: a number in the machine's
// byte order, which is little-endian on all that we build for.
func hostOrder(hex string) ([4]byte, error) {
	n, err := strconv.ParseUint(hex, 16, 32)
	return [4]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, err
}
