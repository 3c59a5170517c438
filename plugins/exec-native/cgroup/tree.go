package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
)

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	Unified     bool     // version 2
	Controllers []string // version 1: of this hierarchy, or one "name=…"; version 2: those the root offers
	Mount       string   // where it is mounted
}

// has reports whether the hierarchy is version 1 with this controller.
func (h Hierarchy) has(controller string) bool {
	return !h.Unified && slices.Contains(h.Controllers, controller)
}

// Label names the hierarchy in messages.
func (h Hierarchy) Label() string {
	if h.Unified {
		return "unified"
	}
	return strings.Join(h.Controllers, ",")
}

// Tree is all hierarchies of the machine.
type Tree struct {
	Hierarchies []Hierarchy
}

// ReadTree finds the hierarchies of this process's mount namespace.
func ReadTree() (Tree, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Tree{}, fmt.Errorf("read mount table: %w", err)
	}
	t, err := parseTree(table)
	if err != nil {
		return Tree{}, err
	}
	for i, h := range t.Hierarchies {
		if h.Unified {
			// Absent in trees older than the file: no controllers then.
			text, _ := os.ReadFile(h.Mount + "/cgroup.controllers")
			t.Hierarchies[i].Controllers = strings.Fields(string(text))
		}
	}
	return t, nil
}

// Version says "v1", "v2" or "hybrid".
func (t Tree) Version() string {
	var one, two bool
	for _, h := range t.Hierarchies {
		one, two = one || !h.Unified, two || h.Unified
	}
	switch {
	case one && two:
		return "hybrid"
	case two:
		return "v2"
	}
	return "v1"
}

// Controllers lists the controllers of all hierarchies, sorted.
func (t Tree) Controllers() []string {
	var out []string
	for _, h := range t.Hierarchies {
		for _, c := range h.Controllers {
			if !strings.HasPrefix(c, "name=") {
				out = append(out, c)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// parseTree reads a mount table in the form of /proc/PID/mountinfo (proc(5)).
func parseTree(table []byte) (Tree, error) {
	var t Tree
	seen := map[string]int{} // device to index: a hierarchy may be mounted at several places
	for line := range bytes.Lines(table) {
		front, back, ok := strings.Cut(strings.TrimSpace(string(line)), " - ")
		fields, tail := strings.Fields(front), strings.Fields(back)
		if !ok || len(fields) < 6 || len(tail) < 3 {
			continue
		}
		device, root, mount := fields[2], fields[3], unescape(fields[4])
		h := Hierarchy{Mount: mount}
		switch tail[0] {
		case "cgroup":
			h.Controllers = v1Controllers(tail[2])
		case "cgroup2":
			h.Unified = true
		default:
			continue
		}
		if root != "/" { // a bind mount of a part
			continue
		}
		if _, ok := seen[device]; ok {
			continue
		}
		seen[device] = len(t.Hierarchies)
		t.Hierarchies = append(t.Hierarchies, h)
	}
	if len(t.Hierarchies) == 0 {
		return t, driver.Errorf(errdefs.ErrNotImplemented, "no cgroup hierarchy is mounted")
	}
	return t, nil
}

// v1Controllers picks the controllers out of a superblock's options.
func v1Controllers(options string) []string {
	var out []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			out = append(out, o)
		case o == "rw", o == "ro", o == "xattr", o == "clone_children", o == "cpuset_v2_mode",
			o == "noprefix", o == "favordynmods", strings.Contains(o, "="):
		default:
			out = append(out, o)
		}
	}
	return out
}

// unescape turns the octal escapes of mountinfo back (space is \040).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// isOctal reports whether s is octal digits only, and at most \377.
func isOctal(s string) bool {
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7'
}
