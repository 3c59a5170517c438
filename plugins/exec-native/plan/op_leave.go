package plan

// Leave is the first operation, in place of Monitor, of a plan after which
// nobody of ours stays: the helper joins and clones itself, and leaves. It must
// be handed over by Warm.Leave. Stage 0, alone there.
type Leave struct {
	Stdin  FD // the program's streams; NoFD for the container's /dev/null
	Stdout FD
	Stderr FD
	Keep   []FD // become the program's descriptors from 3 on
}

// Deadline ends the process group of a program that still runs so long after
// its exec, with SIGKILL: FlagTimeout tells it. Stage 0.
type Deadline struct{ Milli uint32 }

// LogPolicy says more about the log. Stage 0, after Log.
type LogPolicy struct {
	NonBlocking bool   // drop what BufferBytes cannot take, rather than hold the program up
	BufferBytes uint32 // 64 KiB to 64 MiB, where NonBlocking
	MaxAge      uint32 // seconds after which a file that has records is rotated; 0: never
}

// Owner gives the program's pipes to a user, in ids of the host, so that
// /dev/stdout can be opened by its name: an init in a user namespace cannot, the
// pipes being the monitor's. Stage 0.
type Owner struct{ UID, GID uint32 }

// StartGate holds the init until somebody connects to the listening
// SOCK_SEQPACKET socket (ListenGate) and says Continue (OpenGate); from then on
// the reports go there. Nothing of the plan's files is open meanwhile but what
// the program gets; who may open is a matter of the socket's directory. Only
// after Leave. Stage 7.
type StartGate struct{ FD FD }

// PIDRoom is how many spaces a hook's state holds for the pid.
const PIDRoom = 10

// Hook runs a program with State on its standard input, in the namespaces of
// the init as they are at that place: before Pivot the host's files are still
// at their paths. Its process group is killed when it takes too long. A hook
// that fails ends the start: ECHILD, with the wait status as Report.Signal;
// ETIMEDOUT. Stage 5, 7 or 8.
type Hook struct {
	Path         string
	Args         []string
	Env          []string
	TimeoutMilli uint32 // 0: none
	State        []byte
	PIDAt        uint32 // where State has PIDRoom spaces for the pid as the container sees it
}

// Affinity sets the processors that may be run on; bit 0 of the first byte is
// processor 0. Stage 1 (before the cgroups) or 4 (after them).
type Affinity struct{ Mask []byte }

// Scheduler sets policy and priority (sched_setattr(2)). Stage 4 or 8.
type Scheduler struct {
	Policy   uint32 // SCHED_…
	Flags    uint64 // SCHED_FLAG_…
	Nice     int32
	Priority uint32
	Runtime  uint64 // of SCHED_DEADLINE, in ns, as the next two
	Deadline uint64
	Period   uint64
}

// IOPriority sets class and level of input and output: class<<13 | level.
// Stage 4 or 8.
type IOPriority struct{ Value uint32 }

// MemoryPolicy sets where memory comes from (set_mempolicy(2)); Mode holds its
// flags too. Stage 4 or 8.
type MemoryPolicy struct {
	Mode  uint32
	Nodes []byte // bit 0 of the first byte is node 0
}

// Keyring takes a new session keyring, in which the user may search. Stage 4
// to 8.
type Keyring struct{ Name string }

// Label writes an attribute of the security modules for the coming exec: Attr
// is "exec", "apparmor/exec", "keycreate", "sockcreate" or "fscreate". Stage 6
// to 8.
type Label struct{ Attr, Value string }

// MoveRoot takes the place of Pivot where the old root cannot be pivoted
// (ramfs): the init's root directory is changed, and the host's /proc and /sys
// below the new one are detached. Stage 5, last; once.
type MoveRoot struct{}

// Pty makes a pty of the devpts at /dev/pts, the init's controlling
// terminal and its standard streams, and hands the master over: what Console
// is to a container, this is to a program that joins one. Stage 4 to 7.
type Pty struct{ Rows, Cols uint16 }

// Kind implements Op.
func (Leave) Kind() Kind { return KindLeave }

// Kind implements Op.
func (Deadline) Kind() Kind { return KindDeadline }

// Kind implements Op.
func (LogPolicy) Kind() Kind { return KindLogPolicy }

// Kind implements Op.
func (Owner) Kind() Kind { return KindOwner }

// Kind implements Op.
func (StartGate) Kind() Kind { return KindStartGate }

// Kind implements Op.
func (Hook) Kind() Kind { return KindHook }

// Kind implements Op.
func (Affinity) Kind() Kind { return KindAffinity }

// Kind implements Op.
func (Scheduler) Kind() Kind { return KindScheduler }

// Kind implements Op.
func (IOPriority) Kind() Kind { return KindIOPriority }

// Kind implements Op.
func (MemoryPolicy) Kind() Kind { return KindMemoryPolicy }

// Kind implements Op.
func (Keyring) Kind() Kind { return KindKeyring }

// Kind implements Op.
func (Label) Kind() Kind { return KindLabel }

// Kind implements Op.
func (MoveRoot) Kind() Kind { return KindMoveRoot }

// Kind implements Op.
func (Pty) Kind() Kind { return KindPty }

func (o Leave) put(w *writer) {
	if len(o.Keep) > MaxKeep {
		w.fail("%d descriptors to keep: at most %d", len(o.Keep), MaxKeep)
		return
	}
	w.fd(o.Stdin)
	w.fd(o.Stdout)
	w.fd(o.Stderr)
	w.u32(uint32(len(o.Keep)))
	for _, f := range o.Keep {
		if f == NoFD {
			w.fail("no descriptor to keep")
		}
		w.fd(f)
	}
}

func (o Deadline) put(w *writer) { w.u32(o.Milli) }
func (o Owner) put(w *writer)    { w.u32(o.UID); w.u32(o.GID) }

func (o LogPolicy) put(w *writer) {
	if o.NonBlocking && (o.BufferBytes < minRing || o.BufferBytes > maxRing) {
		w.fail("buffer of %d bytes: %d to %d", o.BufferBytes, minRing, maxRing)
	}
	w.flag(o.NonBlocking)
	w.u32(o.BufferBytes)
	w.u32(o.MaxAge)
}

// Bounds of a log's buffer in bytes.
const (
	minRing = 64 << 10
	maxRing = 64 << 20
)

func (o Hook) put(w *writer) {
	if len(o.Args) == 0 || int64(o.PIDAt)+PIDRoom > int64(len(o.State)) {
		w.fail("hook with %d arguments and its pid at %d of %d", len(o.Args), o.PIDAt, len(o.State))
		return
	}
	w.u32(o.TimeoutMilli)
	w.u32(o.PIDAt)
	w.str(o.Path, MaxPath)
	w.list(o.Args, MaxArgs)
	w.list(o.Env, MaxArgs)
	w.bytes(o.State, MaxData)
}

func (o Scheduler) put(w *writer) {
	w.u32(o.Policy)
	w.u64(o.Flags)
	w.u32(uint32(o.Nice))
	w.u32(o.Priority)
	w.u64(o.Runtime)
	w.u64(o.Deadline)
	w.u64(o.Period)
}

// mask pads a set to whole words of the kernel's, which are of 8 bytes.
func (w *writer) mask(v []byte) {
	if len(v) == 0 {
		w.bytes(nil, MaxMask)
		return
	}
	b := make([]byte, (len(v)+7)&^7)
	copy(b, v)
	w.bytes(b, MaxMask)
}

func (o StartGate) put(w *writer)    { w.fd(o.FD) }
func (o Affinity) put(w *writer)     { w.mask(o.Mask) }
func (o IOPriority) put(w *writer)   { w.u32(o.Value) }
func (o MemoryPolicy) put(w *writer) { w.u32(o.Mode); w.mask(o.Nodes) }
func (o Keyring) put(w *writer)      { w.str(o.Name, MaxRing) }
func (o Label) put(w *writer)        { w.str(o.Attr, MaxName); w.str(o.Value, MaxPath) }
func (MoveRoot) put(*writer)         {}
func (o Pty) put(w *writer)          { w.u16(o.Rows); w.u16(o.Cols) }

// PIDPlace finds where a hook's state, in JSON, has its pid: the first run of
// PIDRoom spaces.
func PIDPlace(state []byte) (uint32, bool) {
	run := 0
	for i, c := range state {
		if c != ' ' {
			run = 0
			continue
		}
		if run++; run == PIDRoom {
			return uint32(i - PIDRoom + 1), true
		}
	}
	return 0, false
}
