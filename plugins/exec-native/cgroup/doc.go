// Package cgroup keeps containers' control groups: it makes them with their
// limits in every hierarchy of the machine, tells what happened in them, ends
// what runs in them and removes them.
//
// Version 1 (one hierarchy for each controller, some mounted together),
// version 2 (one hierarchy) and the hybrid of both are served by the same
// code: a Tree is the list of hierarchies, a Group is one name in all of them.
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
//     what was written is read back.
//
// Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst of the
// kernel; the runtime specification, config-linux.md "Control groups".
package cgroup
