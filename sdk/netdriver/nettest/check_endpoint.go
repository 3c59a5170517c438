package nettest

import (
	"context"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func endpointChecks() []check {
	return []check{
		{Name: "attach", Promise: "Attach answers with a namespace that opens, has the inode told, and holds the interface with its address, up, and the default route.", Run: checkAttach},
		{Name: "attach-files", Promise: "The hosts and resolv.conf that Attach answers name the container and its name servers.", Run: checkFiles},
		{Name: "attach-repeated", Promise: "Attach, repeated, answers with the same endpoint.", Run: checkAttachRepeated},
		{Name: "attach-no-network", Promise: "Attach to a network that is not there is NotFound and leaves nothing.", Run: checkNoNetwork},
		{Name: "attach-mac", Promise: "A hardware address that was asked for is the interface's.", Run: checkMAC},
		{Name: "endpoints-apart", Promise: "Two containers of one network have namespaces of their own.", Run: checkApart},
		{Name: "outlives-the-driver", Promise: "The endpoint outlives the driver: after a restart List tells it, and its namespace is the same one.", Run: checkOutlives},
		{Name: "detach", Promise: "Detach may be repeated, and succeeds for what is not held.", Run: checkDetach},
		{Name: "next-run", Promise: "When Detach has returned, the next run gets the same address and name at once.", Run: checkNextRun},
	}
}

// wantEndpoint looks at an endpoint from outside.
func wantEndpoint(b *bench, n netdriver.Network, r netdriver.Attach, e netdriver.Endpoint) {
	b.Helper()
	switch e.Namespace.Mode {
	case netdriver.NamespacePath:
	case netdriver.NamespaceHost, netdriver.NamespaceNew:
		if n.Subnet.IsValid() || e.Interface != "" {
			b.Errorf("the network has a subnet or the endpoint an interface, but its namespace is %q", e.Namespace.Mode)
		}
		if e.Namespace.Path != "" || e.Namespace.Inode != 0 {
			b.Errorf("a namespace of mode %q has a path or an inode: %+v", e.Namespace.Mode, e.Namespace)
		}
		return
	default:
		b.Fatalf("namespace mode %q is not known", e.Namespace.Mode)
	}
	ns := openNamespace(b, e.Namespace)
	if own, err := os.Stat("/proc/thread-self/ns/net"); err == nil {
		if st, err := ns.Stat(); err == nil && os.SameFile(own, st) {
			b.Errorf("the namespace is the machine's own")
		}
	}
	if e.Interface == "" {
		return
	}
	v := look(b, ns, e.Interface)
	if !slices.Contains(v.names, e.Interface) {
		b.Fatalf("the namespace has no interface %q, only %v", e.Interface, v.names)
	}
	if !v.up {
		b.Errorf("the interface %s is down", e.Interface)
	}
	if r.Address.IsValid() && !slices.Contains(v.addresses, r.Address) {
		b.Errorf("the interface %s has the addresses %v, want %v", e.Interface, v.addresses, r.Address)
	}
	if r.Gateway.IsValid() && v.gateway != r.Gateway {
		b.Errorf("the default route goes to %v, want %v", v.gateway, r.Gateway)
	}
	if r.MAC != "" && v.mac != r.MAC {
		b.Errorf("the interface %s has the hardware address %s, want %s", e.Interface, v.mac, r.MAC)
	}
}

func checkAttach(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	e := attach(ctx, b, r)
	if n.Subnet.IsValid() && e.Interface == "" {
		b.Errorf("the network has the subnet %v, but the endpoint no interface", n.Subnet)
	}
	wantEndpoint(b, n, r, e)
	wantItems(ctx, b, heldNetwork(n.ID), heldEndpoint(r, e))
}

func checkFiles(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	e := attach(ctx, b, r)
	for _, m := range e.Files {
		content, err := os.ReadFile(m.Source)
		if err != nil || m.Type != "bind" {
			b.Errorf("file %+v: %v", m, err)
			continue
		}
		var want []string
		switch m.Target {
		case "/etc/resolv.conf":
			if e.Namespace.Mode != netdriver.NamespaceNew { // nothing can be reached from there
				want = r.DNS
			}
		case "/etc/hosts":
			if r.Address.IsValid() {
				want = []string{r.Address.Addr().String(), r.Hostname, r.Names[0]}
			}
		}
		for _, w := range want {
			if !strings.Contains(string(content), w) {
				b.Errorf("%s lacks %q:\n%s", m.Target, w, content)
			}
		}
	}
}

func checkAttachRepeated(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	first := attach(ctx, b, r)
	if again := attach(ctx, b, r); !reflect.DeepEqual(again, first) {
		b.Errorf("Attach answered\n\t%+v, repeated\n\t%+v", first, again)
	}
	wantItems(ctx, b, heldNetwork(n.ID), heldEndpoint(r, first))
	b.Reopen()
	again := attach(ctx, b, r)
	if again.Namespace.Inode != first.Namespace.Inode || again.Interface != first.Interface {
		b.Errorf("Attach answered\n\t%+v, after a restart\n\t%+v", first, again)
	}
	wantEndpoint(b, n, r, again)
	wantItems(ctx, b, heldNetwork(n.ID), heldEndpoint(r, again))
}

func checkNoNetwork(ctx context.Context, b *bench) {
	r := ask(netdriver.Network{ID: conform.ID()}, 2)
	_, err := b.Driver().Attach(ctx, r)
	conform.WantClass(b, "Attach to a network that is not there", err, "not-found")
	if err := b.Driver().Detach(ctx, r.EndpointKey); err != nil {
		b.Errorf("Detach after a refused Attach: %v", err)
	}
	wantItems(ctx, b)
}

func checkMAC(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	r.MAC = "02:42:c6:12:00:02"
	e := attach(ctx, b, r)
	if e.Interface == "" {
		b.Logf("this driver makes no interfaces: nothing to check")
		return
	}
	wantEndpoint(b, n, r, e)
}

func checkApart(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	one, two := ask(n, 2), ask(n, 3)
	first, second := attach(ctx, b, one), attach(ctx, b, two)
	wantEndpoint(b, n, one, first)
	wantEndpoint(b, n, two, second)
	if first.Namespace.Mode == netdriver.NamespacePath && first.Namespace.Inode == second.Namespace.Inode {
		b.Errorf("two containers share the namespace %d", first.Namespace.Inode)
	}
	if err := b.Driver().Detach(ctx, one.EndpointKey); err != nil {
		b.Errorf("Detach: %v", err)
	}
	wantEndpoint(b, n, two, second)
	wantItems(ctx, b, heldNetwork(n.ID), heldEndpoint(two, second))
}

func checkOutlives(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	first := attach(ctx, b, r)
	if b.CanKill() {
		b.Kill()
	} else {
		b.Reopen()
	}
	items, err := b.Driver().List(ctx)
	if err != nil {
		b.Fatalf("List after a restart: %v", err)
	}
	found := false
	for _, i := range items {
		if i.Kind != "endpoint" {
			continue
		}
		found = true
		want := heldEndpoint(r, first)
		want.Namespace = i.Namespace // it may be found at another path now
		if i != want {
			b.Errorf("List after a restart tells %+v, want %+v", i, want)
		}
		e := first
		e.Namespace.Path = i.Namespace
		wantEndpoint(b, n, r, e)
	}
	if !found {
		b.Errorf("after a restart List lacks the endpoint: %+v", items)
	}
}

func checkDetach(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	if err := b.Driver().Detach(ctx, r.EndpointKey); err != nil {
		b.Errorf("Detach of an endpoint that is not held: %v", err)
	}
	attach(ctx, b, r)
	for range 2 {
		if err := b.Driver().Detach(ctx, r.EndpointKey); err != nil {
			b.Errorf("Detach: %v", err)
		}
		wantItems(ctx, b, heldNetwork(n.ID))
		b.Reopen()
	}
	if err := b.Driver().RemoveNetwork(ctx, n.ID); err != nil {
		b.Errorf("RemoveNetwork: %v", err)
	}
	if err := b.Driver().Detach(ctx, r.EndpointKey); err != nil {
		b.Errorf("Detach from a network that is gone: %v", err)
	}
}

func checkNextRun(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	for r.Run = 1; r.Run <= 5; r.Run++ {
		e := attach(ctx, b, r)
		wantEndpoint(b, n, r, e)
		wantItems(ctx, b, heldNetwork(n.ID), heldEndpoint(r, e))
		if err := b.Driver().Detach(ctx, r.EndpointKey); err != nil {
			b.Errorf("Detach: %v", err)
		}
	}
}
