package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"

	"github.com/gantryd/gantry/sdk/netdriver"
)

const (
	bridgePrefix = "gb"
	pairPrefix   = "gp" // of the machine's end of a pair
	portPrefix   = "gv" // of its further name, as an endpoint's port
	markPrefix   = "gantry engine="
)

// short hashes its parts to 12 hexadecimal digits: with a prefix of two
// characters a link's name has 14 of the 15 bytes that the kernel allows.
func short(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:6])
}

func bridgeName(engineName, network string) string {
	return bridgePrefix + short(engineName, network)
}

func portName(engineID string, k netdriver.EndpointKey) string {
	return portPrefix + short(engineID, k.Network, k.Container, strconv.FormatUint(k.Run, 10))
}

func tableName(engineName string) string { return "gantry-" + engineName }

// mark is what a bridge's alias says.
type mark struct {
	Engine   string
	Network  string
	Internal bool
	NoMasq   bool // leaves with its own addresses
}

func (m mark) String() string {
	s := markPrefix + m.Engine + " network=" + m.Network
	if m.Internal {
		s += " internal"
	}
	if m.NoMasq {
		s += " nomasq"
	}
	return s
}

func parseMark(alias string) (mark, bool) {
	if !strings.HasPrefix(alias, markPrefix) {
		return mark{}, false
	}
	words := strings.Fields(strings.TrimPrefix(alias, markPrefix))
	if len(words) < 2 || !strings.HasPrefix(words[1], "network=") {
		return mark{}, false
	}
	m := mark{Engine: words[0], Network: strings.TrimPrefix(words[1], "network=")}
	for _, w := range words[2:] {
		switch w {
		case "internal":
			m.Internal = true
		case "nomasq":
			m.NoMasq = true
		}
	}
	return m, true
}

// The aliases of the machine's end of a pair: made ahead, of an endpoint, and
// of one that was given back.
func spareAlias(engineID string) string    { return markPrefix + engineID + " spare" }
func portAlias(engineID string) string     { return markPrefix + engineID + " endpoint" }
func detachedAlias(engineID string) string { return markPrefix + engineID + " detached" }

// holderKey is an endpoint's key in the holder.
func holderKey(k netdriver.EndpointKey) string {
	return k.Network + "/" + k.Container + "/" + strconv.FormatUint(k.Run, 10)
}

// runKey names a run of a container.
func runKey(k netdriver.EndpointKey) string { return k.Container + "/" + strconv.FormatUint(k.Run, 10) }

func parseHolderKey(s string) (netdriver.EndpointKey, bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return netdriver.EndpointKey{}, false
	}
	run, err := strconv.ParseUint(parts[2], 10, 64)
	return netdriver.EndpointKey{Network: parts[0], Container: parts[1], Run: run}, err == nil
}

// endpointMAC is the given address or, as Docker does, 02:42 and the four
// bytes of the IP address: an address that comes back has the same MAC, so
// that no neighbour's cache is stale.
func endpointMAC(given string, ip netip.Addr) (net.HardwareAddr, error) {
	if given == "" {
		b := ip.As4()
		return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}, nil
	}
	mac, err := net.ParseMAC(given)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || given == "00:00:00:00:00:00" {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "hardware address %q is not one of a single station", given)
	}
	return mac, nil
}

// bridgeMAC is fixed, since a bridge without one takes its ports' addresses
// and changes with them, and the containers' neighbour entries break.
func bridgeMAC(bridge string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(bridge))
	return net.HardwareAddr{0x02, 0x42, sum[0], sum[1], sum[2], sum[3]}
}
