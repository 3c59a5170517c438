// Package runtime is gantry-oci: containers run from bundles by the commands of
// an OCI runtime, with the flags of runc, so that podman, containerd and BuildKit
// can use it. It works without an engine, and leaves nobody behind: when a
// command has ended, nothing of it is left but the container.
//
//	command line   main.go, flags.go, log.go, one file for each command
//	container      state.go: a directory of mode 0700 below the root, locked by
//	               whoever changes it, gone with the container
//	creation       bundle.go (config.json), prepare.go (descriptors), launch.go
//	               (the shim runs the plan of package oci, and leaves)
//
// A container's directory:
//
//	state.json   what is known of it; written whole by a rename
//	config.json  the bundle's, as it was at the creation; locked until that is over
//	gate         a socket at which the init waits to be started; taken away by
//	             who starts it
//
// A pid is never believed alone: it stands with the process's start time and the
// machine's boot, and is used through a pidfd. An init that is a zombie has
// stopped: its end belongs to whoever is its parent.
package runtime
