// Package ask names what the engine asks a driver beside steps, with what goes in
// and what comes out: questions by which nothing is acquired, and that end with
// whoever asks. They go over the bus (bus.Ask); the driver's host puts them into
// the words of its contract.
//
//	verb              in          out
//	exec.stats        Runs        Stats
//	exec.processes    Run         Tasks
//	exec.stat-path    Copy        query.PathStat
//	exec.copy-out     Copy        –
//	exec.copy-in      Copy        –
//	rootfs.changes    Rootfs      Changes
package ask

import (
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// The verbs.
const (
	ExecStats     = "exec.stats"
	ExecProcesses = "exec.processes"
	ExecStatPath  = "exec.stat-path"
	ExecCopyOut   = "exec.copy-out"
	ExecCopyIn    = "exec.copy-in"
	RootfsChanges = "rootfs.changes"
)

// Run is one run of a container.
type Run struct {
	Container core.ContainerID `json:"container"`
	Run       uint64           `json:"run"`
}

// Runs are several.
type Runs struct {
	Runs []Run `json:"runs"`
}

// Stats is what runs use; one that does not run is left out. The containers'
// names are empty: the engine knows them.
type Stats struct {
	Runs []query.Stats `json:"runs"`
}

// Tasks are the processes of a run.
type Tasks struct {
	Tasks []query.Task `json:"tasks"`
}

// Copy says which files of which container are meant (sdk/execdriver.Copy).
type Copy struct {
	Container core.ContainerID `json:"container"`
	Run       uint64           `json:"run,omitempty"` // 0: nothing runs
	Rootfs    []core.Mount     `json:"rootfs,omitempty"`
	Mounts    []core.MountSpec `json:"mounts,omitempty"` // that were asked for
	IDMap     core.IDMap       `json:"id_map,omitzero"`
	Path      string           `json:"path"`
	Socket    string           `json:"socket,omitempty"`

	WholeRoot bool `json:"whole_root,omitempty"`
	KeepIDs   bool `json:"keep_ids,omitempty"`
	Overwrite bool `json:"overwrite,omitempty"`
}

// Rootfs is a container's root filesystem.
type Rootfs struct {
	Container core.ContainerID `json:"container"`
}

// Changes are the paths that a container has changed.
type Changes struct {
	Changes []query.Change `json:"changes"`
}
