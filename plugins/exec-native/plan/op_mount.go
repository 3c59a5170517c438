package plan

// What Attach and Filesystem make where the target is missing.
const (
	CreateNone uint32 = iota // ENOENT
	CreateDir                // directories of mode 0755
	CreateFile               // directories, and an empty file of mode 0644 at the end
)

// Attr changes a mount's attributes (mount_setattr(2)).
type Attr struct {
	Set, Clear  uint64 // MOUNT_ATTR_…
	Propagation uint64 // MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE or 0 to leave it
	Recursive   bool
}

// Propagation sets that of "/" before anything is mounted; Flags of mount(2),
// MS_REC | MS_SLAVE. Stage 5, first.
type Propagation struct{ Flags uint64 }

// Root attaches a detached mount as the container's root: every path of the
// plan lies below it. Required before any operation with a path, once, stage 5.
type Root struct {
	FD   FD
	Attr Attr
}

// Attach attaches a detached mount (open_tree, fsmount) at Target. Without a
// propagation in Attr it keeps what it came with: a clone of a shared mount
// stays in its peer group. Stage 5.
type Attach struct {
	FD     FD
	Target string
	Create uint32
	Attr   Attr
}

// Kinds of a Param.
const (
	ParamFlag   uint32 = iota // FSCONFIG_SET_FLAG Key
	ParamString               // FSCONFIG_SET_STRING Key=Value
	ParamFD                   // FSCONFIG_SET_FD Key=FD
)

// Param configures a file system (fsconfig(2)).
type Param struct {
	Type  uint32
	Key   string
	Value string
	FD    FD // only of ParamFD
}

// Filesystem makes a file system inside the init's namespaces and mounts it at
// Target: proc, sysfs, mqueue, devpts, tmpfs, cgroup (v1, its controllers as
// flags), cgroup2. Stage 5.
type Filesystem struct {
	Type   string
	Target string
	Create uint32
	Attrs  uint64 // MOUNT_ATTR_… of the mount
	Params []Param
}

// Node makes a device node, FIFO or socket; Mode holds type and permissions,
// exactly (no umask). What is there already is an error. Stage 5.
type Node struct {
	Path         string
	Mode         uint32
	Major, Minor uint32
	UID, GID     uint32
}

// Symlink makes a symbolic link at Path, for which a link that is already
// there with the same content is fine. Stage 5.
type Symlink struct{ Path, To string }

// SetAttr changes the attributes of the mount at Path. Stage 5 or 6.
type SetAttr struct {
	Path string
	Attr Attr
}

// Pivot makes the root given by Root the init's root directory and detaches
// the old one. Stage 5, last; once.
type Pivot struct{}

// Hostname sets the host name. Stage 6.
type Hostname struct{ Name string }

// Domainname sets the NIS domain name. Stage 6.
type Domainname struct{ Name string }

// Sysctl writes Value to /proc/sys/Path through a private procfs. Path has no
// leading slash ("net/ipv4/ip_forward"). In a user namespace before the first
// Mask, since procfs can only be made while a whole one is visible. Stage 6.
type Sysctl struct{ Path, Value string }

// Mask hides Path: a file behind the null device, a directory behind an empty
// read-only tmpfs. What is not there needs no mask. Null is a mount of
// /dev/null's node that an Attach before it has attached, or NoFD for the
// container's own /dev/null; either must be the character device 1:3, looked
// at and cloned by descriptor. Stage 6.
type Mask struct {
	Path string
	Null FD
}

// ReadOnly makes Path and all mounts below it read-only; what is not there is
// passed over. Stage 6.
type ReadOnly struct{ Path string }

// LinkUp sets a network interface up ("lo"). Stage 6.
type LinkUp struct{ Name string }

// Console makes a pty of the container's devpts at /dev/pts, the init's
// controlling terminal, standard input, output and error and /dev/console,
// and hands the master to the monitor. Stage 5, before Pivot, after devpts.
type Console struct{ Rows, Cols uint16 }

// Kind implements Op.
func (Propagation) Kind() Kind { return KindPropagation }

// Kind implements Op.
func (Root) Kind() Kind { return KindRoot }

// Kind implements Op.
func (Attach) Kind() Kind { return KindAttach }

// Kind implements Op.
func (Filesystem) Kind() Kind { return KindFilesystem }

// Kind implements Op.
func (Node) Kind() Kind { return KindNode }

// Kind implements Op.
func (Symlink) Kind() Kind { return KindSymlink }

// Kind implements Op.
func (SetAttr) Kind() Kind { return KindSetAttr }

// Kind implements Op.
func (Pivot) Kind() Kind { return KindPivot }

// Kind implements Op.
func (Hostname) Kind() Kind { return KindHostname }

// Kind implements Op.
func (Domainname) Kind() Kind { return KindDomainname }

// Kind implements Op.
func (Sysctl) Kind() Kind { return KindSysctl }

// Kind implements Op.
func (Mask) Kind() Kind { return KindMask }

// Kind implements Op.
func (ReadOnly) Kind() Kind { return KindReadOnly }

// Kind implements Op.
func (LinkUp) Kind() Kind { return KindLinkUp }

// Kind implements Op.
func (Console) Kind() Kind { return KindConsole }

func (a Attr) put(w *writer) {
	w.u64(a.Set)
	w.u64(a.Clear)
	w.u64(a.Propagation)
	w.flag(a.Recursive)
}

func (o Propagation) put(w *writer) { w.u64(o.Flags) }
func (o Root) put(w *writer)        { w.fd(o.FD); o.Attr.put(w) }

func (o Attach) put(w *writer) {
	w.fd(o.FD)
	w.u32(o.Create)
	o.Attr.put(w)
	w.str(o.Target, MaxPath)
}

func (o Filesystem) put(w *writer) {
	if len(o.Params) > MaxParams {
		w.fail("%d parameters: at most %d", len(o.Params), MaxParams)
		return
	}
	w.str(o.Type, MaxName)
	w.str(o.Target, MaxPath)
	w.u32(o.Create)
	w.u64(o.Attrs)
	w.u32(uint32(len(o.Params)))
	for _, p := range o.Params {
		w.u32(p.Type)
		if p.Type != ParamFD {
			p.FD = NoFD
		}
		w.fd(p.FD)
		w.str(p.Key, MaxName)
		w.str(p.Value, MaxPath)
	}
}

func (o Node) put(w *writer) {
	w.u32(o.Mode)
	w.u32(o.Major)
	w.u32(o.Minor)
	w.u32(o.UID)
	w.u32(o.GID)
	w.str(o.Path, MaxPath)
}

func (o Symlink) put(w *writer)    { w.str(o.Path, MaxPath); w.str(o.To, MaxPath) }
func (o SetAttr) put(w *writer)    { o.Attr.put(w); w.str(o.Path, MaxPath) }
func (Pivot) put(*writer)          {}
func (o Hostname) put(w *writer)   { w.str(o.Name, MaxName) }
func (o Domainname) put(w *writer) { w.str(o.Name, MaxName) }
func (o Sysctl) put(w *writer)     { w.str(o.Path, MaxPath); w.str(o.Value, MaxPath) }
func (o Mask) put(w *writer)       { w.fd(o.Null); w.str(o.Path, MaxPath) }
func (o ReadOnly) put(w *writer)   { w.str(o.Path, MaxPath) }
func (o LinkUp) put(w *writer)     { w.str(o.Name, 15) }
func (o Console) put(w *writer)    { w.u16(o.Rows); w.u16(o.Cols) }
