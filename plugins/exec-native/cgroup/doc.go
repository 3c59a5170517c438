// Package cgroup keeps containers' control groups: it makes them with their
// limits in every hierarchy of the machine, tells what happened in them, ends
// what runs in them and removes them.
//
// Version 1 (one hierarchy for each controller, some mounted together),
// version 2 (one hierarchy) and the hybrid of both are served by the same
// code: a Tree is the list of hierarchies, a Group is one name in all of them.
//
// A runtime's group is anywhere:    tree.Place, Make, Open, Remove   (place.go)
// A driver's are in one directory:  tree.OpenParent, parent.Create   (parent.go, create.go)
//
// Limits come as the runtime specification has them. plan (limits.go and a file
// for each controller) turns them into a list of writes, which is data: which
// file gets which value in which order, and what it must say afterwards. apply.go
// is the loop that writes and reads back; an update that is refused half way is
// written back. Nothing is ignored: a value that the kernel rounds beyond whole
// pages, clamps or does not keep is refused, with the file, the value and what
// the kernel says; a limit that this machine has no controller or no file for
// is refused by name before anything is made. Zero means "not set" where it is
// no possible limit.
//
// A limit goes to version 1 if a hierarchy of it has the controller, else to
// version 2 if it is handed down to groups of that place. From 1 to 2 the
// specification's numbers are converted as runc and crun do: shares to weight
// (Weight), the sum of memory and swap to swap alone, blkio's weight to io's
// (IOWeight), throttles to io.max, device rules to a program (devices_program.go).
//
// Things the kernel does that the code has to know:
//
//   - A version 1 cpuset takes no process before cpus and mems are set. The
//     parents are set once and marked clone_children, so that groups inherit.
//   - Writing a pid to cgroup.procs may wait for an RCU period, ten
//     milliseconds and more while other namespaces are torn down. Writing "0"
//     to the version 1 file "tasks" moves the writing thread alone without
//     that lock (kernel/cgroup/cgroup.c, cgroup_procs_write_start). A process
//     that has one thread is moved whole by it: Entry names that file. Version 2
//     has no such way; clone3 with CLONE_INTO_CGROUP takes the lock for reading
//     alone, so there a process is born in its group.
//   - SIGKILL does nothing to a frozen process of version 1 until it is
//     thawed; version 2 kills frozen ones too.
//   - Limits are rounded down to pages and some are accepted but ignored, so
//     what was written is read back. Version 1 takes a device rule with type
//     "a" for everything, whatever numbers it has, and ignores a rule for a part
//     of another: the first is written as two, the second is refused.
//   - A freezer of version 1 may stay FREEZING; it is thawed and asked again.
//   - Version 1's oom_kill counts in the group where the process was, not in
//     those above.
//   - What a version 2 group's memory.max is lowered to may kill; version 1
//     refuses what it cannot reclaim.
//
// Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst of the
// kernel; the runtime specification, config-linux.md "Control groups".
package cgroup
