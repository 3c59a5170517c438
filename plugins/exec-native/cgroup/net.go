package cgroup

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// network plans the controllers net_cls and net_prio, of version 1 alone.
func (l *limits) network(n *specs.LinuxNetwork) {
	if n.ClassID != nil && l.on("network.classID", "net_cls", "") == 1 {
		id := unsigned(uint64(*n.ClassID))
		l.add(Write{Field: "network.classID", Controller: "net_cls", File: "net_cls.classid", Value: id, Back: id})
	}
	for _, p := range n.Priorities {
		if l.on("network.priorities", "net_prio", "") != 1 {
			return
		}
		if p.Name == "" || strings.ContainsAny(p.Name, " \t\n") {
			l.invalid("network.priorities", "%q is no interface's name", p.Name)
		}
		priority := unsigned(uint64(p.Priority))
		l.add(Write{Field: "network.priorities", Controller: "net_prio", File: "net_prio.ifpriomap", Value: p.Name + " " + priority,
			Key: p.Name, Back: priority, Rule: sameLine, Reset: p.Name + " 0"})
	}
}
