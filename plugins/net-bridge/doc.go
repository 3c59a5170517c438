// Package bridge is the network driver that joins containers by a bridge: each
// network is a Linux bridge with the gateway's address, each endpoint a veth
// pair whose one end is eth0 in the container's namespace. Traffic to the
// outside is masqueraded; networks of one engine do not reach each other.
//
// # What stands where
//
//	link gb<12 hex>     a network's bridge; hash of engine name and network id.
//	                    Its alias is the mark: engine, network, and flags
//	link gp<12 hex>     the machine's end of a pair, by a random number. Its
//	                    alias tells what it is: spare, endpoint, or detached
//	gv<12 hex>          a further name of that of an endpoint, which it is found
//	                    by; hash of engine, network, container and run
//	table inet gantry-<engine name>
//	                    all rules of the engine. It is written whole, in one
//	                    transaction, from the bridges that bear the mark
//	gantry-netns        one process of an engine that keeps the namespaces;
//	                    its keys are the endpoints held (see holder/holder.c)
//	<Run>/<container>-<run>/
//	                    hosts and resolv.conf
//
// Nothing else is remembered: List reads the marks and the holder's keys.
//
// # Made ahead
//
// What takes most of an attach is the same for all: a namespace with loopback up,
// IPv6 off and a pair of links that has one end in it. Some are kept in a pool
// (spare.go), filled while nothing is asked, once the first was needed; the last that
// was taken is replaced at once. They are
// descriptors of this process and nothing else, belong to no network and are in
// no list; with the process, however it ends, they are gone, and with the last
// network too. An attach from an empty pool makes such a spare first; what
// follows is the same code. A namespace of a user namespace's own, and one that
// is joined, is never made ahead.
//
// Attach and detach write few packets with several requests each (rtnl.go), and
// nothing they do depends on how many others there are.
//
// # Order of an attach, and what a crash leaves
//
// The files are written first. The namespace is anonymous until everything in it
// is made; then it is put into the holder under its key, and only then it is an
// endpoint. A driver killed before that drops the last reference, and the kernel
// takes namespace and veth away. So a key that is there means an endpoint that is
// whole.
//
// # Order of a detach
//
// First the port on the bridge is disabled and its learned addresses are
// forgotten: from then on nothing behind it can answer for its address, also
// if some process still has the namespace. Then the descriptor is dropped,
// which costs microseconds; deleting the link costs 30 ms, most of it waiting
// for readers in the kernel. A port given back bears a mark; one that is still
// there a while later is deleted in the background.
//
// Every decision is a plan first (plan.go, a list of operations as data) and
// one loop that runs it.
package bridge
