package query

import (
	"time"

	"github.com/gantryd/gantry/core"
)

// The operations of the engine's stream sockets that ask a driver: unlike
// queries they wait for it, and end with it. All need the control role.
const (
	// OpTop takes RefIn and answers with Top.
	OpTop = "top"
	// OpStats takes StatsIn and answers with an empty object; then comes one
	// line of JSON (StatsSample) for each second, or one alone with Once.
	OpStats = "stats"
	// OpDiff takes RefIn and answers with Changes.
	OpDiff = "diff"
	// OpCopyOut takes CopyIn and answers with Copying and a descriptor on
	// which the driver sends a tar. When it is over, one more line of JSON
	// follows on the connection itself: CopyEnd.
	OpCopyOut = "copy-out"
	// OpCopyIn is the other way round: the client sends the tar on the
	// descriptor and closes its sending side.
	OpCopyIn = "copy-in"
)

// Top are the processes of a container.
type Top struct {
	Container core.ContainerID `json:"container"`
	Tasks     []Task           `json:"tasks"`
}

// Task is one process, as the host sees it (sdk/execdriver.Task).
type Task struct {
	PID     int           `json:"pid"`
	PPID    int           `json:"ppid"`
	UID     uint32        `json:"uid"`
	User    string        `json:"user"`
	TTY     string        `json:"tty"`
	CPU     time.Duration `json:"cpu_ns"`
	Started time.Time     `json:"started"`
	RSS     int64         `json:"rss_bytes"`
	Name    string        `json:"name"`
	Args    []string      `json:"args,omitempty"`
}

// StatsIn asks what containers use.
type StatsIn struct {
	Refs []string `json:"refs,omitempty"` // none: all that run, also those that come later
	All  bool     `json:"all,omitempty"`  // without Refs: also those that do not run
	Once bool     `json:"once,omitempty"`
}

// StatsSample is one second's measure.
type StatsSample struct {
	Containers []Stats `json:"containers"`
}

// Stats is what one container uses (sdk/execdriver.Stats). Counters run from the
// start of the container; whoever wants rates compares two samples.
type Stats struct {
	Container     core.ContainerID `json:"container"`
	Name          string           `json:"name"`
	Running       bool             `json:"running,omitempty"` // otherwise all below is zero
	Time          time.Time        `json:"time,omitzero"`
	CPU           time.Duration    `json:"cpu_ns,omitempty"` // of all processors together
	CPUUser       time.Duration    `json:"cpu_user_ns,omitempty"`
	CPUSystem     time.Duration    `json:"cpu_system_ns,omitempty"`
	CPUs          int              `json:"cpus,omitempty"` // online
	Periods       uint64           `json:"periods,omitempty"`
	Throttled     uint64           `json:"throttled,omitempty"` // of them
	ThrottledTime time.Duration    `json:"throttled_ns,omitempty"`

	MemoryBytes    int64  `json:"memory_bytes,omitempty"` // with page cache
	MemoryInactive int64  `json:"memory_inactive_bytes,omitempty"`
	MemoryLimit    int64  `json:"memory_limit_bytes,omitempty"` // the machine's memory when there is none
	MemoryMax      int64  `json:"memory_max_bytes,omitempty"`
	OOMKills       uint64 `json:"oom_kills,omitempty"`
	ReadBytes      uint64 `json:"read_bytes,omitempty"`
	WriteBytes     uint64 `json:"write_bytes,omitempty"`
	ReadOps        uint64 `json:"read_ops,omitempty"`
	WriteOps       uint64 `json:"write_ops,omitempty"`
	Pids           int64  `json:"pids,omitempty"`
	PidsLimit      int64  `json:"pids_limit,omitempty"`

	Interfaces []InterfaceStats `json:"interfaces,omitempty"`
}

// InterfaceStats is what went through one network interface.
type InterfaceStats struct {
	Name      string `json:"name"`
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	RxErrors  uint64 `json:"rx_errors"`
	RxDrops   uint64 `json:"rx_drops"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxErrors  uint64 `json:"tx_errors"`
	TxDrops   uint64 `json:"tx_drops"`
}

// Changes is what a container has changed in its root filesystem, by path.
type Changes struct {
	Container core.ContainerID `json:"container"`
	Changes   []Change         `json:"changes"`
}

// Change is one path: "A" added, "C" changed, "D" deleted.
type Change struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
}

// CopyIn says which files of which container are meant (sdk/execdriver.Copy).
type CopyIn struct {
	Ref       string `json:"ref"`
	Path      string `json:"path"`
	Follow    bool   `json:"follow,omitempty"`     // a last symbolic link stands for what it leads to
	WholeRoot bool   `json:"whole_root,omitempty"` // copy-out: export
	KeepIDs   bool   `json:"keep_ids,omitempty"`   // copy-in
	Overwrite bool   `json:"overwrite,omitempty"`  // copy-in: a directory may take a file's place and the other way round
	StatOnly  bool   `json:"stat_only,omitempty"`  // copy-out: answer with Stat and no descriptor
}

// Copying is what is being copied.
type Copying struct {
	Container core.ContainerID `json:"container"`
	Stat      *PathStat        `json:"stat,omitempty"` // of Path, when there is something
}

// PathStat is what stands at a path.
type PathStat struct {
	Name    string    `json:"name"`
	Size    int64     `json:"size"`
	Mode    uint32    `json:"mode"` // st_mode
	ModTime time.Time `json:"mtime"`
	Link    string    `json:"link,omitempty"` // where a symbolic link leads, resolved inside the container
}

// CopyEnd is how a copy ended; Error is nil for well.
type CopyEnd struct {
	Error *CopyError `json:"error,omitempty"`
}

// CopyError is an error with its class.
type CopyError struct {
	Class   string `json:"class"`
	Message string `json:"message"`
}
