// Package driver holds what every kind of driver shares: who it serves, how it
// introduces itself, what it reports as held, and how it tells progress.
//
// A driver is a program of its own, named gantry-<kind>-<name>. It keeps no
// truth: whatever it must remember stands beside the resource itself, under
// the key it was given, and comes back by List. Every method may be called
// again with the same arguments, at any time, also after the driver was
// killed in the middle of the first call; giving back what is not held
// succeeds.
package driver

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// The kinds of drivers. A program named gantry-<kind>-<name> is of that kind.
const (
	KindGraph = "graphdriver"
	KindNet   = "net"
	KindExec  = "exec"
	KindImage = "image"
)

// Config is what the host tells a driver when it starts it, through the
// environment (GANTRY_ENGINE_ID and so on). A driver gets nothing of the
// engine's own environment.
type Config struct {
	EngineID   string // GANTRY_ENGINE_ID: UUID of the engine; the mark of what it owns
	EngineName string // GANTRY_ENGINE_NAME: at most 32 bytes of [a-z0-9-]; names of kernel objects derive from it
	Root       string // GANTRY_DRIVER_ROOT: directory of this driver alone, survives a reboot
	Run        string // GANTRY_DRIVER_RUN: directory of this driver alone, on tmpfs, void after a reboot
	Libexec    string // GANTRY_LIBEXEC: directory of the programs shipped with the engine (gantry-shim)
	Cgroup     string // GANTRY_CGROUP: parent of all cgroups of this engine, relative to each hierarchy's root, e.g. "/gantry"

	Log *slog.Logger // where the driver tells what it does; the host reads it. May be nil: use Logger
}

// Logger is Log, or one that discards.
func (c Config) Logger() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Info introduces a driver.
type Info struct {
	Name      string   // "overlay": the part of the program's name behind the kind
	Version   string   // the driver's own version
	Abilities []string // further interfaces that it implements, e.g. "diff"
	Warnings  []string // what this machine lacks, and what follows; one sentence each
}

// Item is one thing that a driver holds for an engine: a line of its
// inventory. Kind and Key are those of the method that acquired it.
type Item struct {
	Kind      string // "layer", "rootfs", "network", "endpoint", "process", "userns", "image"
	Key       string // layer, network or image id; container id for rootfs, endpoint, process
	Run       uint64 // run of the container; 0 where the kind knows no runs
	Exec      string // of a process: id of the exec that it is; empty for the run's own
	Network   string // of an endpoint: the network's id
	State     string // "held"; of a process also "running", "exited"
	Namespace string // of an endpoint: where its network namespace is now (netdriver.Namespace.Path)
	Inode     uint64 // of an endpoint: inode of that namespace in nsfs
	PID       int    // of a running process: as the host sees it
}

// String is the item in a line, without what it has not.
func (i Item) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "{%s %s", i.Kind, i.Key)
	if i.Run != 0 {
		fmt.Fprintf(&out, " run %d", i.Run)
	}
	if i.Exec != "" {
		fmt.Fprintf(&out, " exec %s", i.Exec)
	}
	if i.Network != "" {
		fmt.Fprintf(&out, " on network %s", i.Network)
	}
	fmt.Fprintf(&out, " %s", i.State)
	if i.Namespace != "" || i.Inode != 0 {
		fmt.Fprintf(&out, " namespace %s inode %d", i.Namespace, i.Inode)
	}
	if i.PID != 0 {
		fmt.Fprintf(&out, " pid %d", i.PID)
	}
	return out.String() + "}"
}

// Progress tells how far a long method has come. It may be called often: it is
// cheap, may drop, and must never block. A method that is silent for 30 s is
// taken for hung.
type Progress func(done, total int64, what string)

// Mount is one mount as data: nobody has mounted it yet. The exec driver turns
// it into a detached mount in the container's own mount namespace, so that a
// crash leaves none behind.
//
// For Type "overlay", Options holds one "lowerdir+=/abs/path" for each lower
// layer from top to bottom, then "upperdir=", "workdir="; for Type "bind",
// Source is the directory or file and Options may hold "ro", "rbind". An overlay
// with OptionIDMap has lower layers that belong to the host's ids: whoever mounts
// it shows them under the container's map.
type Mount struct {
	Type    string
	Source  string
	Target  string // inside the container, absolute; "/" for the root filesystem
	Options []string
}

// OptionIDMap is the word of an overlay whose lower layers are to be mapped.
const OptionIDMap = "idmap"

// IDMapping maps Size ids from Container on to the host's ids from Host on, as
// a line of /proc/PID/uid_map does.
type IDMapping struct {
	Container, Host, Size uint32
}

// IDMap maps a container's user namespace. The zero value is the host's own.
type IDMap struct {
	UIDs, GIDs []IDMapping
}

// IsZero reports whether m is the host's own map.
func (m IDMap) IsZero() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// Equal reports whether two maps are the same, line by line.
func (m IDMap) Equal(other IDMap) bool {
	return slices.Equal(m.UIDs, other.UIDs) && slices.Equal(m.GIDs, other.GIDs)
}

// Target is a mount point that must exist in a root filesystem although the
// image may lack it. It is made where diff and commit do not show it.
type Target struct {
	Path string // absolute, clean, inside the container
	File bool   // an empty file; otherwise a directory, mode 0755
}
