package plan

import "fmt"

// Kind is an operation's number in the format. Numbers are never reused.
type Kind uint16

// The kinds of operations. 46 and 47 were others once.
const (
	KindMonitor    Kind = 1
	KindShimCgroup Kind = 2
	KindLock       Kind = 3
	KindRecord     Kind = 4
	KindListen     Kind = 5
	KindLog        Kind = 6
	KindOOMCounter Kind = 7
	KindLeave      Kind = 8
	KindDeadline   Kind = 9
	KindLogPolicy  Kind = 10
	KindOwner      Kind = 11

	KindJoin    Kind = 16
	KindUnshare Kind = 17
	KindClone   Kind = 24

	KindProcWrite Kind = 32
	KindCgroup    Kind = 33
	KindRlimit    Kind = 34

	KindAffinity     Kind = 35
	KindScheduler    Kind = 36
	KindIOPriority   Kind = 37
	KindMemoryPolicy Kind = 38
	KindKeyring      Kind = 39

	KindPropagation Kind = 40
	KindRoot        Kind = 41
	KindAttach      Kind = 42
	KindFilesystem  Kind = 43
	KindNode        Kind = 44
	KindSymlink     Kind = 45
	KindSetAttr     Kind = 48
	KindPivot       Kind = 49
	KindHostname    Kind = 50
	KindDomainname  Kind = 51
	KindSysctl      Kind = 52
	KindMask        Kind = 53
	KindReadOnly    Kind = 54
	KindLinkUp      Kind = 55
	KindConsole     Kind = 56
	KindMoveRoot    Kind = 57
	KindPty         Kind = 58
	KindRootHere    Kind = 59
	KindChroot      Kind = 60
	KindBind        Kind = 61

	KindSync      Kind = 64
	KindGate      Kind = 65
	KindStartGate Kind = 66
	KindHook      Kind = 67

	KindCapBound    Kind = 72
	KindUser        Kind = 73
	KindCapSet      Kind = 74
	KindNoNewPrivs  Kind = 75
	KindSeccomp     Kind = 76
	KindUmask       Kind = 77
	KindChdir       Kind = 78
	KindPersonality Kind = 79
	KindLabel       Kind = 80

	KindSweep Kind = 88
	KindExec  Kind = 89
)

// String names the kind as it is spelled in the shim's header.
func (k Kind) String() string {
	if n, ok := kindName(k); ok {
		return n
	}
	return fmt.Sprintf("operation kind %d", uint16(k))
}

func kindName(k Kind) (string, bool) {
	for _, n := range kindNames {
		if n.kind == k {
			return n.name, true
		}
	}
	return "", false
}

var kindNames = [...]struct {
	kind Kind
	name string
}{
	{KindMonitor, "monitor"}, {KindShimCgroup, "shim-cgroup"}, {KindLock, "lock"},
	{KindRecord, "record"}, {KindListen, "listen"}, {KindLog, "log"},
	{KindOOMCounter, "oom-counter"}, {KindJoin, "join"}, {KindUnshare, "unshare"},
	{KindClone, "clone"}, {KindProcWrite, "proc-write"}, {KindCgroup, "cgroup"},
	{KindRlimit, "rlimit"}, {KindPropagation, "propagation"}, {KindRoot, "root"},
	{KindAttach, "attach"}, {KindFilesystem, "filesystem"}, {KindNode, "node"},
	{KindSymlink, "symlink"},
	{KindSetAttr, "set-attr"}, {KindPivot, "pivot"}, {KindHostname, "hostname"},
	{KindDomainname, "domainname"}, {KindSysctl, "sysctl"}, {KindMask, "mask"},
	{KindReadOnly, "read-only"}, {KindLinkUp, "link-up"}, {KindConsole, "console"},
	{KindSync, "sync"}, {KindGate, "gate"}, {KindCapBound, "cap-bound"},
	{KindUser, "user"}, {KindCapSet, "cap-set"}, {KindNoNewPrivs, "no-new-privs"},
	{KindSeccomp, "seccomp"}, {KindUmask, "umask"}, {KindChdir, "chdir"},
	{KindPersonality, "personality"}, {KindSweep, "sweep"}, {KindExec, "exec"},
	{KindLeave, "leave"}, {KindDeadline, "deadline"}, {KindLogPolicy, "log-policy"}, {KindOwner, "owner"},
	{KindAffinity, "affinity"}, {KindScheduler, "scheduler"}, {KindIOPriority, "io-priority"},
	{KindMemoryPolicy, "memory-policy"}, {KindKeyring, "keyring"}, {KindMoveRoot, "move-root"},
	{KindPty, "pty"}, {KindStartGate, "start-gate"}, {KindHook, "hook"}, {KindLabel, "label"},
	{KindRootHere, "root-here"}, {KindChroot, "chroot"}, {KindBind, "bind"},
}
