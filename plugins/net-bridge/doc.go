// Package bridge is the network driver that joins containers by a bridge: each
// network is a Linux bridge with the gateway's address, each endpoint a veth
// pair whose one end is eth0 in the container's namespace. Traffic to the
// outside is masqueraded; networks of one engine do not reach each other.
//
// # What stands where
//
//	link gb<12 hex>     a network's bridge; hash of engine name and network id.
//	                    Its alias is the mark: engine, network, and flags
//	link gv<12 hex>     the machine's end of an endpoint; hash of engine,
//	                    network, container and run
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
// # Order of an attach, and what a crash leaves
//
// The namespace is anonymous until everything in it is made and the files are
// written; then it is put into the holder under its key, and only then it is an endpoint. A driver
// killed before that drops the last reference, and the kernel takes namespace
// and veth away. So a key that is there means an endpoint that is whole.
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
