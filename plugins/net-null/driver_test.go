package null

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func TestLifeCycle(t *testing.T) {
	ctx := context.Background()
	cfg := driver.Config{Run: t.TempDir()}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := netdriver.EndpointKey{Network: "n0", Container: "c0", Run: 1}
	if _, err := d.Attach(ctx, netdriver.Attach{EndpointKey: k}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("attach without a network: %v", err)
	}
	if err := d.CreateNetwork(ctx, netdriver.Network{ID: "n0", Name: "none"}); err != nil {
		t.Fatal(err)
	}
	e, err := d.Attach(ctx, netdriver.Attach{EndpointKey: k, Hostname: "box"})
	if err != nil || e.Namespace.Mode != netdriver.NamespaceNew || e.Interface != "" {
		t.Fatalf("attach: %+v, %v", e, err)
	}
	for _, m := range e.Files {
		if _, err := os.Stat(m.Source); err != nil {
			t.Error(err)
		}
	}
	if d, err = New(cfg); err != nil { // as after a crash of the driver
		t.Fatal(err)
	}
	items, err := d.List(ctx)
	if err != nil || len(items) != 2 || items[1].Key != "c0" || items[1].Network != "n0" || items[1].Run != 1 {
		t.Fatalf("list: %+v, %v", items, err)
	}
	for range 2 {
		if err := d.Detach(ctx, k); err != nil {
			t.Fatal(err)
		}
		if err := d.RemoveNetwork(ctx, "n0"); err != nil {
			t.Fatal(err)
		}
	}
	if items, err = d.List(ctx); err != nil || len(items) != 0 {
		t.Fatalf("left: %+v, %v", items, err)
	}
}

func TestRefused(t *testing.T) {
	d, err := New(driver.Config{Run: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []netdriver.Network{
		{ID: "n", Subnet: netip.MustParsePrefix("10.0.0.0/24")},
		{ID: "n", Options: map[string]string{"mtu": "9000"}},
		{ID: "../n"},
	} {
		if err := d.CreateNetwork(context.Background(), n); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", n, err)
		}
	}
}

// heap is what is in use of the heap: the least of several looks, since others may be at work.
func heap() uint64 {
	least := uint64(math.MaxUint64)
	for range 5 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, m.HeapAlloc)
	}
	return least
}

// What is held for an endpoint lies in its files, not in the driver's memory.
func TestMemoryDoesNotGrowWithEndpoints(t *testing.T) {
	d, err := New(driver.Config{Run: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.CreateNetwork(t.Context(), netdriver.Network{ID: "aa11"}); err != nil {
		t.Fatal(err)
	}
	attach := func(from, to uint64) uint64 {
		for run := from; run < to; run++ {
			k := netdriver.EndpointKey{Network: "aa11", Container: "c1", Run: run}
			if _, err := d.Attach(t.Context(), netdriver.Attach{EndpointKey: k}); err != nil {
				t.Fatal(err)
			}
		}
		return heap()
	}
	before := attach(1, 10)
	if after := attach(10, 510); after > before+32<<10 {
		t.Errorf("500 endpoints take %d bytes of memory", after-before)
	}
}
