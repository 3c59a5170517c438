package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Coverage counts what occurred, by kind and name.
type Coverage struct {
	mu   sync.Mutex // guards seen
	seen map[string]map[string]int
}

// NewCoverage has seen nothing.
func NewCoverage() *Coverage { return &Coverage{seen: make(map[string]map[string]int)} }

func (c *Coverage) see(kind, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(kind, name, 1)
}

func (c *Coverage) count(kind, name string, n int) {
	if c.seen[kind] == nil {
		c.seen[kind] = make(map[string]int)
	}
	c.seen[kind][name] += n
}

func (c *Coverage) add(other *Coverage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, names := range other.seen {
		for name, n := range names {
			c.count(kind, name, n)
		}
	}
}

// Lacking lists what did not occur although it should have.
func (c *Coverage) Lacking(wanted map[string][]string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lacking []string
	for _, kind := range sortedKeys(wanted) {
		for _, name := range wanted[kind] {
			if c.seen[kind][name] == 0 {
				lacking = append(lacking, kind+": "+name)
			}
		}
	}
	return lacking
}

// Table is what occurred, for people.
func (c *Coverage) Table() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, kind := range sortedKeys(c.seen) {
		fmt.Fprintf(&b, "%s\n", kind)
		for _, name := range sortedKeys(c.seen[kind]) {
			fmt.Fprintf(&b, "  %-40s %9d\n", name, c.seen[kind][name])
		}
	}
	return b.String()
}

// sortedKeys keeps the order of maps out of the story.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
