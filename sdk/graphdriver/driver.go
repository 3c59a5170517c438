// Package graphdriver is the contract of drivers that keep layers and compose
// root filesystems of them.
package graphdriver

import (
	"context"
	"io"

	"github.com/gantryd/gantry/sdk/driver"
)

// Driver keeps layers and composes root filesystems.
//
// The life of a layer and of a root filesystem, as the engine drives it:
//
//	ApplyLayer(base)            unpack the lowest layer of an image
//	ApplyLayer(top, on base)    and the one above it
//	PrepareRootfs(c1, on top)   → mounts as data; nothing is mounted
//	  … the container runs, stops, runs again …
//	ReleaseRootfs(c1)           what the container has written is gone
//	RemoveLayer(top), RemoveLayer(base)
//
// Every method may be repeated. A method that fails leaves nothing behind that
// the matching release, called next, does not remove. Error classes (see
// sdk/driver/errors.go) are named at each method; anything else is Internal.
type Driver interface {
	// Info introduces the driver. It never fails because of what is held.
	Info(ctx context.Context) (driver.Info, error)

	// ApplyLayer unpacks a layer on top of its parent. On success the layer
	// is complete and durable; a layer that is already there is answered
	// with what it was when it was made. A half-made layer of an earlier
	// call is made anew.
	//
	// DataLoss: the archive's digest or its DiffID does not match, or it is
	// truncated. InvalidArgument: the archive holds a name or link that
	// would leave the layer. NotFound: the parent is not held.
	// ResourceExhausted: the disk is full.
	ApplyLayer(ctx context.Context, r ApplyLayer, p driver.Progress) (Layer, error)

	// RemoveLayer gives a layer back. The engine never asks it for a layer
	// that another layer or a root filesystem stands on; a driver that sees
	// one all the same answers FailedPrecondition and removes nothing.
	RemoveLayer(ctx context.Context, id string) error

	// PrepareRootfs makes a writable root filesystem for a container and
	// says how to mount it. Repeated, it answers with the same mounts and
	// keeps what the container has written.
	//
	// NotFound: the layer is not held. FailedPrecondition: the container's is
	// held on another layer, or under another id map. Unimplemented: the
	// driver cannot serve the id map.
	PrepareRootfs(ctx context.Context, r PrepareRootfs) ([]driver.Mount, error)

	// ReleaseRootfs removes what the container has written.
	ReleaseRootfs(ctx context.Context, container string) error

	// List tells every layer and root filesystem held for this engine,
	// half-made ones included.
	List(ctx context.Context) ([]driver.Item, error)
}

// Differ is implemented by drivers that can tell what a container has written.
// The ability is "diff".
type Differ interface {
	// Diff writes the container's changes as an OCI layer tar (whiteouts as
	// .wh. files), uncompressed. NotFound: no such root filesystem.
	Diff(ctx context.Context, container string, w io.Writer) error
}

// ApplyLayer asks for a layer to be unpacked.
type ApplyLayer struct {
	ID        string // chain id of the layer ("sha256:…"), its key
	Parent    string // chain id of the layer below; empty for the lowest
	Archive   string // path of the blob, readable by the driver
	Digest    string // digest of the blob as stored
	DiffID    string // digest of the uncompressed tar
	MediaType string // OCI or Docker layer media type; tells the compression
}

// Layer is an unpacked layer.
type Layer struct {
	ID   string
	Size int64 // bytes of regular files in it
}

// PrepareRootfs asks for a container's root filesystem.
type PrepareRootfs struct {
	Container string          // id of the container, the key
	Layer     string          // chain id of the topmost layer; empty for an empty root
	IDMap     driver.IDMap    // user namespace of the container; zero for the host's
	Targets   []driver.Target // mount points that must exist; the image may lack them
}
