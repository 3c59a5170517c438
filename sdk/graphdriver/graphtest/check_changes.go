package graphtest

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

func changesChecks() []check {
	return []check{
		{Name: "changes", Promise: "Changes (ability \"changes\") lists exactly what the container has added, changed and deleted.", Run: checkChanges},
	}
}

func checkChanges(ctx context.Context, b *bench) {
	d, ok := graphdriver.AsChanger(ctx, b.Driver())
	if !ok {
		b.Logf("the driver does not have the ability %q: nothing to check", graphdriver.AbilityChanges)
		return
	}
	_, err := d.Changes(ctx, conform.ID())
	conform.WantClass(b, "Changes of what is not held", err, "not-found")
	r, c := base(b), conform.ID()
	apply(ctx, b, r)
	mounts := prepare(ctx, b, graphdriver.PrepareRootfs{
		Container: c, Layer: r.ID, Targets: []driver.Target{{Path: "/new/dir"}, {Path: "/etc/hosts", File: true}},
	})
	if got, err := d.Changes(ctx, c); err != nil || len(got) > 0 {
		b.Errorf("Changes of an unchanged root filesystem: %+v (%v)", got, err)
	}
	Inside(b, mounts, func(root string) {
		write(b, filepath.Join(root, "etc/name"), "changed")
		for _, err := range []error{
			os.MkdirAll(filepath.Join(root, "added/in"), 0o755),
			os.WriteFile(filepath.Join(root, "added/in/a"), nil, 0o644),
			os.WriteFile(filepath.Join(root, "added/in/b"), nil, 0o644),
			os.Remove(filepath.Join(root, "etc/removed")),
			os.RemoveAll(filepath.Join(root, "data")),
			os.Chmod(filepath.Join(root, "home/mine"), 0o700),
		} {
			if err != nil {
				b.Errorf("change the root filesystem: %v", err)
			}
		}
	})
	got, err := d.Changes(ctx, c)
	if err != nil {
		b.Fatalf("Changes: %v", err)
	}
	want := []graphdriver.Change{
		{Kind: "A", Path: "/added"}, {Kind: "A", Path: "/added/in"}, {Kind: "A", Path: "/added/in/a"}, {Kind: "A", Path: "/added/in/b"},
		{Kind: "D", Path: "/data"}, {Kind: "C", Path: "/etc"}, {Kind: "C", Path: "/etc/name"}, {Kind: "D", Path: "/etc/removed"},
		{Kind: "C", Path: "/home"}, {Kind: "C", Path: "/home/mine"},
	}
	if !slices.Equal(got, want) {
		b.Errorf("Changes tells\n\t%+v, want\n\t%+v", got, want)
	}
}
