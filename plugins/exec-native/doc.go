// Package execnative is the exec driver that runs containers with the kernel's
// own means: namespaces, cgroups, seccomp, detached mounts.
//
// One start is computed in three steps, each of which can be read alone:
//
//	specOf   execdriver.Start → OCI runtime specification, with Docker's
//	         defaults (spec.go, default.go); pure
//	open     mounts become detached mounts, cgroups are made, sockets bound
//	         (start.go, rundir.go, packages oci and cgroup)
//	planOf   specification and descriptors → plan (monitor.go, package oci);
//	         pure
//
// Parts that every start needs are made before one is asked for (ahead.go, kit.go,
// warm.go), and what an end leaves goes when nobody waits for it (apart.go). One epoll waits for all running containers (poll.go).
//
// The plan goes to gantry-shim (package plan, folder shim), which runs it and
// stays with the container. The driver keeps no truth: each run has a
// directory (rundir.go) that tells everything after a restart.
package execnative
