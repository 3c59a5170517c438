package cgroup

import "github.com/opencontainers/runtime-spec/specs-go"

// pids plans the number of tasks. Zero is a limit ("SHOULD be treated as
// such"): nothing can be started. Version 2 has its first process born in the
// group, which zero would forbid; one is the same for whatever comes after.
func (l *limits) pids(p *specs.LinuxPids) {
	if p.Limit == nil {
		return
	}
	value := "max"
	if *p.Limit >= 0 {
		value = number(*p.Limit)
	}
	version := l.on("pids.limit", "pids", "pids")
	if version == 2 && value == "0" {
		value = "1"
	}
	if version != 0 {
		l.add(Write{Field: "pids.limit", Controller: "pids", Unified: version == 2, File: "pids.max", Value: value, Back: value})
	}
}
