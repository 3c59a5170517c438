package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// measureRuntime compares gantry-oci with the runtimes that it stands in for: whole
// runs of a small and of Docker's specification, and execs.
func measureRuntime(ctx context.Context, r *rig) (figures []figure, err error) {
	if err := install(ctx, "runc", "runc", "a runtime that gantry-oci is compared with"); err != nil {
		return nil, err
	}
	j, err := newJail()
	if err != nil {
		return nil, err
	}
	defer j.close()
	files := filepath.Join(r.run, "files")
	if err := dockerFiles(files); err != nil {
		return nil, err
	}
	docker, err := dockerSpec(r.image.rootfs, files, "true")
	if err != nil {
		return nil, err
	}
	for _, kind := range []struct {
		name           string
		spec           *specs.Spec
		byCrun, byRunc float64
		filters        bool
	}{
		{name: "small", spec: smallSpec(r.image.rootfs, "true"), byCrun: 0.8, byRunc: 0.35},
		{name: "docker", spec: docker, byCrun: 0.4, byRunc: 0.3, filters: true},
	} {
		f, err := r.compareRuns(ctx, j, kind.name, kind.spec, kind.byCrun, kind.byRunc, kind.filters)
		if err != nil {
			return figures, fmt.Errorf("%s specification: %w", kind.name, err)
		}
		figures = append(figures, f...)
	}
	execs, err := r.compareExecs(ctx, j)
	return append(figures, execs...), err
}

// bundles makes a bundle for each runtime: cgroups of their own, all else alike.
func (r *rig) bundles(kind string, spec *specs.Spec, runtimes ...*ociRuntime) (func(*ociRuntime) string, error) {
	dirs := map[*ociRuntime]string{}
	for _, o := range runtimes {
		s, linux := *spec, *spec.Linux
		linux.CgroupsPath = "/" + r.name + "/" + o.name + "-" + kind
		s.Linux = &linux
		dir, err := makeBundle(filepath.Join(r.scratch, "bundle-"+kind+"-"+o.name), &s)
		if err != nil {
			return nil, err
		}
		dirs[o] = dir
	}
	return func(o *ociRuntime) string { return dirs[o] }, nil
}

func (r *rig) compareRuns(ctx context.Context, j *jail, kind string, spec *specs.Spec, byCrun, byRunc float64, filters bool) ([]figure, error) {
	ours, crun, runc := r.runtime(j, "gantry-oci"), r.runtime(j, "crun"), r.runtime(j, "runc")
	bundle, err := r.bundles(kind, spec, ours, crun, runc)
	if err != nil {
		return nil, err
	}
	row1 := &row{name: "gantry-oci", once: func() (time.Duration, error) { return ours.run(bundle(ours)) }}
	row2 := &row{name: "crun", once: func() (time.Duration, error) { return crun.run(bundle(crun)) }}
	row3 := &row{name: "runc", once: func() (time.Duration, error) { return runc.run(bundle(runc)) }}
	rows := []*row{row1, row2, row3}
	if filters {
		cold := r.runtime(j, "gantry-oci")
		cold.root, cold.name = cold.root+"-cold", "cold"
		dir := bundle(ours)
		rows = append(rows, &row{name: "gantry-oci, nothing kept", once: func() (time.Duration, error) { return cold.runCold(dir) }})
	}
	if err := r.inTurns(ctx, r.pairs, rows...); err != nil {
		return nil, err
	}
	tight, err := tightLoop(ctx, rows...)
	if err != nil {
		return nil, err
	}
	o, c, u := statsOf(row1.samples), statsOf(row2.samples), statsOf(row3.samples)
	detail := []string{}
	for _, w := range rows {
		detail = append(detail, "- "+w.name+": "+statsOf(w.samples).String())
	}
	detail = append(detail, fmt.Sprintf("- by minimum: %.2f × crun's, %.2f × runc's", ratio(o.min, c.min), ratio(o.min, u.min)), tight)
	return []figure{
		{
			name: "`gantry-oci run`, " + kind + " specification, by crun", goal: fmt.Sprintf("median ≤ %.2g ×", byCrun),
			met: ratio(o.median, c.median) <= byCrun, got: fmt.Sprintf("%.2f × (%s by %s)", ratio(o.median, c.median), ms(o.median), ms(c.median)), detail: detail,
		},
		{
			name: "`gantry-oci run`, " + kind + " specification, by runc", goal: fmt.Sprintf("median ≤ %.2g ×", byRunc),
			met: ratio(o.median, u.median) <= byRunc, got: fmt.Sprintf("%.2f × (%s by %s)", ratio(o.median, u.median), ms(o.median), ms(u.median)),
		},
	}, nil
}

// tightLoop runs each row many times without a pause, and says the medians.
func tightLoop(ctx context.Context, rows ...*row) (string, error) {
	const loops = 30
	line := "- in a tight loop, medians:"
	for _, w := range rows {
		t := &row{}
		for range loops {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			took, err := w.once()
			if err != nil {
				return "", fmt.Errorf("%s: %w", w.name, err)
			}
			t.samples = append(t.samples, sample{took, true})
		}
		s := statsOf(t.samples)
		line += fmt.Sprintf(" %s %s (min %s);", w.name, ms(s.median), ms(s.min))
	}
	return line[:len(line)-1], nil
}

// compareExecs compares execs of true in a running container.
func (r *rig) compareExecs(ctx context.Context, j *jail) (figures []figure, err error) {
	ours, crun := r.runtime(j, "gantry-oci"), r.runtime(j, "crun")
	bundle, err := r.bundles("held", smallSpec(r.image.rootfs, "sleep", "100000"), ours, crun)
	if err != nil {
		return nil, err
	}
	end, err := holdAll(bundle, ours, crun)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	d, err := r.served(ctx)
	if err != nil {
		return nil, err
	}
	if out, err := r.gantry(d, "run", "-d", "--name", "held", "--network", "none", imageName, "sleep", "100000").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run a container: %w\n%s", err, out)
	}
	defer func() { err = errors.Join(err, r.removeAll(d, []string{"held"})) }()
	rows := []*row{
		{name: "gantry-oci exec", once: func() (time.Duration, error) { return ours.exec(ours.name + "-held") }},
		{name: "crun exec", once: func() (time.Duration, error) { return crun.exec(crun.name + "-held") }},
		{name: "gantry exec", once: func() (time.Duration, error) { return timed(r.gantry(d, "exec", "held", "true")) }},
	}
	dock, err := r.docker(ctx)
	if err != nil {
		return nil, err
	}
	if dock != nil {
		defer func() { err = errors.Join(err, dock.stop()) }()
		rows = append(rows, &row{name: "docker exec", once: func() (time.Duration, error) { return timed(dock.command("exec", "held", "true")) }})
	}
	if err := r.inTurns(ctx, r.pairs, rows...); err != nil {
		return nil, err
	}
	tight, err := tightLoop(ctx, rows...)
	if err != nil {
		return nil, err
	}
	return execFigures(rows, tight), nil
}

func execFigures(rows []*row, tight string) []figure {
	all := make([]stats, len(rows))
	var detail []string
	for i, w := range rows {
		all[i] = statsOf(w.samples)
		detail = append(detail, "- "+w.name+": "+all[i].String())
	}
	compare := func(name string, goal float64, a, b stats) figure {
		return figure{
			name: name, goal: fmt.Sprintf("median ≤ %.2g ×", goal), met: ratio(a.median, b.median) <= goal,
			got: fmt.Sprintf("%.2f × (%s by %s)", ratio(a.median, b.median), ms(a.median), ms(b.median)),
		}
	}
	figures := []figure{
		compare("`gantry-oci exec` of true, small specification, by `crun exec`", 0.8, all[0], all[1]),
		compare("`gantry exec` of true by `crun exec`", 1.3, all[2], all[1]),
	}
	if len(rows) > 3 {
		figures = append(figures, compare("`gantry exec` of true by `docker exec`", 0.12, all[2], all[3]))
	}
	figures[0].detail = append(detail, tight)
	return figures
}
