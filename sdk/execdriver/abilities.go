package execdriver

import (
	"context"
	"time"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// The abilities beyond Driver, as Info lists them. Each is a small interface.
const (
	AbilityExec   = "exec"   // Execer
	AbilityFreeze = "freeze" // Freezer
	AbilityUpdate = "update" // Updater
	AbilityMeter  = "meter"  // Meter
	AbilityCopy   = "copy"   // Copier
	AbilityUserNS = "userns" // UserNamespacer
	AbilityOOM    = "oom"    // OOMWatcher
)

// Purger is a way to a driver that saves one of two calls: Purge is Release, and
// then RemoveLog. It is no ability of drivers: the way to a driver's process has it.
type Purger interface {
	Purge(ctx context.Context, k Key) error
}

// Execer runs further processes in a running container. An exec has a shim of
// its own, and from then on lives as a run does: Signal, Release, Exits and List
// know it by its Key with Exec set. It ends with the container's run at the
// latest, and its exit is told then too.
type Execer interface {
	// Exec runs a process in all namespaces and the cgroup of the run, with
	// the container's security. It returns when the program has been
	// executed; WaitAttach, sockets and repeats are as in Driver.Start.
	//
	// NotFound, PermissionDenied, InvalidArgument: as Driver.Start.
	// FailedPrecondition: the run is not running, or is frozen.
	Exec(ctx context.Context, r Exec) (Started, error)

	// Probe runs a short process to its end and tells how it went. At its
	// timeout its process group is killed. Nothing of it is left, no exit is
	// reported and nothing is logged.
	// FailedPrecondition: the run is not running, or is frozen.
	Probe(ctx context.Context, r Probe) (Probed, error)
}

// Exec asks for a further process in a run.
type Exec struct {
	Key        // with Exec set
	Process    Process
	Privileged bool  // every capability that the engine has, no filter
	Stdio      Stdio // Log is not kept: Log.Driver is "none"
}

// Probe asks for a short process in a run.
type Probe struct {
	Key                   // of the run; Exec is empty
	Process Process       // User, Cwd and Env are the container's own
	Timeout time.Duration // positive
	Keep    int           // bytes of output, both streams together, that are wanted at most
}

// Probed is how a probe went.
type Probed struct {
	Code     int    // exit status; 128+n when ended by signal n
	Output   []byte // its first Keep bytes
	TimedOut bool
	Begun    time.Time
	Ended    time.Time
}

// Freezer holds all processes of a run and lets them go on. Both may be
// repeated. Release, and Signal with SIGKILL, thaw by themselves.
type Freezer interface {
	// Freeze returns when every process of the run, execs included, stands
	// still. NotFound: the run is not running.
	Freeze(ctx context.Context, k Key) error
	// Thaw lets them go on. NotFound: the run is not running.
	Thaw(ctx context.Context, k Key) error
}

// Updater changes the limits of a running container.
type Updater interface {
	// Update puts the limits in force, all or none. InvalidArgument and
	// Unimplemented name the file, the value and what the kernel said.
	// NotFound: the run is not running.
	Update(ctx context.Context, k Key, r Resources) error
}

// Meter tells what runs use.
type Meter interface {
	// Stats measures runs; one that is not running is left out.
	Stats(ctx context.Context, runs []Key) ([]Stats, error)
	// Processes lists the processes of a run, as the host sees them.
	// NotFound: the run is not running.
	Processes(ctx context.Context, k Key) ([]Task, error)
}

// Task is one process of a run.
type Task struct {
	PID, PPID int // on the host
	UID       uint32
	User      string // by the host's files; the number when it has no name
	TTY       string // "pts/0"; "?" for none
	CPU       time.Duration
	Started   time.Time
	RSS       int64 // bytes
	Name      string
	Args      []string // empty for a process without any (a zombie), or with too many bytes of them
}

// Stats is what a run has used until Time.
type Stats struct {
	Key
	Time           time.Time
	CPU            time.Duration // of all processors together
	CPUUser        time.Duration
	CPUSystem      time.Duration
	CPUs           int // online
	ThrottledTime  time.Duration
	Throttled      uint64 // periods
	Periods        uint64
	MemoryBytes    int64 // in use, with page cache
	MemoryInactive int64 // of it page cache that can go at once (inactive_file)
	MemoryLimit    int64 // 0 for none
	MemoryMax      int64 // most ever seen; 0 where the kernel does not tell
	OOMKills       uint64
	ReadBytes      uint64 // block devices
	WriteBytes     uint64
	ReadOps        uint64
	WriteOps       uint64
	Pids           int64
	PidsLimit      int64 // 0 for none
	Interfaces     []InterfaceStats
}

// InterfaceStats is what went through one network interface of a run.
type InterfaceStats struct {
	Name                                  string
	RxBytes, RxPackets, RxErrors, RxDrops uint64
	TxBytes, TxPackets, TxErrors, TxDrops uint64
}

// OOMWatcher tells when the kernel kills for want of memory while a run goes on.
type OOMWatcher interface {
	// OOMs calls f whenever the count of a running run has risen, until ctx
	// ends. It begins with every running run whose count is not zero.
	OOMs(ctx context.Context, f func(OOM) error) error
}

// OOM is how often the kernel has killed in a run so far.
type OOM struct {
	Key
	Count uint64
	Time  time.Time
}

// Copier reads and writes files of a container, whether it runs or not. It
// works in a private mount namespace in which the container's root filesystem
// is /, so that no path and no symbolic link leads outside, also when
// processes inside change them meanwhile.
//
// Bytes do not go through these calls: the driver listens at Socket (made by
// the driver, mode 0600, below its Run directory), takes one connection, and
// sends or takes a tar stream there. The call returns when all is done.
type Copier interface {
	// CopyOut writes what is at Path as a tar whose first entry has Path's
	// base name. NotFound: there is nothing.
	CopyOut(ctx context.Context, c Copy) error
	// CopyIn unpacks a tar into the directory at Path. NotFound: there is
	// no such directory. PermissionDenied: it is read-only.
	CopyIn(ctx context.Context, c Copy) error
	// Stat tells what is at Path, without following a last symbolic link.
	Stat(ctx context.Context, c Copy) (PathStat, error)
}

// Copy says which files of which container are meant.
type Copy struct {
	Key                   // Run is the running run, or 0 for a container that does not run
	Rootfs []driver.Mount // as in Start; used when nothing runs
	Mounts []driver.Mount // as in Start; used when nothing runs
	IDMap  driver.IDMap
	Path   string // absolute, inside the container
	Socket string // name of the socket below the driver's Run directory (CopySocket)

	WholeRoot bool // CopyOut: the root filesystem alone, without what is mounted in it (export)
	KeepIDs   bool // CopyIn: owners are the tar's (cp -a); otherwise root of the container
	Overwrite bool // CopyIn: a directory may take a file's place and the other way round
}

// PathStat is what stands at a path.
type PathStat struct {
	Name    string
	Size    int64
	Mode    uint32 // st_mode
	ModTime time.Time
	Link    string // where a symbolic link leads, resolved inside the container
}

// UserNamespacer holds user namespaces for containers: a network namespace must
// be made inside its container's, so it comes before everything else.
type UserNamespacer interface {
	// HoldUserNS makes a user namespace with these maps, or tells the one
	// that is held. It stays, also over the driver's death, until
	// ReleaseUserNS, whether a process is in it or not.
	HoldUserNS(ctx context.Context, container string, m driver.IDMap) (netdriver.Namespace, error)
	// ReleaseUserNS gives it back. In List its item is of kind "userns".
	ReleaseUserNS(ctx context.Context, container string) error
}
