package netfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Localhost is the first part of a hosts file, as Docker writes it.
const Localhost = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\n" +
	"ff02::1\tip6-allnodes\n" +
	"ff02::2\tip6-allrouters\n"

// HostsLine is the line of one address, hostname first, names once each.
// Without an address or without a name there is no line.
func HostsLine(addr netip.Addr, hostname string, names []string) []byte {
	var words []string
	seen := map[string]bool{"": true}
	for _, n := range append([]string{hostname}, names...) {
		if !seen[n] {
			seen[n] = true
			words = append(words, n)
		}
	}
	if !addr.IsValid() || len(words) == 0 {
		return nil
	}
	return []byte(addr.String() + "\t" + strings.Join(words, " ") + "\n")
}

// Resolv is the resolv.conf of a container in a network namespace of its own,
// made from the machine's. Its name servers that cannot be reached from there are
// left out: those on a loopback address, which inside is the container itself, and
// those of IPv6, which no network of a container speaks: of a list with several of
// them a program would read nothing else (resolv.conf(5), MAXNS is 3). If none is
// left, none is written, and the second value is false.
func Resolv(machine []byte, dns []string) ([]byte, bool) {
	var out bytes.Buffer
	servers := 0
	for _, d := range dns {
		fmt.Fprintf(&out, "nameserver %s\n", d)
		servers++
	}
	for _, line := range strings.Split(string(machine), "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if words[0] == "nameserver" {
			if len(dns) > 0 || !isReachable(words[1]) {
				continue
			}
			servers++
		}
		out.WriteString(strings.Join(words, " ") + "\n")
	}
	if servers == 0 {
		out.WriteString("# the machine has no name server that can be reached from here\n")
	}
	return out.Bytes(), servers > 0
}

func isReachable(server string) bool {
	a, err := netip.ParseAddr(server)
	a = a.Unmap()
	return err != nil || a.Is4() && !a.IsLoopback() && !a.IsUnspecified()
}

// ReadResolv reads the machine's resolv.conf below root ("/" but for tests).
// Where it names only the stub of systemd-resolved, the list of the real
// servers behind that is read instead, as Docker does. A missing file is an
// empty one.
func ReadResolv(root string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the machine's resolv.conf: %w", err)
	}
	if _, ok := Resolv(data, nil); ok || !bytes.Contains(data, []byte("127.0.0.53")) {
		return data, nil
	}
	if behind, err := os.ReadFile(filepath.Join(root, "run/systemd/resolve/resolv.conf")); err == nil {
		return behind, nil
	}
	return data, nil
}
