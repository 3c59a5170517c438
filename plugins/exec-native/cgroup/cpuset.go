package cgroup

import "github.com/opencontainers/runtime-spec/specs-go"

// cpuset plans the processors and memory nodes.
func (l *limits) cpuset(c *specs.LinuxCPU) {
	for _, s := range []struct{ field, file, list string }{
		{"cpu.cpus", "cpuset.cpus", c.Cpus}, {"cpu.mems", "cpuset.mems", c.Mems},
	} {
		if s.list == "" {
			continue
		}
		if _, ok := ParseList(s.list); !ok {
			l.invalid(s.field, "%q: want a list like 0-3,7", s.list)
		}
		version := l.on(s.field, "cpuset", "cpuset")
		if version == 0 {
			return
		}
		w := Write{Field: s.field, Controller: "cpuset", Unified: version == 2, File: s.file, Value: s.list, Back: s.list, Rule: sameList}
		l.add(w)
		if version == 2 {
			// Version 2 takes what the groups above do not have, and ignores it
			// then; what it has made of it stands here.
			w.File, w.Value = s.file+".effective", ""
			l.add(w)
		}
	}
}
