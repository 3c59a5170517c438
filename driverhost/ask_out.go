package driverhost

import (
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// statsOut is a measure in the words of who asks.
type statsOut = query.Stats

// fromStats leaves the name empty: the driver's is the run's, not a person's.
func fromStats(s execdriver.Stats) statsOut {
	out := statsOut{
		Container: core.ContainerID(s.Container), Running: true, Time: s.Time,
		CPU: s.CPU, CPUUser: s.CPUUser, CPUSystem: s.CPUSystem, CPUs: s.CPUs,
		Periods: s.Periods, Throttled: s.Throttled, ThrottledTime: s.ThrottledTime,
		MemoryBytes: s.MemoryBytes, MemoryInactive: s.MemoryInactive, MemoryLimit: s.MemoryLimit, MemoryMax: s.MemoryMax,
		OOMKills: s.OOMKills, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes, ReadOps: s.ReadOps, WriteOps: s.WriteOps,
		Pids: s.Pids, PidsLimit: s.PidsLimit,
	}
	for _, i := range s.Interfaces {
		out.Interfaces = append(out.Interfaces, query.InterfaceStats(i))
	}
	return out
}

func taskOut(t execdriver.Task) query.Task { return query.Task(t) }

// pathOut is what stands at a path.
type pathOut = query.PathStat

func changeOut(c graphdriver.Change) query.Change { return query.Change{Kind: c.Kind, Path: c.Path} }
