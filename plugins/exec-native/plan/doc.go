// Package plan is the language between the exec driver and gantry-shim: a
// flat, versioned, bounded list of operations that the driver computes from a
// specification and the shim runs by plain system calls. It holds the
// operations as Go types, their encoding, the launch of the shim and the
// reports that come back. It decides nothing.
//
// # Starting a shim
//
// The driver makes one SOCK_SEQPACKET socket pair and executes the shim (Start
// does all of this) with
//
//	argv   {"gantry-shim"}, an empty environment, working directory "/"
//	0,1,2  /dev/null
//	3      its end of the pair, the control socket
//
// and no other descriptor. It then sends, on the control socket, first the
// descriptors that the plan names, then the plan:
//
//	message   u32 magic "GSHM", u16 kind, u16 zero, u32 a, u32 b, bytes
//	files     kind 1: a = index of the first, b = how many (≤ 253), SCM_RIGHTS
//	plan      kind 2: a = offset, b = whole length, bytes (≤ 32 KiB) from there
//
//	early     kind 5: a = flags of the clone, b = bits (1 leave, 2 a version 2
//	          cgroup of the shims, 4 one of the container), SCM_RIGHTS
//
//	standby   kind 6: b = bits (2), SCM_RIGHTS: the shims' version 2 cgroup if b says
//	          so, then tasks files of version 1
//
// After standby, if it comes, before all else, the helper leaves and the monitor
// waits in those cgroups; it has said so by a report Shim.
//
// Early comes before files and plan, if at all: the helper then leaves at once (but for a
// plan of Leave), the monitor clones the init and takes files and plan itself,
// into memory that it shares with the init.
//
// The plan's last piece ends the transmission: everything must have been sent
// by then. The driver closes its own copies of the descriptors afterwards; the
// lock above all (see Lock), which the shim alone shall hold.
//
// # Processes
//
//	helper   what was executed: reads and checks the plan, forks the monitor
//	         and leaves with status 0 (the driver reaps it)
//	monitor  its child: own session, own cgroup, holds nothing of the driver's
//	         but the control socket; clones the init and stays until it ends.
//	         This is "the shim"
//	joiner   only where namespaces are joined before the clone (stage 1): a
//	         child of the monitor that joins, clones the init as its own
//	         sibling (CLONE_PARENT) and leaves
//	init     runs stages 4 to 9 and becomes the program
//	writer   only where LogPolicy says so: a child of the monitor that writes
//	         the log out of shared memory
//
// # Without a monitor
//
// A plan that begins with Leave, in Monitor's place, is an OCI runtime's
// (Warm.Leave): the helper is the joiner, clones the init as the driver's own
// child and leaves. The init's reports come straight to the driver, its pid
// before all others; the end of the socket after the exec is told as Running.
// StartGate makes it report Gate and wait for somebody who connects and says
// Continue (OpenGate): the reports go on there. Whoever opens the gate thus hears
// that the program could not be executed. A driver that dies before the gate
// ends the start; there is no parent-death signal. Stage 0 has nothing but
// Leave.
//
// # Stages
//
// Every operation belongs to a stage; stages never go back within a plan.
//
//	0  monitor   settings of the monitor, in the monitor
//	1  join      processors to join from, cgroups, namespaces joined by
//	             descriptor, user first; time offsets
//	2  clone     exactly one Clone
//	3  parent    id maps and other files of /proc/PID, written by the monitor
//	             while the init waits
//	4  child     init: cgroups, then the cgroup namespace, scheduling, ids in a
//	             user namespace
//	5  mounts    init: propagation, root, mounts, nodes, hooks that see the
//	             host's files, pivot
//	6  cover     init: host name, sysctls, masks, read-only paths, links
//	7  gate      init: Sync, Gate or StartGate, hooks
//	8  identity  init: hooks, labels, limits, bounding set, user, capabilities,
//	             no_new_privs, seccomp here when no_new_privs is not wanted
//	9  exec      init: Sweep, working directory, seccomp otherwise, Exec
//
// Sweep takes 0, 1 and 2 (and after Leave what is to be kept), closes everything else, resets signals and tells
// the monitor that from here on the end of the init's socket means that the
// program was executed. Nothing that names a descriptor may follow it.
//
// # Paths
//
// A path inside the container is absolute and holds neither "." nor "..". It
// is resolved below the root given by Root (openat2, RESOLVE_IN_ROOT, no magic
// links), before the pivot as after it. What is missing is made one component
// at a time by descriptor, a symbolic link never followed into a made part. The
// source of Bind alone is a path of the host's.
//
// # Reports
//
// The monitor answers with reports of a fixed size (Report) on the control
// socket, each one message: Shim (it is up, in its cgroup, listening), Init
// (its pid), Sync (it waits for Continue), Listener (the same, once the seccomp
// listener was fetched), Gate (it waits for a client), Running, Warning (an optional operation failed), Error (stage, operation,
// errno: the start failed) and Exited. After Error or Exited it leaves; clients
// that have not yet taken all output keep it a while longer, without lock,
// socket path or record.
//
// # After a driver's death
//
// The monitor goes on without a control socket. A new driver finds the run
// directory's lock held, connects to the attach socket (internal/stdio) with
// a Hello of flag Control, is told state and pid at once and the exit when it
// comes. If the lock is free, the exit record (Record) tells the end. A start
// that waited for Continue at a Sync point is given up with the driver.
//
// # Growth
//
// Numbers are never reused and payloads never change: what is new gets a new
// kind. A shim refuses a plan that holds a kind it does not know, before it
// has done anything (Error, stage 0, ENOSYS). Everything is little-endian.
package plan
