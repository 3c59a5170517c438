// Package netdriver is the contract of drivers that connect containers.
package netdriver

import (
	"context"
	"net/netip"

	"github.com/gantryd/gantry/sdk/driver"
)

// AbilityUserNS is the ability, as Info lists it, to make a namespace inside the user
// namespace that Attach is given. It needs no further methods.
const AbilityUserNS = "userns"

// Driver makes networks and attaches containers to them. It allocates nothing:
// addresses, names and subnets come from the engine.
//
//	CreateNetwork(web)          a bridge, its address, its nftables rules
//	Attach(web, c1, run 1)      → a network namespace with eth0 in it
//	  … the container runs …
//	Detach(web, c1, run 1)      the endpoint is gone, its address is free
//	RemoveNetwork(web)
//
// Every method may be repeated. Names of kernel objects derive from engine,
// container and run, since the link of a closed namespace keeps its name for
// tens of milliseconds.
type Driver interface {
	// Info introduces the driver.
	Info(ctx context.Context) (driver.Info, error)

	// CreateNetwork makes a network, or makes what it lacks (after a
	// reboot, or when somebody has deleted its bridge).
	//
	// AlreadyExists: the subnet is in use on this machine by something that
	// is not this network. InvalidArgument: an option the driver does not
	// know, by name.
	CreateNetwork(ctx context.Context, n Network) error

	// RemoveNetwork gives a network back.
	RemoveNetwork(ctx context.Context, id string) error

	// Attach connects one run of a container to a network. The namespace
	// stays until Detach, whether a process is in it or not, and outlives
	// the driver. Repeated, it answers with the same endpoint.
	//
	// NotFound: the network is not there. Unimplemented: the driver cannot
	// serve the user namespace (AbilityUserNS).
	Attach(ctx context.Context, r Attach) (Endpoint, error)

	// Detach gives the endpoint back. It returns when name and address may
	// be used again, which may be before the kernel has freed everything.
	Detach(ctx context.Context, k EndpointKey) error

	// List tells every network and endpoint held for this engine.
	List(ctx context.Context) ([]driver.Item, error)
}

// Network is a network to be made.
type Network struct {
	ID       string            // 64 hexadecimal digits
	Name     string            // what people call it
	Subnet   netip.Prefix      // zero for networks without addresses
	Gateway  netip.Addr        // the machine's own address in Subnet
	Options  map[string]string // driver options by Docker's names (com.docker.network.driver.mtu)
	Internal bool              // no way out
}

// EndpointKey names one run's attachment to one network.
type EndpointKey struct {
	Network   string
	Container string
	Run       uint64
}

// Attach asks for an endpoint.
type Attach struct {
	EndpointKey
	Hostname string       // for the hosts file
	Names    []string     // further names of the container, for the hosts file
	Address  netip.Prefix // address with the subnet's length; zero where the network has none
	Gateway  netip.Addr   // default route; zero for none
	MAC      string       // hardware address; empty for the driver's choice
	DNS      []string     // name servers; empty: those of the machine that can be reached from there
	Join     Namespace    // an earlier endpoint's namespace of the same run; zero for a new one
	UserNS   Namespace    // user namespace that must own the network namespace; zero for the host's
}

// Namespace modes.
const (
	NamespaceHost = "host" // stay in the host's namespace
	NamespaceNew  = "new"  // the exec driver makes one; nothing but loopback in it
	NamespacePath = "path" // join the one at Path
)

// Namespace says which kernel namespace a container is put in.
type Namespace struct {
	Mode  string // one of the modes above; empty means NamespaceNew for exec, none for Join and UserNS
	Path  string // of mode path: where to open it, e.g. "/proc/123/fd/7"
	Inode uint64 // of mode path: its inode in nsfs; whoever opens Path compares
}

// Endpoint is a made attachment.
type Endpoint struct {
	Namespace Namespace
	Interface string         // name inside the container, e.g. "eth0"; empty for none
	Files     []driver.Mount // binds of resolv.conf and hosts, made by the driver
}
