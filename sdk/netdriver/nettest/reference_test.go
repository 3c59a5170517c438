package nettest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// reference is a good net driver with its memory, and its namespaces, in this
// process. The interface of an endpoint is a tap device with the name, address
// and hardware address that were asked for.
type reference struct {
	run string

	mu        sync.Mutex // guards what follows
	networks  map[string]netdriver.Network
	endpoints map[netdriver.EndpointKey]*endpoint
}

// endpoint is one endpoint and the descriptors that keep it alive.
type endpoint struct {
	answer netdriver.Endpoint
	ns     *os.File
	tap    *os.File
}

func newReference(c driver.Config) *reference {
	return &reference{
		run: c.Run, networks: map[string]netdriver.Network{}, endpoints: map[netdriver.EndpointKey]*endpoint{},
	}
}

// world keeps drivers over restarts, by their directory.
type world struct {
	mu      sync.Mutex // guards drivers
	drivers map[string]*reference
}

func (w *world) open(c driver.Config) *reference {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drivers == nil {
		w.drivers = map[string]*reference{}
	}
	if w.drivers[c.Run] == nil {
		w.drivers[c.Run] = newReference(c)
	}
	return w.drivers[c.Run]
}

func (d *reference) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "reference", Version: "1"}, nil
}

func (d *reference) CreateNetwork(_ context.Context, n netdriver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range n.Options {
		return driver.Errorf(errdefs.ErrInvalidArgument, "the option %s is not known", name)
	}
	for _, other := range d.networks {
		if other.ID != n.ID && other.Subnet.Overlaps(n.Subnet) {
			return driver.Errorf(errdefs.ErrAlreadyExists, "the subnet %v is in use", n.Subnet)
		}
	}
	d.networks[n.ID] = n
	return nil
}

func (d *reference) RemoveNetwork(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.networks, id)
	return nil
}

func (d *reference) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.UserNS.Mode != "" {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrNotImplemented, "the reference driver has no user namespaces")
	}
	if _, ok := d.networks[r.Network]; !ok {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrNotFound, "network %s is not there", r.Network)
	}
	if e, ok := d.endpoints[r.EndpointKey]; ok {
		return e.answer, nil
	}
	e, err := d.make(r)
	if err != nil {
		return netdriver.Endpoint{}, err
	}
	d.endpoints[r.EndpointKey] = e
	return e.answer, nil
}

// make makes the namespace, or joins one, and the interface.
func (d *reference) make(r netdriver.Attach) (*endpoint, error) {
	e := &endpoint{answer: netdriver.Endpoint{Interface: "eth0"}}
	if r.Join.Mode != "" {
		e.answer.Interface = "eth1"
	}
	var err error
	conform.OnThread(func() { err = e.inNamespace(r) })
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(e.ns.Fd()), &st); err != nil {
		return nil, err
	}
	e.answer.Namespace = netdriver.Namespace{
		Mode: netdriver.NamespacePath, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), e.ns.Fd()), Inode: st.Ino,
	}
	e.answer.Files, err = d.files(r)
	return e, err
}

func (e *endpoint) inNamespace(r netdriver.Attach) (err error) {
	if r.Join.Mode == "" {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
	} else if err := enter(r.Join.Path); err != nil {
		return err
	}
	if e.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if e.tap, err = tap(e.answer.Interface); err != nil {
		return err
	}
	return configure(e.answer.Interface, r)
}

func enter(path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// tap makes an interface that lives as long as its descriptor
// (Documentation/networking/tuntap.rst).
func tap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("make a tap device: %w", err)
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

// configure sets addresses by the old ioctls (netdevice(7)), and the default
// route by SIOCADDRT.
func configure(name string, r netdriver.Attach) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if r.MAC != "" {
		if err := setMAC(s, name, r.MAC); err != nil {
			return err
		}
	}
	mask := net.CIDRMask(r.Address.Bits(), 32)
	for _, set := range []struct {
		what uint
		ip   []byte
	}{{unix.SIOCSIFADDR, r.Address.Addr().AsSlice()}, {unix.SIOCSIFNETMASK, mask}} {
		request, _ := unix.NewIfreq(name)
		if err := request.SetInet4Addr(set.ip); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, set.what, request); err != nil {
			return fmt.Errorf("set an address: %w", err)
		}
	}
	up, _ := unix.NewIfreq(name)
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("set the interface up: %w", err)
	}
	if !r.Gateway.IsValid() {
		return nil
	}
	return addRoute(s, r.Gateway)
}

func setMAC(s int, name, mac string) error {
	raw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	var request [40]byte // struct ifreq: name, then a sockaddr
	copy(request[:16], name)
	binary.NativeEndian.PutUint16(request[16:], unix.ARPHRD_ETHER)
	copy(request[18:], raw)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("set the hardware address: %w", errno)
	}
	return nil
}

// addRoute adds a default route: struct rtentry of linux/route.h, on machines
// of 64 bits.
func addRoute(s int, gateway netip.Addr) error {
	var entry [120]byte
	const dst, via, mask, flags = 8, 24, 40, 56
	for _, at := range []int{dst, via, mask} {
		binary.NativeEndian.PutUint16(entry[at:], unix.AF_INET)
	}
	copy(entry[via+4:], gateway.AsSlice())
	binary.NativeEndian.PutUint16(entry[flags:], unix.RTF_UP|unix.RTF_GATEWAY)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCADDRT, uintptr(unsafe.Pointer(&entry))); errno != 0 {
		return fmt.Errorf("add the default route: %w", errno)
	}
	return nil
}

func (d *reference) files(r netdriver.Attach) ([]driver.Mount, error) {
	dir := filepath.Join(d.run, r.Container[:8])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var mounts []driver.Mount
	for name, text := range map[string]string{
		"hosts":       fmt.Sprintf("%s %s %s\n", r.Address.Addr(), r.Hostname, r.Names),
		"resolv.conf": fmt.Sprintf("nameserver %s\n", r.DNS),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
		mounts = append(mounts, driver.Mount{Type: "bind", Source: filepath.Join(dir, name), Target: "/etc/" + name})
	}
	return mounts, nil
}

func (d *reference) Detach(_ context.Context, k netdriver.EndpointKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.endpoints[k]; ok {
		delete(d.endpoints, k)
		e.tap.Close()
		e.ns.Close()
	}
	return nil
}

func (d *reference) List(context.Context) ([]driver.Item, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var items []driver.Item
	for id := range d.networks {
		items = append(items, driver.Item{Kind: "network", Key: id, State: "held"})
	}
	for k, e := range d.endpoints {
		items = append(items, driver.Item{
			Kind: "endpoint", Key: k.Container, Run: k.Run, Network: k.Network, State: "held",
			Namespace: e.answer.Namespace.Path, Inode: e.answer.Namespace.Inode,
		})
	}
	return items, nil
}
