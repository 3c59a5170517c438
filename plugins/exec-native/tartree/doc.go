// Package tartree turns files of a container into a tar and back. It works by
// descriptor below a root that may be hostile and change meanwhile: no path is
// followed out of it, nothing but regular files is read, and it does not need
// /proc, since its thread may be in the container's own mount namespace.
package tartree
