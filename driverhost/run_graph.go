package driverhost

import (
	"context"
	"os"
	"slices"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// mountPoints are what the exec driver mounts on in every container, and what
// images may lack.
func mountPoints() []driver.Target {
	return []driver.Target{
		{Path: "/dev"}, {Path: "/proc"}, {Path: "/sys"},
		{Path: "/etc/hostname", File: true}, {Path: "/etc/hosts", File: true}, {Path: "/etc/resolv.conf", File: true},
	}
}

// targetsOf are the mount points of the container's own mounts, but for those that
// are there already.
func targetsOf(asked []core.Target) []driver.Target {
	var out []driver.Target
	for _, t := range asked {
		if !slices.ContainsFunc(mountPoints(), func(m driver.Target) bool { return m.Path == t.Path }) {
			out = append(out, driver.Target{Path: t.Path, File: t.File || isFile(t.Source)})
		}
	}
	return out
}

// isFile reports whether a bind's source is something else than a directory: its
// mount point must be, too. One that is not there is refused when it is mounted.
func isFile(source string) bool {
	if source == "" {
		return false
	}
	info, err := os.Stat(source)
	return err == nil && !info.IsDir()
}

func runGraph(ctx context.Context, d graphdriver.Driver, st core.Step, p driver.Progress) (core.Result, error) {
	switch st := st.(type) {
	case *core.ApplyLayer:
		l, err := d.ApplyLayer(ctx, graphdriver.ApplyLayer{
			ID: string(st.Layer), Parent: string(st.Parent), Archive: st.Archive,
			Digest: st.Digest, DiffID: st.DiffID, MediaType: st.MediaType,
		}, p)
		return core.Result{Size: l.Size}, err
	case *core.RemoveLayer:
		return core.Result{}, d.RemoveLayer(ctx, string(st.Layer))
	case *core.PrepareRootfs:
		mounts, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{
			Container: string(st.Container), Layer: string(st.Layer), IDMap: idMapOf(st.IDMap),
			Targets: append(mountPoints(), targetsOf(st.Targets)...),
		})
		return core.Result{Mounts: fromMounts(mounts)}, err
	case *core.ReleaseRootfs:
		return core.Result{}, d.ReleaseRootfs(ctx, string(st.Container))
	case *core.GiveBack:
		if st.Item.Kind == "layer" {
			return core.Result{}, d.RemoveLayer(ctx, st.Item.Key)
		}
	}
	return core.Result{}, noRunner(st)
}

func fromMounts(mounts []driver.Mount) []core.Mount {
	var out []core.Mount
	for _, m := range mounts {
		out = append(out, core.Mount(m))
	}
	return out
}

func toMounts(mounts []core.Mount) []driver.Mount {
	var out []driver.Mount
	for _, m := range mounts {
		out = append(out, driver.Mount(m))
	}
	return out
}
