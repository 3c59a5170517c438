package graphtest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

func diffChecks() []check {
	return []check{
		{Name: "diff", Promise: "Diff (ability \"diff\") tells exactly what the container has changed, as a layer that makes the same of the image.", Run: checkDiff},
		{Name: "diff-of-nothing", Promise: "Diff of a root filesystem that is not held is NotFound; of an unchanged one it is empty.", Run: checkDiffNothing},
	}
}

// differ is the driver as a Differ, if it says that it is one.
func differ(ctx context.Context, b *bench) (graphdriver.Differ, bool) {
	d, ok := graphdriver.AsDiffer(ctx, b.Driver())
	if !ok {
		b.Logf("the driver does not have the ability %q: nothing to check", graphdriver.AbilityDiff)
	}
	return d, ok
}

func checkDiff(ctx context.Context, b *bench) {
	d, ok := differ(ctx, b)
	if !ok {
		return
	}
	r, c := base(b), conform.ID()
	apply(ctx, b, r)
	mounts := prepare(ctx, b, graphdriver.PrepareRootfs{
		Container: c, Layer: r.ID, Targets: []driver.Target{{Path: "/proc"}, {Path: "/etc/hosts", File: true}},
	})
	Inside(b, mounts, func(root string) {
		write(b, filepath.Join(root, "etc/name"), "changed")
		write(b, filepath.Join(root, "added"), strings.Repeat("long", 200_000))
		for _, err := range []error{
			os.Remove(filepath.Join(root, "etc/removed")),
			os.RemoveAll(filepath.Join(root, "turned")),
			os.RemoveAll(filepath.Join(root, "data")),
			os.Mkdir(filepath.Join(root, "data"), 0o755),
			os.Symlink("name", filepath.Join(root, "etc/second")),
			os.Chown(filepath.Join(root, "home/mine"), 7, 8),
		} {
			if err != nil {
				b.Errorf("change the root filesystem: %v", err)
			}
		}
	})
	var diff bytes.Buffer
	if err := d.Diff(ctx, c, &diff); err != nil {
		b.Fatalf("Diff: %v", err)
	}
	names := tarNames(b, diff.Bytes())
	for _, want := range []string{"etc/name", "added", "etc/.wh.removed", ".wh.turned", "etc/second", "home/mine"} {
		if !names[want] {
			b.Errorf("Diff lacks %s", want)
		}
	}
	for _, not := range []string{"proc", "etc/hosts", "bin/tool", "etc/link", "home/.wh.mine"} {
		if names[not] {
			b.Errorf("Diff tells %s, which the container has not changed", not)
		}
	}
	// The diff, applied on the image, makes what the container saw.
	committed := archiveOf(b, r.ID, diff.Bytes())
	apply(ctx, b, committed)
	wantLayer(ctx, b, committed.ID, append(commonTreeWithout("home/mine", "data"),
		`data drwxr-xr-x 0:0`, `home/mine -rw------- 7:8 "mine"`, `etc/name -rw-r--r-- 0:0 "changed"`,
		`etc/second Lrwxrwxrwx 0:0 -> name`,
		`added -rw-r--r-- 0:0 `+digestOf([]byte(strings.Repeat("long", 200_000)))))
}

// commonTreeWithout is commonTree without some files.
func commonTreeWithout(names ...string) []string {
	var lines []string
next:
	for _, line := range commonTree() {
		for _, name := range names {
			if strings.HasPrefix(line, name+" ") {
				continue next
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func checkDiffNothing(ctx context.Context, b *bench) {
	d, ok := differ(ctx, b)
	if !ok {
		return
	}
	conform.WantClass(b, "Diff of what is not held", d.Diff(ctx, conform.ID(), io.Discard), "not-found")
	r, c := base(b), conform.ID()
	apply(ctx, b, r)
	prepare(ctx, b, graphdriver.PrepareRootfs{Container: c, Layer: r.ID, Targets: []driver.Target{{Path: "/new/dir"}}})
	var diff bytes.Buffer
	if err := d.Diff(ctx, c, &diff); err != nil {
		b.Fatalf("Diff: %v", err)
	}
	if names := tarNames(b, diff.Bytes()); len(names) > 0 {
		b.Errorf("Diff of an unchanged root filesystem tells %v", names)
	}
}

// tarNames lists the names in a tar, without slashes at either end.
func tarNames(t conform.T, raw []byte) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatalf("Diff is no tar: %v", err)
		}
		if name := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/"); name != "" && name != "." {
			names[name] = true
		}
	}
}
