package nettest

import (
	"context"
	"slices"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func networkChecks() []check {
	return []check{
		{Name: "info", Promise: "Info names the driver.", Run: checkInfo},
		{Name: "create-network", Promise: "CreateNetwork may be repeated; List tells the network once, also after a restart.", Run: checkCreate},
		{Name: "unknown-option", Promise: "An option the driver does not know is InvalidArgument, by name, and leaves nothing.", Run: checkUnknownOption},
		{Name: "subnet-in-use", Promise: "A subnet that something else on this machine uses is AlreadyExists.", Run: checkSubnetInUse},
		{Name: "remove-network", Promise: "RemoveNetwork may be repeated, and succeeds for what is not held.", Run: checkRemoveNetwork},
	}
}

// heldNetwork is the line of a network in the inventory.
func heldNetwork(id string) driver.Item {
	return driver.Item{Kind: "network", Key: id, State: "held"}
}

// heldEndpoint is the line of an endpoint in the inventory.
func heldEndpoint(r netdriver.Attach, e netdriver.Endpoint) driver.Item {
	return driver.Item{
		Kind: "endpoint", Key: r.Container, Run: r.Run, Network: r.Network, State: "held",
		Namespace: e.Namespace.Path, Inode: e.Namespace.Inode,
	}
}

// wantItems compares what List tells with what it should; order is free.
func wantItems(ctx context.Context, b *bench, want ...driver.Item) {
	b.Helper()
	got, err := b.Driver().List(ctx)
	if err != nil {
		b.Fatalf("List: %v", err)
	}
	for _, i := range want {
		if !slices.Contains(got, i) {
			b.Errorf("List lacks %+v\n\tit tells %+v", i, got)
		}
	}
	if len(got) > len(want) {
		b.Errorf("List has %d items, want %d: %+v", len(got), len(want), got)
	}
}

func checkInfo(ctx context.Context, b *bench) {
	info, err := b.Driver().Info(ctx)
	if err != nil {
		b.Fatalf("Info: %v", err)
	}
	if info.Name == "" || info.Version == "" {
		b.Errorf("Info has no name or no version: %+v", info)
	}
}

func checkCreate(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	wantItems(ctx, b, heldNetwork(n.ID))
	for _, when := range []string{"repeated", "after a restart"} {
		if err := b.Driver().CreateNetwork(ctx, n); err != nil {
			b.Errorf("CreateNetwork %s: %v", when, err)
		}
		wantItems(ctx, b, heldNetwork(n.ID))
		b.Reopen()
		wantItems(ctx, b, heldNetwork(n.ID))
	}
}

func checkUnknownOption(ctx context.Context, b *bench) {
	n := netdriver.Network{ID: conform.ID(), Name: "odd", Options: map[string]string{"example.no-such-option": "1"}}
	err := b.Driver().CreateNetwork(ctx, n)
	conform.WantClass(b, "CreateNetwork with an unknown option", err, "invalid-argument")
	if err != nil && !strings.Contains(err.Error(), "example.no-such-option") {
		b.Errorf("the error does not name the option: %v", err)
	}
	if err := b.Driver().RemoveNetwork(ctx, n.ID); err != nil {
		b.Errorf("RemoveNetwork after a refused CreateNetwork: %v", err)
	}
	wantItems(ctx, b)
}

func checkSubnetInUse(ctx context.Context, b *bench) {
	first := makeNetwork(ctx, b)
	if !first.Subnet.IsValid() {
		return
	}
	second := netdriver.Network{ID: conform.ID(), Name: "second", Subnet: first.Subnet, Gateway: first.Gateway}
	err := b.Driver().CreateNetwork(ctx, second)
	conform.WantClass(b, "CreateNetwork with another network's subnet", err, "already-exists")
	if err := b.Driver().RemoveNetwork(ctx, second.ID); err != nil {
		b.Errorf("RemoveNetwork after a refused CreateNetwork: %v", err)
	}
	wantItems(ctx, b, heldNetwork(first.ID))
	r := ask(first, 2)
	wantEndpoint(b, first, r, attach(ctx, b, r)) // the first one is unharmed
}

func checkRemoveNetwork(ctx context.Context, b *bench) {
	if err := b.Driver().RemoveNetwork(ctx, conform.ID()); err != nil {
		b.Errorf("RemoveNetwork of a network that is not held: %v", err)
	}
	n := makeNetwork(ctx, b)
	for range 2 {
		if err := b.Driver().RemoveNetwork(ctx, n.ID); err != nil {
			b.Errorf("RemoveNetwork: %v", err)
		}
		wantItems(ctx, b)
		b.Reopen()
	}
	if err := b.Driver().CreateNetwork(ctx, n); err != nil {
		b.Errorf("CreateNetwork after RemoveNetwork, with the same subnet: %v", err)
	}
}
