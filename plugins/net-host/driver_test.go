package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

func TestLifeCycle(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hosts"), "127.0.0.1 localhost\n10.0.0.1 there\n")
	write(t, filepath.Join(dir, "resolv.conf"), "nameserver 127.0.0.53\n")
	s, err := netfiles.Open(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{store: s, hosts: filepath.Join(dir, "hosts"), resolv: filepath.Join(dir, "resolv.conf")}
	k := netdriver.EndpointKey{Network: "n0", Container: "c0", Run: 1}
	if _, err := d.Attach(ctx, netdriver.Attach{EndpointKey: k}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("attach without a network: %v", err)
	}
	if err := d.CreateNetwork(ctx, netdriver.Network{ID: "n0", Name: "host"}); err != nil {
		t.Fatal(err)
	}
	e, err := d.Attach(ctx, netdriver.Attach{EndpointKey: k})
	if err != nil || e.Namespace.Mode != netdriver.NamespaceHost || len(e.Files) != 2 {
		t.Fatalf("attach: %+v, %v", e, err)
	}
	same(t, e.Files[0].Source, "nameserver 127.0.0.53\n")
	same(t, e.Files[1].Source, "127.0.0.1 localhost\n10.0.0.1 there\n")

	write(t, e.Files[1].Source, "changed inside\n")
	if again, err := d.Attach(ctx, netdriver.Attach{EndpointKey: k}); err != nil || again.Files[1].Source != e.Files[1].Source {
		t.Fatalf("attach again: %+v, %v", again, err)
	}
	same(t, e.Files[1].Source, "changed inside\n")
	same(t, filepath.Join(dir, "hosts"), "127.0.0.1 localhost\n10.0.0.1 there\n")

	for range 2 {
		if err := d.Detach(ctx, k); err != nil {
			t.Fatal(err)
		}
		if err := d.RemoveNetwork(ctx, "n0"); err != nil {
			t.Fatal(err)
		}
	}
	if items, err := d.List(ctx); err != nil || len(items) != 0 {
		t.Fatalf("left: %+v, %v", items, err)
	}
}

func TestRefused(t *testing.T) {
	d, err := New(driver.Config{Run: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []netdriver.Network{
		{ID: "n", Internal: true},
		{ID: "n", Options: map[string]string{"mtu": "9000"}},
	} {
		if err := d.CreateNetwork(context.Background(), n); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", n, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}
