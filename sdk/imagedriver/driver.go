// Package imagedriver is the contract of drivers that keep image content.
package imagedriver

import (
	"context"
	"time"

	"github.com/gantryd/gantry/sdk/driver"
)

// Driver keeps the content of images: manifests, configurations and layer
// archives, in a store that other tools can read. It unpacks nothing.
//
//	Load(archive)        → the images in it, their blobs verified and stored
//	Name(image, names)   the names others see in the store
//	Remove(image)        its blobs go, except those that other images use
//
// Every method may be repeated.
type Driver interface {
	// Info introduces the driver.
	Info(ctx context.Context) (driver.Info, error)

	// Load reads an OCI layout or docker-archive tar, plain or compressed,
	// verifies every blob it stores and answers with the images found, in
	// the archive's order. Either all of them are stored, or the store is
	// as before.
	//
	// DataLoss: truncated, or a digest does not match (named).
	// InvalidArgument: not an image archive, or hostile names in it.
	// NotFound: no image for this platform. ResourceExhausted: disk full.
	Load(ctx context.Context, r Load, p driver.Progress) ([]Image, error)

	// Name sets the names of an image in the store to exactly these.
	// NotFound: no such image.
	Name(ctx context.Context, image string, names []string) error

	// Remove gives an image back.
	Remove(ctx context.Context, image string) error

	// List tells every image held for this engine.
	List(ctx context.Context) ([]driver.Item, error)
}

// Load asks for an archive to be read.
type Load struct {
	Archive  string // path of the file
	Platform string // "linux/amd64"; empty for this machine's
}

// Image is one image as stored.
type Image struct {
	ID           string    // digest of its configuration ("sha256:…"), the key, as Docker has it
	Manifest     string    // digest of its manifest
	Names        []string  // full references, e.g. "docker.io/library/busybox:latest"
	Layers       []Layer   // lowest first
	Size         int64     // bytes of all layer archives
	Created      time.Time // zero if the image does not say
	Architecture string
	OS           string
	Config       Config
}

// Layer is one layer archive of an image.
type Layer struct {
	ChainID   string // identifies the stack up to here (OCI image specification, "Layer ChainID")
	DiffID    string // digest of the uncompressed tar
	Digest    string // digest of the blob
	MediaType string
	Size      int64  // bytes of the blob
	Path      string // of the blob, absolute, readable by graph drivers
}

// Config is what an image says about running it (OCI image specification,
// "config" of the image configuration).
type Config struct {
	User         string
	Env          []string // NAME=value
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	StopSignal   string
	Labels       map[string]string
	ExposedPorts []string
	Volumes      []string
	Health       *Health // nil: the image says nothing
}

// Health is how the image wants a container's health probed (Docker's HEALTHCHECK);
// zero fields are left to the engine.
type Health struct {
	Test          []string // "CMD", args…; "CMD-SHELL", line; "NONE"
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}
