package plan

// Flags of Monitor.
const (
	WaitAttach uint32 = 1 << iota // Gate waits for a client that wants output
	OpenStdin                     // keep a pipe for standard input; otherwise /dev/null
	Terminal                      // a Console or Pty operation will hand over a pty
	StdinOnce                     // the first client with input that leaves ends it; not on a terminal
	Quiet                         // no Report of Init, nor of Shim by one that stood by; Running brings the pidfd
)

// Monitor holds the monitor's settings. Required, once, stage 0.
type Monitor struct {
	Flags     uint32
	GateMilli uint32   // how long Gate waits for a client before it lets the program run
	DrainMs   uint32   // how long after the exit pipes held by others are waited for
	UID       uint32   // the only uid, as the kernel tells it, that may attach
	Run       uint64   // copied into the record
	BootID    [16]byte // copied into the record
}

// ShimCgroup moves the monitor into a cgroup. Stage 0, before all others but
// Monitor. FD is the directory of a v2 cgroup if Dir (the monitor is then
// cloned into it; at most one), else a cgroup.procs opened for writing.
type ShimCgroup struct {
	FD  FD
	Dir bool
}

// Lock makes the monitor hold the flock of a file. The driver must close its
// own copy of the same open file after Start. Stage 0.
type Lock struct{ FD FD }

// Record names the file of the exit record, opened for writing, on tmpfs, and
// long enough already (RecordSize). Stage 0.
type Record struct{ FD FD }

// Listen names the attach socket: a listening SOCK_STREAM unix socket, bound
// by the driver inside a directory of mode 0700. Stage 0.
type Listen struct{ FD FD }

// Log says where output is kept: in the file Name of the directory Dir, whose
// format is in internal/stdio. Without it nothing is kept. Stage 0.
type Log struct {
	Dir      FD
	Name     string
	MaxBytes uint64 // of one file, at least 4 KiB
	MaxFiles uint32 // 1 to 99, the current one counted
	Offset   uint64 // running offset of the first byte, from stdio.RepairLog
}

// OOMCounter names the file whose "oom_kill" line is read at the exit:
// memory.oom_control (v1) or memory.events (v2), opened for reading. Stage 0.
type OOMCounter struct{ FD FD }

// Kind implements Op.
func (Monitor) Kind() Kind { return KindMonitor }

// Kind implements Op.
func (ShimCgroup) Kind() Kind { return KindShimCgroup }

// Kind implements Op.
func (Lock) Kind() Kind { return KindLock }

// Kind implements Op.
func (Record) Kind() Kind { return KindRecord }

// Kind implements Op.
func (Listen) Kind() Kind { return KindListen }

// Kind implements Op.
func (Log) Kind() Kind { return KindLog }

// Kind implements Op.
func (OOMCounter) Kind() Kind { return KindOOMCounter }

func (o Monitor) put(w *writer) {
	w.u32(o.Flags)
	w.u32(o.GateMilli)
	w.u32(o.DrainMs)
	w.u32(o.UID)
	w.u64(o.Run)
	w.b = append(w.b, o.BootID[:]...)
}

func (o ShimCgroup) put(w *writer) { w.fd(o.FD); w.flag(o.Dir) }
func (o Lock) put(w *writer)       { w.fd(o.FD) }
func (o Record) put(w *writer)     { w.fd(o.FD) }
func (o Listen) put(w *writer)     { w.fd(o.FD) }
func (o OOMCounter) put(w *writer) { w.fd(o.FD) }

func (o Log) put(w *writer) {
	if o.MaxFiles < 1 || o.MaxFiles > 99 || o.MaxBytes < 4096 {
		w.fail("%d files of %d bytes", o.MaxFiles, o.MaxBytes)
	}
	w.fd(o.Dir)
	w.u32(o.MaxFiles)
	w.u64(o.MaxBytes)
	w.u64(o.Offset)
	w.str(o.Name, MaxLogName)
}

// MaxLogName is the bound of a log file's name in bytes.
const MaxLogName = 200
