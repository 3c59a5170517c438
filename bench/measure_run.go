package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// measureRun compares whole commands: gantry's with crun's.
func measureRun(ctx context.Context, r *rig) ([]figure, error) {
	d, err := r.served(ctx)
	if err != nil {
		return nil, err
	}
	j, err := newJail()
	if err != nil {
		return nil, err
	}
	defer j.close()
	crun, bundle, err := r.crunAsDocker(j)
	if err != nil {
		return nil, err
	}
	gantry := func(network string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			return timed(r.gantry(d, "run", "--rm", "--network", network, imageName, "true"))
		}
	}
	none, bridge := &row{name: "gantry none", once: gantry("none")}, &row{name: "gantry bridge", once: gantry("bridge")}
	other := &row{name: "crun", once: func() (time.Duration, error) { return crun.run(bundle) }}
	if err := r.inTurns(ctx, r.pairs, none, other, bridge); err != nil {
		return nil, err
	}
	n, o, b := statsOf(none.samples), statsOf(other.samples), statsOf(bridge.samples)
	where, err := r.whereTimeGoes(d)
	if err != nil {
		return nil, err
	}
	return []figure{
		{
			name: "`gantry run --rm --network none busybox true`, CLI and all, by `crun run` of the same rootfs",
			goal: "median ≤ 1 × crun's", met: n.median <= o.median,
			got: fmt.Sprintf("%.2f × (%s by %s)", ratio(n.median, o.median), ms(n.median), ms(o.median)),
			detail: append([]string{
				"- gantry: " + n.String(), "- crun: " + o.String(),
				fmt.Sprintf("- by minimum: %.2f ×", ratio(n.min, o.min)),
				"- crun runs with Docker's default specification (capabilities, mounts, devices, masked paths, the seccomp list of moby/profiles), without a network,",
				"  from a plain directory; gantry from an overlay over the image's layer. crun's thread has a mount namespace without the cgroup2 tree, which it refuses beside v1.",
			}, where...),
		},
		{
			name: "`gantry run --rm --network bridge`, more than `--network none`",
			goal: "≤ 5 ms", met: b.median-n.median <= 5*time.Millisecond, got: ms(b.median - n.median),
			detail: []string{"- bridge: " + b.String(), "- none: " + n.String()},
		},
	}, nil
}

// crunAsDocker is crun with a bundle of the specification that Docker would make
// for `docker run --network none busybox true`.
func (r *rig) crunAsDocker(j *jail) (*ociRuntime, string, error) {
	files := filepath.Join(r.run, "files")
	if err := dockerFiles(files); err != nil {
		return nil, "", err
	}
	spec, err := dockerSpec(r.image.rootfs, files, "true")
	if err != nil {
		return nil, "", err
	}
	o := r.runtime(j, "crun")
	bundle, err := r.bundles("run", spec, o)
	if err != nil {
		return nil, "", err
	}
	return o, bundle(o), nil
}

// whereTimeGoes reads the log: how long after the command each event of the last
// runs was decided, as medians.
func (r *rig) whereTimeGoes(d *daemon) ([]string, error) {
	lines := []string{"", "Where the time goes inside the engine, from the event log: time from the accepted command to each event, median:", "",
		"| event | none | bridge |", "|---|---|---|"}
	type key struct{ network, event string }
	after := map[key][]time.Duration{}
	out, err := r.gantry(d, "log", "--json").Output()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	begun, network := map[string]time.Time{}, map[string]string{}
	var order []string
	for line := range bytes.Lines(out) {
		var e struct {
			Event, Noun, ID string
			Time            time.Time
			Spec            struct{ Network struct{ Network string } }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, err
		}
		if e.Noun != "container" {
			continue
		}
		if e.Event == "container.created" {
			begun[e.ID], network[e.ID] = e.Time, e.Spec.Network.Network
			continue
		}
		if len(begun) > 2*warmups { // the first ones are not warm
			after[key{network[e.ID], e.Event}] = append(after[key{network[e.ID], e.Event}], e.Time.Sub(begun[e.ID]))
		}
		if !slices.Contains(order, e.Event) {
			order = append(order, e.Event)
		}
	}
	mid := func(k key) string {
		all := after[k]
		if len(all) == 0 {
			return ""
		}
		slices.Sort(all)
		return ms(middle(all))
	}
	for _, event := range order {
		lines = append(lines, fmt.Sprintf("| %s | %s | %s |", event, mid(key{"none", event}), mid(key{"bridge", event})))
	}
	return lines, nil
}
