package cgroup

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
)

// Hierarchy is one mounted tree of groups.
type Hierarchy = linux.Hierarchy

// Tree is all hierarchies of the machine.
type Tree struct {
	Hierarchies []Hierarchy
}

// ReadTree finds the hierarchies of this process's mount namespace.
func ReadTree() (Tree, error) {
	all, err := linux.Hierarchies()
	if err != nil {
		return Tree{}, err
	}
	if len(all) == 0 {
		return Tree{}, errclass.Errorf(errdefs.ErrNotImplemented, "no cgroup hierarchy is mounted")
	}
	return Tree{all}, nil
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
