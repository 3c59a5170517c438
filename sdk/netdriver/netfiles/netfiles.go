// Package netfiles keeps what a network driver must remember about endpoints
// that have no kernel object of their own, and writes the files that every
// container expects from its network: hosts and resolv.conf.
//
// Everything lies in the driver's Run directory, on tmpfs, so that a reboot
// forgets it together with the kernel's objects:
//
//	networks/<network>                    an empty file for each network
//	<container>-<run>/hosts               bound over /etc/hosts
//	<container>-<run>/resolv.conf         bound over /etc/resolv.conf
//	<container>-<run>/base                first part of hosts, if it is not the usual one
//	<container>-<run>/endpoint-<network>  that endpoint's lines of hosts
//
// hosts and resolv.conf are single-file binds in a running container: they are
// rewritten in place, since a rename would leave the old inode mounted.
package netfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

const endpointPrefix = "endpoint-"

// Store is the directory of one driver. It may be used by several goroutines
// as long as each run of a container has one at a time.
type Store struct {
	dir string
}

// Open returns the store in dir, which is made when it is missing.
func Open(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("network driver directory %q is not absolute: %w", dir, errdefs.ErrInvalidArgument)
	}
	if err := os.MkdirAll(filepath.Join(dir, "networks"), 0o700); err != nil {
		return nil, fmt.Errorf("make network driver directory: %w", err)
	}
	return &Store{dir: filepath.Clean(dir)}, nil
}

const idMax = 128 // bytes of an id

// CheckID refuses an id that could not be a file's name: letters, digits, and
// behind the first of those also "_", "." and "-".
func CheckID(what, id string) error {
	ok := len(id) > 0 && len(id) <= idMax
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' ||
			i > 0 && (c == '_' || c == '.' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%s id %q: %w", what, id, errdefs.ErrInvalidArgument)
	}
	return nil
}

// CheckKey refuses a key whose ids could not be file names.
func CheckKey(k netdriver.EndpointKey) error {
	if err := CheckID("network", k.Network); err != nil {
		return err
	}
	return CheckID("container", k.Container)
}

// HoldNetwork remembers a network.
func (s *Store) HoldNetwork(id string) error {
	if err := CheckID("network", id); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "networks", id), nil, 0o600)
}

// HasNetwork reports whether a network is held.
func (s *Store) HasNetwork(id string) bool {
	if CheckID("network", id) != nil {
		return false
	}
	_, err := os.Lstat(filepath.Join(s.dir, "networks", id))
	return err == nil
}

// DropNetwork forgets a network.
func (s *Store) DropNetwork(id string) error {
	if err := CheckID("network", id); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(filepath.Join(s.dir, "networks", id)))
}

// RunDir is the directory of one run.
func (s *Store) RunDir(k netdriver.EndpointKey) string {
	return s.dir + "/" + k.Container + "-" + strconv.FormatUint(k.Run, 10)
}

// Endpoint is what HoldEndpoint is to write.
type Endpoint struct {
	Key    netdriver.EndpointKey
	Base   []byte // first part of hosts; nil for Docker's localhost lines, in all endpoints of a run
	Hosts  []byte // the endpoint's own lines of hosts
	Resolv []byte // resolv.conf
}

// HoldEndpoint writes the files of an endpoint and remembers it, the marker
// last. Further endpoints of the same run add their lines to its hosts file.
func (s *Store) HoldEndpoint(e Endpoint) ([]driver.Mount, error) {
	if err := CheckKey(e.Key); err != nil {
		return nil, err
	}
	dir, marker := s.RunDir(e.Key), endpointPrefix+e.Key.Network
	made := unix.Mkdir(dir, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return nil, fmt.Errorf("make directory of the run %s: %w", dir, made)
	}
	if e.Base != nil {
		if err := writeInPlace(dir+"/base", 0o600, e.Base); err != nil {
			return nil, err
		}
	}
	if err := writeInPlace(dir+"/resolv.conf", 0o644, e.Resolv); err != nil {
		return nil, err
	}
	var err error
	if made != nil { // there is something already
		err = s.writeHosts(dir, marker, e.Hosts)
	} else {
		base := e.Base
		if base == nil {
			base = []byte(Localhost)
		}
		err = writeInPlace(dir+"/hosts", 0o644, base, e.Hosts)
	}
	if err != nil {
		return nil, err
	}
	if err := writeInPlace(dir+"/"+marker, 0o600, e.Hosts); err != nil {
		return nil, err
	}
	return s.Mounts(e.Key), nil
}

// Mounts are the binds of a run's files.
func (s *Store) Mounts(k netdriver.EndpointKey) []driver.Mount {
	dir := s.RunDir(k)
	return []driver.Mount{
		{Type: "bind", Source: dir + "/resolv.conf", Target: "/etc/resolv.conf"},
		{Type: "bind", Source: dir + "/hosts", Target: "/etc/hosts"},
	}
}

// HasEndpoint reports whether an endpoint is held, with the files of its run:
// the first thing that DropEndpoint removes is hosts.
func (s *Store) HasEndpoint(k netdriver.EndpointKey) bool {
	if CheckKey(k) != nil {
		return false
	}
	dir := s.RunDir(k)
	return unix.Access(dir+"/"+endpointPrefix+k.Network, unix.F_OK) == nil && unix.Access(dir+"/hosts", unix.F_OK) == nil
}

// DropEndpoint forgets an endpoint; with the last one of a run its directory
// goes. Its marker goes last, so that one that is half dropped is still listed.
func (s *Store) DropEndpoint(k netdriver.EndpointKey) error {
	if err := CheckKey(k); err != nil {
		return err
	}
	dir, marker := s.RunDir(k), endpointPrefix+k.Network
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	names, err := namesIn(fd)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", dir, err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, endpointPrefix) && n != marker { // another endpoint
			if err := unlink(fd, marker); err != nil {
				return err
			}
			return s.writeHosts(dir, "", nil)
		}
	}
	for _, n := range []string{"hosts", "resolv.conf", "base", marker} {
		if !slices.Contains(names, n) {
			continue
		}
		if err := unlink(fd, n); err != nil {
			return err
		}
	}
	if unix.Rmdir(dir) == nil {
		return nil
	}
	return os.RemoveAll(dir) // somebody has put something there
}

func unlink(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// namesIn lists a directory.
func namesIn(dir int) ([]string, error) {
	var names []string
	buf := make([]byte, 2048)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Items lists what is held: networks, then endpoints.
func (s *Store) Items() ([]driver.Item, error) {
	networks, err := os.ReadDir(filepath.Join(s.dir, "networks"))
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var items []driver.Item
	for _, n := range networks {
		items = append(items, driver.Item{Kind: "network", Key: n.Name(), State: "held"})
	}
	keys, err := s.Endpoints()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		items = append(items, driver.Item{
			Kind: "endpoint", Key: k.Container, Run: k.Run, Network: k.Network, State: "held",
		})
	}
	return items, nil
}

// Endpoints lists the keys of the endpoints held.
func (s *Store) Endpoints() ([]netdriver.EndpointKey, error) {
	runs, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var keys []netdriver.EndpointKey
	for _, r := range runs {
		cut := strings.LastIndexByte(r.Name(), '-')
		if cut < 1 || !r.IsDir() {
			continue
		}
		run, err := strconv.ParseUint(r.Name()[cut+1:], 10, 64)
		if err != nil {
			continue
		}
		names, err := fragments(filepath.Join(s.dir, r.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, n := range names {
			keys = append(keys, netdriver.EndpointKey{
				Network: strings.TrimPrefix(n, endpointPrefix), Container: r.Name()[:cut], Run: run,
			})
		}
	}
	return keys, nil
}

// writeHosts puts hosts together from its parts; the one named coming is not
// on disk yet.
func (s *Store) writeHosts(dir, coming string, text []byte) error {
	names, err := fragments(dir)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, "base"))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(Localhost), nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == coming {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			return err
		}
		data = append(data, b...)
	}
	return writeInPlace(dir+"/hosts", 0o644, data, text)
}

// fragments lists the endpoint files of a run, sorted.
func fragments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), endpointPrefix) {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// writeInPlace keeps the inode: it may be bound into a running container. It
// is called three times for each container, so it makes the system calls
// itself: os.File asks for more of them, to wait for files that block.
func writeInPlace(path string, mode uint32, parts ...[]byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, mode)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	err = fill(fd, mode, slices.Concat(parts...))
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func fill(fd int, mode uint32, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o777 == mode {
		return err
	}
	return unix.Fchmod(fd, mode) // whatever the umask is
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
