package cgroup

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestSpareRestricts: a group has the rules for devices that were asked for it,
// whatever rules its spare was made with.
func TestSpareRestricts(t *testing.T) {
	p := newParent(t, func(h Hierarchy) bool { return h.Has("devices") || h.Has("cpuset") })
	if p.version("devices") != 1 {
		t.Skip("no hierarchy of version 1 has devices")
	}
	one, three, five := int64(1), int64(3), int64(5)
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	null := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &one, Minor: &three, Access: "rw"}
	zero := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &one, Minor: &five, Access: "r"}
	usual := []specs.LinuxDeviceCgroup{deny, null}
	for name, c := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		spare bool // whether it can be used
		want  string
	}{
		"the same":        {usual, true, "c 1:3 rw"},
		"more":            {[]specs.LinuxDeviceCgroup{deny, null, zero}, true, "c 1:3 rw\nc 1:5 r"},
		"others":          {[]specs.LinuxDeviceCgroup{deny, zero}, true, "c 1:5 r"},
		"none":            {nil, false, "a *:* rwm"},
		"but one of them": {[]specs.LinuxDeviceCgroup{null}, false, "a *:* rwm"},
	} {
		s, err := p.MakeSpare(uint64(len(name)), usual)
		if err != nil || s == nil {
			t.Fatalf("%s: spare %v, %v", name, s, err)
		}
		group := strings.ReplaceAll(name, " ", "-")
		g, err := p.CreateWith(group, &specs.LinuxResources{Devices: c.rules}, Making{Spare: s})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := strings.TrimSpace(valueOf(t, g, "devices.list")); got != c.want || g.FromSpare() != c.spare {
			t.Errorf("%s: %q, of the spare: %t; want %q, %t", name, got, g.FromSpare(), c.want, c.spare)
		}
		g.Close()
		if err := g.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
