package plan

// RootHere takes the place of Root for a mount that is attached already, in the
// namespace the init stays in. Stage 5, once.
type RootHere struct{ FD FD }

// Chroot makes a directory the root directory: after RootHere in the place of
// Pivot, or (stage 4) of a program that joins a container with the host's mount
// namespace.
type Chroot struct{ FD FD }

// Kind implements Op.
func (RootHere) Kind() Kind { return KindRootHere }

// Kind implements Op.
func (Chroot) Kind() Kind { return KindChroot }

func (o RootHere) put(w *writer) { w.fd(o.FD) }
func (o Chroot) put(w *writer)   { w.fd(o.FD) }
