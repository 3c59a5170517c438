// Package seccomp compiles seccomp profiles of the OCI runtime specification
// into classic BPF, without libseccomp and without cgo.
//
// A filter begins with the architecture, then finds the number of the system
// call in a binary tree over ranges of numbers with the same answer. Loading
// Docker's 357 names this way takes the kernel a third of the time a linear
// list takes. Numbers above the newest one that the profile names answer
// ENOSYS rather than the profile's default, so that a C library falls back
// instead of giving up on a call that its author could not know.
//
// Sources: the runtime specification (config-linux.md, "Seccomp"), the
// kernel's Documentation/userspace-api/seccomp_filter.rst and
// include/uapi/linux/{seccomp,audit,bpf_common}.h.
package seccomp
