// Package execdriver is the contract of drivers that run containers' processes.
package execdriver

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// Driver runs processes in isolation.
//
//	Start(c1, run 1)       → the process runs; a shim stays with it
//	Signal(c1, run 1, 15)  delivered; what the process does is its own affair
//	Exits                  → c1, run 1 ended with 143
//	Release(c1, run 1)     exit record, sockets and cgroups are gone
//
// Processes outlive the driver: after a restart it finds them again and Exits
// begins with every exit that was not yet released. Every method may be
// repeated.
type Driver interface {
	// Info introduces the driver. Warnings tell what this machine lacks.
	Info(ctx context.Context) (driver.Info, error)

	// Start runs the container's process and returns when its program has
	// been executed. The shim's socket is at SocketPath as soon as it
	// exists, before Start returns: with WaitAttach the program waits at
	// its gate until a client has attached there, at most 10 s.
	// Repeated for a run that was started, it answers with that one, also
	// when the program has already ended. A caller that gives up, or dies,
	// may come too late: what may have been executed is left running, for
	// a program is never executed twice for one run.
	//
	// NotFound: the program is not there (exit code 127).
	// PermissionDenied: it cannot be executed (exit code 126).
	// InvalidArgument: a field that cannot be, by name and value.
	// Unimplemented: the kernel lacks something, by name.
	// Nothing is left after a failed start except what Release removes.
	Start(ctx context.Context, r Start) (Started, error)

	// Signal delivers a signal to the container's first process. A paused or
	// dying process is no reason to wait.
	// NotFound: the run is not running.
	Signal(ctx context.Context, k Key, signal int) error

	// Release ends what is left of a run: kills what still runs in it, then
	// removes its record, sockets and cgroups. The log file stays.
	Release(ctx context.Context, k Key) error

	// RemoveLog removes the container's log files. It is asked when the
	// container is removed.
	RemoveLog(ctx context.Context, container string) error

	// Exits calls f for every run that has ended and was not released, old
	// ones first, until ctx ends. It may call f more than once for a run.
	Exits(ctx context.Context, f func(Exit) error) error

	// List tells every run held for this engine.
	List(ctx context.Context) ([]driver.Item, error)
}

// Key names one run of a container, or one exec in it.
type Key struct {
	Container string
	Run       uint64
	Exec      string // id of an exec, 64 hexadecimal digits; empty for the run's own process
}

// Start asks for a container's process.
type Start struct {
	Key
	Name       string         // what people call the container
	Hostname   string         // inside; also written to /etc/hostname
	Domain     string         // NIS domain name; empty for none
	Rootfs     []driver.Mount // from the graph driver
	ReadOnly   bool           // root filesystem
	ShmBytes   int64          // size of /dev/shm; 0 for 64 MiB
	Mounts     []driver.Mount // further ones, in order; resolv.conf and hosts among them
	IDMap      driver.IDMap
	UserNS     netdriver.Namespace // the one held for this container (UserNamespacer); zero for the host's
	Network    netdriver.Namespace
	Namespaces Namespaces
	Process    Process
	Init       bool // pid 1 is gantry-init, which reaps and forwards signals
	Resources  Resources
	Security   Security
	Stdio      Stdio
}

// Namespaces says which namespaces are shared; the zero value shares none.
type Namespaces struct {
	PID, IPC, UTS, Cgroup Share
}

// The modes of Share.
const (
	ShareNone      = ""          // a namespace of its own
	ShareHost      = "host"      // the host's
	ShareContainer = "container" // that of a running container
)

// Share says whose namespace a container is put in.
type Share struct {
	Mode string
	With Key  // of mode container: the run whose namespace it is
	Off  bool // of IPC: no /dev/shm ("none")
}

// Process is the program to run.
type Process struct {
	Args     []string // never empty; Args[0] is looked up in PATH of Env
	Env      []string // NAME=value
	Cwd      string   // absolute; empty for "/"
	User     string   // "", "name", "uid", "name:group", "uid:gid"; names by the image's own files
	Groups   []string // further groups, by name or number
	TTY      bool
	Rows     int // of the terminal at the start; 0 for the kernel's
	Columns  int
	OOMScore int // oom_score_adj, -1000 to 1000
	Ulimits  []Ulimit
}

// Ulimit is one resource limit of setrlimit(2); -1 is no limit.
type Ulimit struct {
	Name       string // "nofile"
	Soft, Hard int64
}

// Resources are limits; zero means none, or the kernel's default.
type Resources struct {
	MemoryBytes            int64
	MemorySwapBytes        int64 // memory and swap together; -1: no limit; 0: twice the memory
	MemoryReservationBytes int64
	MemorySwappiness       *int64 // 0 to 100
	OOMKillDisable         bool
	NanoCPUs               int64 // 1e9 is one processor
	CPUShares              int64
	CPUPeriod              int64 // microseconds
	CPUQuota               int64 // microseconds
	CPURealtimePeriod      int64 // microseconds
	CPURealtimeRuntime     int64 // microseconds
	CpusetCPUs             string
	CpusetMems             string
	PidsLimit              int64 // -1 and 0 mean none
	BlkioWeight            uint16
	BlkioWeightDevices     []DeviceRate
	BlkioReadBps           []DeviceRate
	BlkioWriteBps          []DeviceRate
	BlkioReadIOps          []DeviceRate
	BlkioWriteIOps         []DeviceRate
	CgroupParent           string // path relative to each hierarchy's root; empty: Config.Cgroup
}

// DeviceRate is a block device of the host and its limit (bytes or operations
// per second) or weight.
type DeviceRate struct {
	Path string
	Rate uint64
}

// Security says how far the process is kept in.
type Security struct {
	Privileged      bool
	CapAdd          []string // "NET_ADMIN", "ALL"; without CAP_ or with
	CapDrop         []string
	NoNewPrivileges bool
	Seccomp         string   // "" for the default profile, "unconfined", or a profile's JSON text
	AppArmor        string   // "" for the default where the kernel has it, "unconfined", or a profile's name
	SELinux         []string // label options: "type:T", "level:L", "disable"
	OpenPaths       bool     // nothing masked or read-only below /proc and /sys
	Devices         []Device
	DeviceRules     []string // "c 1:3 rwm"
	Sysctls         map[string]string
}

// Device is a device node of the host that is to be there inside.
type Device struct {
	Host        string // path on the host; a directory stands for all in it
	Container   string // path inside
	Permissions string // of "rwm"; empty: all
}

// Stdio says what becomes of the process's input and output.
type Stdio struct {
	OpenStdin  bool      // keep a pipe for it; otherwise /dev/null
	StdinOnce  bool      // it ends when the first client that gave some has left
	WaitAttach bool      // hold the program at the gate until a client has attached
	Log        LogConfig // where output is kept
}

// LogConfig says how output is kept.
type LogConfig struct {
	Driver         string        // "local"; "none" keeps nothing
	MaxBytes       int64         // of one file; 0 for the default, 20 MiB
	MaxFiles       int           // how many; 0 for the default, 5
	MaxAge         time.Duration // of one file; 0 for no limit
	NonBlocking    bool          // what the disk cannot take is dropped and counted
	MaxBufferBytes int64         // of non-blocking delivery; 0 for 1 MiB
	From           uint64        // the last run's Exit.LogEnd: the log goes on there, should it end before
}

// Started is a running process.
type Started struct {
	PID int    // on the host
	Log string // path of the log file, empty for none
}

// Exit is the end of a run.
type Exit struct {
	Key
	Code      int // exit status; 128+n when ended by signal n
	Signal    int // the signal, or 0
	OOMKilled bool
	Lost      bool      // the shim was killed: Code may be a guess (137)
	Time      time.Time // when the shim saw it
	Reason    string    // "", "shim lost", "executing failed: …"

	// LogEnd is the offset in the log where the output ends, if the log does not
	// reach it and does not tell so: its disk stood still or was full. 0: it has all.
	LogEnd uint64
}

// RunDir is the directory of one run, or of one exec, below the driver's Run directory. It is
// short, since a socket's address holds at most 107 bytes.
func RunDir(driverRun string, k Key) string {
	if k.Exec != "" {
		return filepath.Join(driverRun, fmt.Sprintf("%.16s-%d-%.16s", k.Container, k.Run, k.Exec))
	}
	return filepath.Join(driverRun, fmt.Sprintf("%.16s-%d", k.Container, k.Run))
}

// SocketPath is where the shim of one run listens for attaching clients, who
// reach it through the engine only (docs/streams.md has the frames).
func SocketPath(driverRun string, k Key) string {
	return filepath.Join(RunDir(driverRun, k), "attach.sock")
}
