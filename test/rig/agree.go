package rig

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// aMoment is what the kernel gets for what it takes away behind its caller's back,
// and an engine for a record that it is writing: much, for a slow machine.
const aMoment = 20 * time.Second

// Agrees waits until the engine owes nothing, verifies its log, and holds the
// machine against the list of containers: what they hold is there, and nothing
// else of the kind. What the kernel takes away behind its caller's back gets a
// moment.
func (c *Client) Agrees(ctx context.Context, e *Engine) error {
	if err := c.Settle(ctx); err != nil {
		return err
	}
	if err := e.VerifyLive(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(aMoment); ; {
		err := c.compare(ctx, e)
		if err == nil || time.Now().After(end) {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// VerifyLive verifies the log while an engine may write: its end may be seen half
// written; damage is never seen.
func (e *Engine) VerifyLive(ctx context.Context) error {
	for end := time.Now().Add(aMoment); ; {
		sum, err := e.VerifyLog(ctx)
		if err == nil {
			return nil
		}
		if sum.Damages > 0 || !sum.Torn || time.Now().After(end) {
			return fmt.Errorf("gantry log verify: %+v: %w", sum, err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// AtRest takes stock of an engine without containers, once what the last ones had is
// gone: a port is deleted, and a shim ends, a while after it was given back.
func (e *Engine) AtRest(ctx context.Context) (Inventory, error) {
	for {
		v, err := e.Inventory()
		if err != nil || !slices.ContainsFunc(v, passes) {
			return v, err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return v, fmt.Errorf("something of a container is left: %w\n%s", err, strings.Join(v, "\n"))
		}
	}
}

// passes reports whether a line of an inventory is of something that comes and goes
// with a container. What the first one has brought about may stay.
func passes(line string) bool {
	kind, _, _ := strings.Cut(line, " ")
	return slices.Contains([]string{"process", "key", "spool"}, kind) || len(perContainer(Inventory{line})) > 0
}

// Becomes waits until the machine has what is wanted, no more and no less. What the
// kernel takes away behind its caller's back gets a moment.
func (e *Engine) Becomes(ctx context.Context, want Inventory) error {
	for end := time.Now().Add(aMoment); ; {
		have, err := e.Inventory()
		if err != nil {
			return err
		}
		diff := Diff(want, have)
		if diff == "" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the machine differs from what is wanted:\n%s", diff)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (c *Client) compare(ctx context.Context, e *Engine) error {
	list, err := c.Containers(ctx)
	if err != nil {
		return err
	}
	have, err := e.Inventory()
	if err != nil {
		return err
	}
	want := map[string]int{}
	for i := range list {
		for what, n := range held(&list[i]) {
			want[what] += n
		}
	}
	for what, n := range perContainer(have) {
		want[what] -= n
	}
	wrong := strayKeys(list, have)
	for what, n := range want {
		if n != 0 {
			wrong = append(wrong, fmt.Sprintf("%s: the list of containers says %+d", what, n))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the machine differs from the log:\n%s\n%s", strings.Join(wrong, "\n"), strings.Join(have, "\n"))
	}
	return nil
}

// strayKeys are keys of containers that are gone: what they sealed could be read.
func strayKeys(list []query.Container, have Inventory) []string {
	var stray []string
	for _, line := range have {
		name, isKey := strings.CutPrefix(line, "key ")
		if isKey && !slices.ContainsFunc(list, func(c query.Container) bool { return strings.HasPrefix(name, string(c.ID)) }) {
			stray = append(stray, "a key is left: "+name)
		}
	}
	return stray
}

// held is what a container has on the machine, by its list entry.
func held(c *query.Container) map[string]int {
	m := map[string]int{}
	for _, slot := range c.Holds {
		switch slot {
		case "rootfs":
			m["rootfs "+string(c.ID)]++
		case "log":
			m["log "+string(c.ID)]++
		case "process":
			m["shim"]++
			m[fmt.Sprintf("cgroup %s-%d", c.ID, c.Run)]++
			m[fmt.Sprintf("run %.16s-%d", c.ID, c.Run)]++
		default:
			if bridged(c, strings.TrimPrefix(slot, "net-")) {
				m["port"]++
			}
		}
	}
	return m
}

// bridged reports whether the container has an address in the network.
func bridged(c *query.Container, network string) bool {
	for _, a := range c.Networks {
		if a.NetworkName == network {
			return a.Address != core.Address{}
		}
	}
	return false
}

// perContainer counts in an inventory what containers have.
func perContainer(v Inventory) map[string]int {
	m := map[string]int{}
	for _, line := range v {
		kind, rest, _ := strings.Cut(line, " ")
		parts := strings.Split(rest, "/")
		last := parts[len(parts)-1]
		switch {
		case kind == "mount":
			m[line]++
		case line == "process gantry-shim":
			m["shim"]++
		case kind == "cgroup" && len(parts) > 1 && parts[len(parts)-2] == "containers":
			m["cgroup "+last] = 1 // in one hierarchy or in all
		case kind == "link" && strings.HasPrefix(rest, "gv"):
			m["port"]++
		case kind == "run" && len(parts) == 2 && parts[0] == "exec-native":
			m["run "+last]++
		case kind == "data" && len(parts) == 3 && parts[1] == "rootfs":
			m["rootfs "+last]++
		case kind == "data" && len(parts) == 2 && parts[0] == "exec-native":
			m["log "+last]++
		}
	}
	return m
}
