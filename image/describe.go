package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image as stored.
type Image struct {
	ID           string    // digest of its configuration
	Manifest     string    // digest of its manifest
	Names        []string  // full references
	Layers       []Layer   // lowest first
	Size         int64     // bytes of all layer archives
	Created      time.Time // zero if the image does not say
	Architecture string
	OS           string
	Config       v1.ImageConfig
	Health       *Health // nil: the image says nothing

	blobs []digest.Digest // configuration and layers
}

// Layer is one layer archive of an image.
type Layer struct {
	ChainID   string // of the stack up to here
	DiffID    string // digest of the tar
	Digest    string // digest of the blob
	MediaType string
	Size      int64 // bytes of the blob
}

// Health is how the image wants a container's health probed. It is Docker's: the
// OCI image specification does not know it, and leaves such fields alone.
type Health struct {
	Test          []string      // "CMD", args…; "CMD-SHELL", line; "NONE"
	Interval      time.Duration // of zero ones the engine's default is taken
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// configuration is an image's, with Docker's own fields in it.
type configuration struct {
	v1.Image
	Config struct {
		v1.ImageConfig
		Healthcheck *Health
	} `json:"config"`
}

// content says in which file the blob of a valid digest is.
type content func(digest.Digest) string

// document reads a small blob, whose digest was verified when it was written.
func (c content) document(d v1.Descriptor) ([]byte, error) {
	if err := c.check(d); err != nil {
		return nil, err
	}
	if d.Size > maxDocument {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "blob %s has %d bytes, more than %d", d.Digest, d.Size, maxDocument)
	}
	raw, err := readBounded(c(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return raw, nil
}

// readBounded reads a document.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "more than %d bytes", maxDocument)
	}
	return raw, nil
}

// check makes sure that a blob is there with the size that is said of it.
func (c content) check(d v1.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "digest %q: %w", clip(string(d.Digest)), err)
	}
	fi, err := os.Stat(c(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return errclass.Errorf(errdefs.ErrDataLoss, "blob %s is missing", d.Digest)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if fi.Size() != d.Size {
		return errclass.Errorf(errdefs.ErrDataLoss, "blob %s has %d bytes, not %d", d.Digest, fi.Size(), d.Size)
	}
	return nil
}

// decode reads a small blob as JSON.
func (c content) decode(d v1.Descriptor, v any) error {
	raw, err := c.document(d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "blob %s: %w", d.Digest, err)
	}
	return nil
}

// describe reads what an image's manifest and configuration say.
func describe(c content, d v1.Descriptor) (Image, error) {
	var m v1.Manifest
	if err := c.decode(d, &m); err != nil {
		return Image{}, fmt.Errorf("manifest: %w", err)
	}
	var config configuration
	if err := c.decode(m.Config, &config); err != nil {
		return Image{}, fmt.Errorf("configuration: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return Image{}, errclass.Errorf(errdefs.ErrInvalidArgument, "configuration %s tells of %d layers, manifest %s of %d", m.Config.Digest, len(config.RootFS.DiffIDs), d.Digest, len(m.Layers))
	}
	img := Image{
		ID: m.Config.Digest.String(), Manifest: d.Digest.String(),
		Architecture: config.Architecture, OS: config.OS, Config: config.Config.ImageConfig, Health: config.Config.Healthcheck,
		blobs: []digest.Digest{m.Config.Digest},
	}
	if config.Created != nil {
		img.Created = *config.Created
	}
	for _, id := range config.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return Image{}, errclass.Errorf(errdefs.ErrInvalidArgument, "configuration %s: DiffID %q: %w", m.Config.Digest, clip(string(id)), err)
		}
	}
	chain := identity.ChainIDs(slices.Clone(config.RootFS.DiffIDs))
	for i, l := range m.Layers {
		if err := c.check(l); err != nil {
			return Image{}, fmt.Errorf("layer %d: %w", i, err)
		}
		img.Layers = append(img.Layers, Layer{ChainID: chain[i].String(), DiffID: config.RootFS.DiffIDs[i].String(),
			Digest: l.Digest.String(), MediaType: l.MediaType, Size: l.Size})
		img.Size += l.Size
		img.blobs = append(img.blobs, l.Digest)
	}
	return img, nil
}

// BlobPath is the file of a layer of an image that is held.
func (s *Store) BlobPath(l Layer) string { return s.content()(digest.Digest(l.Digest)) }

// Ports lists what the image says it listens on, sorted.
func (i Image) Ports() []string { return slices.Sorted(maps.Keys(i.Config.ExposedPorts)) }

// Volumes lists the paths that the image wants volumes at, sorted.
func (i Image) Volumes() []string { return slices.Sorted(maps.Keys(i.Config.Volumes)) }
