package plan

// Join enters a namespace by descriptor: of nsfs, or a pidfd with several
// flags. Stage 1 for user, pid and time, before the clone; stage 4 for the
// others, when they belong to the host's user namespace.
type Join struct {
	FD    FD
	Flags uint32 // CLONE_NEWNET …
}

// Unshare leaves namespaces: CLONE_NEWTIME in stage 1, CLONE_NEWCGROUP in
// stage 4 after the last Cgroup (v1).
type Unshare struct{ Flags uint32 }

// Clone makes the init. Required, once, stage 2.
type Clone struct {
	Flags  uint64 // CLONE_NEW…; no others
	Cgroup FD     // directory of a v2 cgroup to be cloned into, or NoFD
}

// ProcWrite writes a file of /proc/PID of the init, through a procfs that
// nobody else can reach. Stage 3 (written by the monitor): uid_map, gid_map,
// setgroups. Stage 1: timens_offsets. Stage 4: oom_score_adj.
type ProcWrite struct {
	Name string // one component
	Data string
}

// Cgroup moves the init into a cgroup: FD is its cgroup.procs opened for
// writing. Stage 4; stage 1, before the joins, to run something more in a
// container. If that is frozen, the start hangs until it thaws or Abort.
type Cgroup struct{ FD FD }

// Rlimit sets a resource limit. Stage 4, or 8 where it shall not bind the init.
type Rlimit struct {
	Resource   uint32 // RLIMIT_…
	Soft, Hard uint64
}

// Sync tells the driver that the init has come here, and waits for Continue.
// Stages 4 to 7.
type Sync struct{ Point uint32 }

// Gate holds the init until a client is attached, if Monitor has WaitAttach.
// Stage 7.
type Gate struct{}

// CapBound drops everything but Keep from the bounding set. Stage 8.
type CapBound struct{ Keep uint64 }

// User takes ids. With KeepCaps, capabilities survive leaving uid 0, for a
// following CapSet. Stage 4 (ids of a new user namespace) or 8.
type User struct {
	UID, GID uint32
	Groups   []uint32
	KeepCaps bool
}

// CapSet sets the capability sets; they must lie within what the init has.
// Stage 8, after User.
type CapSet struct{ Effective, Permitted, Inheritable, Ambient uint64 }

// NoNewPrivs sets no_new_privs. Stage 8.
type NoNewPrivs struct{}

// Seccomp installs a filter: struct sock_filter, 8 bytes each. Stage 8 before
// User and CapSet where no_new_privs is not set, else stage 9 before Exec.
type Seccomp struct {
	Flags  uint32 // SECCOMP_FILTER_FLAG_…
	Filter []byte
}

// Umask sets the file mode mask. Stage 8.
type Umask struct{ Mask uint32 }

// Chdir enters the working directory, and checks that it lies inside the
// container. With Create it is made, one component at a time, owned by UID and
// GID, mode 0755. Stage 5 to 9, after Pivot.
type Chdir struct {
	Path     string
	Create   bool
	UID, GID uint32
}

// Personality sets the execution domain. Stage 8.
type Personality struct{ Persona uint32 }

// Sweep makes the init ready to be the program: standard descriptors in place,
// all others closed, signals reset, parent-death signal set. Required, once,
// first of stage 9.
type Sweep struct{}

// Exec executes the program: the first of Paths that can be. When none can,
// the report carries EACCES if one was there but could not be executed, as
// execvp does, else the last one's errno. Required, last.
type Exec struct {
	Paths []string // candidates, found by the driver from PATH
	Args  []string
	Env   []string
}

// Kind implements Op.
func (Join) Kind() Kind { return KindJoin }

// Kind implements Op.
func (Unshare) Kind() Kind { return KindUnshare }

// Kind implements Op.
func (Clone) Kind() Kind { return KindClone }

// Kind implements Op.
func (ProcWrite) Kind() Kind { return KindProcWrite }

// Kind implements Op.
func (Cgroup) Kind() Kind { return KindCgroup }

// Kind implements Op.
func (Rlimit) Kind() Kind { return KindRlimit }

// Kind implements Op.
func (Sync) Kind() Kind { return KindSync }

// Kind implements Op.
func (Gate) Kind() Kind { return KindGate }

// Kind implements Op.
func (CapBound) Kind() Kind { return KindCapBound }

// Kind implements Op.
func (User) Kind() Kind { return KindUser }

// Kind implements Op.
func (CapSet) Kind() Kind { return KindCapSet }

// Kind implements Op.
func (NoNewPrivs) Kind() Kind { return KindNoNewPrivs }

// Kind implements Op.
func (Seccomp) Kind() Kind { return KindSeccomp }

// Kind implements Op.
func (Umask) Kind() Kind { return KindUmask }

// Kind implements Op.
func (Chdir) Kind() Kind { return KindChdir }

// Kind implements Op.
func (Personality) Kind() Kind { return KindPersonality }

// Kind implements Op.
func (Sweep) Kind() Kind { return KindSweep }

// Kind implements Op.
func (Exec) Kind() Kind { return KindExec }

func (o Join) put(w *writer)        { w.fd(o.FD); w.u32(o.Flags) }
func (o Unshare) put(w *writer)     { w.u32(o.Flags) }
func (o Clone) put(w *writer)       { w.u64(o.Flags); w.fd(o.Cgroup) }
func (o ProcWrite) put(w *writer)   { w.str(o.Name, MaxName); w.str(o.Data, MaxPath) }
func (o Cgroup) put(w *writer)      { w.fd(o.FD) }
func (o Rlimit) put(w *writer)      { w.u32(o.Resource); w.u64(o.Soft); w.u64(o.Hard) }
func (o Sync) put(w *writer)        { w.u32(o.Point) }
func (Gate) put(*writer)            {}
func (o CapBound) put(w *writer)    { w.u64(o.Keep) }
func (NoNewPrivs) put(*writer)      {}
func (o Umask) put(w *writer)       { w.u32(o.Mask) }
func (o Personality) put(w *writer) { w.u32(o.Persona) }
func (Sweep) put(*writer)           {}

func (o User) put(w *writer) {
	if len(o.Groups) > MaxGroups {
		w.fail("%d groups: at most %d", len(o.Groups), MaxGroups)
		return
	}
	w.u32(o.UID)
	w.u32(o.GID)
	w.flag(o.KeepCaps)
	w.u32(uint32(len(o.Groups)))
	for _, g := range o.Groups {
		w.u32(g)
	}
}

func (o CapSet) put(w *writer) {
	w.u64(o.Effective)
	w.u64(o.Permitted)
	w.u64(o.Inheritable)
	w.u64(o.Ambient)
}

func (o Seccomp) put(w *writer) {
	if len(o.Filter) == 0 || len(o.Filter)%8 != 0 {
		w.fail("filter of %d bytes", len(o.Filter))
	}
	w.u32(o.Flags)
	w.bytes(o.Filter, MaxFilter)
}

func (o Chdir) put(w *writer) {
	w.flag(o.Create)
	w.u32(o.UID)
	w.u32(o.GID)
	w.str(o.Path, MaxPath)
}

func (o Exec) put(w *writer) {
	if len(o.Paths) == 0 || len(o.Args) == 0 {
		w.fail("nothing to execute")
	}
	w.list(o.Paths, MaxTries)
	w.list(o.Args, MaxArgs)
	w.list(o.Env, MaxArgs)
}
