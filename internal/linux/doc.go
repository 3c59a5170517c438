// Package linux holds the system calls that more than one driver needs, by
// descriptor: detached mounts, files looked up below a root that may be
// hostile. It decides nothing; errors carry the kernel's errno and what was
// attempted.
//
// Kernels: the mount interface by descriptor is 5.2, openat2 5.6,
// mount_setattr 5.12, several lower layers by name ("lowerdir+") 6.8. What an
// older one lacks shows as ENOSYS or EINVAL; package probe tells it up front.
package linux
