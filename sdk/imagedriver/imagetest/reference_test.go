package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

// reference is a good image driver with its memory in this process; blobs are
// files below its root. It reads whole archives into memory.
type reference struct {
	root string

	mu     sync.Mutex // guards what follows
	images map[string]imagedriver.Image
}

// world keeps drivers over restarts, by their directory.
type world struct {
	mu      sync.Mutex // guards drivers
	drivers map[string]*reference
}

func (w *world) open(c driver.Config) *reference {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drivers == nil {
		w.drivers = map[string]*reference{}
	}
	if w.drivers[c.Root] == nil {
		w.drivers[c.Root] = newReference(c)
	}
	return w.drivers[c.Root]
}

func newReference(c driver.Config) *reference {
	return &reference{root: c.Root, images: map[string]imagedriver.Image{}}
}

func (d *reference) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "reference", Version: "1"}, nil
}

func dataLoss(format string, args ...any) error {
	return driver.Errorf(errdefs.ErrDataLoss, format, args...)
}

func invalid(format string, args ...any) error {
	return driver.Errorf(errdefs.ErrInvalidArgument, format, args...)
}

// content is the members of an archive by name.
type content map[string][]byte

func readArchive(raw []byte) (content, error) {
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, dataLoss("read the archive: %w", err)
		}
		if raw, err = io.ReadAll(z); err != nil {
			return nil, dataLoss("read the archive: %w", err)
		}
	}
	found := content{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case errors.Is(err, tar.ErrHeader):
			return nil, invalid("no tar: %w", err)
		case err != nil:
			return nil, dataLoss("read the archive: %w", err)
		}
		if found[h.Name], err = io.ReadAll(r); err != nil {
			return nil, dataLoss("read %s: %w", h.Name, err)
		}
	}
}

// blob finds a blob by its digest.
func (c content) blob(digest string) ([]byte, error) {
	raw, ok := c["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
	if !ok || digestOf(raw) != digest {
		return nil, dataLoss("blob %s is missing or another one", digest)
	}
	return raw, nil
}

// source is one image of an archive, not yet stored.
type source struct {
	name             string
	config, manifest []byte
	layers           [][]byte
	media            string
}

type descriptor struct {
	Digest      string
	Annotations map[string]string
}

func (c content) sources() ([]source, error) {
	if raw, ok := c["index.json"]; ok {
		return c.ociSources(raw)
	}
	raw, ok := c["manifest.json"]
	if !ok {
		return nil, invalid("no image archive")
	}
	var list []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, invalid("manifest.json: %w", err)
	}
	var found []source
	for _, m := range list {
		s := source{name: m.RepoTags[0], config: c[m.Config], manifest: c[m.Config], media: "application/vnd.oci.image.layer.v1.tar"}
		for _, l := range m.Layers {
			if c[l] == nil {
				return nil, dataLoss("layer %s is missing", l)
			}
			s.layers = append(s.layers, c[l])
		}
		found = append(found, s)
	}
	return found, nil
}

func (c content) ociSources(raw []byte) ([]source, error) {
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, invalid("index.json: %w", err)
	}
	var found []source
	for _, d := range index.Manifests {
		manifest, err := c.blob(d.Digest)
		if err != nil {
			return nil, err
		}
		var m struct {
			Config descriptor
			Layers []descriptor
		}
		if err := json.Unmarshal(manifest, &m); err != nil {
			return nil, invalid("manifest: %w", err)
		}
		s := source{name: d.Annotations["io.containerd.image.name"], manifest: manifest, media: mediaLayer}
		if s.config, err = c.blob(m.Config.Digest); err != nil {
			return nil, err
		}
		for _, l := range m.Layers {
			layer, err := c.blob(l.Digest)
			if err != nil {
				return nil, err
			}
			s.layers = append(s.layers, layer)
		}
		found = append(found, s)
	}
	return found, nil
}

func (d *reference) path(digest string) string {
	return filepath.Join(d.root, strings.TrimPrefix(digest, "sha256:"))
}

// image says what a source is.
func (d *reference) image(s source) (imagedriver.Image, error) {
	var c struct {
		Architecture, OS string
		Created          time.Time
		Config           struct {
			imagedriver.Config
			ExposedPorts, Volumes map[string]any
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(s.config, &c); err != nil {
		return imagedriver.Image{}, invalid("configuration: %w", err)
	}
	i := imagedriver.Image{
		ID: digestOf(s.config), Manifest: digestOf(s.manifest), Names: []string{s.name},
		Created: c.Created, Architecture: c.Architecture, OS: c.OS, Config: c.Config.Config,
	}
	i.Config.ExposedPorts = slices.Sorted(maps.Keys(c.Config.ExposedPorts))
	i.Config.Volumes = slices.Sorted(maps.Keys(c.Config.Volumes))
	if len(c.RootFS.DiffIDs) != len(s.layers) {
		return i, dataLoss("image %s has %d layers and %d DiffIDs", i.ID, len(s.layers), len(c.RootFS.DiffIDs))
	}
	chain := ""
	for n, raw := range s.layers {
		diffID := c.RootFS.DiffIDs[n]
		if chain = strings.TrimSpace(chain + " " + diffID); n > 0 {
			chain = digestOf([]byte(chain))
		}
		i.Layers = append(i.Layers, imagedriver.Layer{
			ChainID: chain, DiffID: diffID, Digest: digestOf(raw), MediaType: s.media,
			Size: int64(len(raw)), Path: d.path(digestOf(raw)),
		})
		i.Size += int64(len(raw))
	}
	return i, nil
}

func (d *reference) Load(ctx context.Context, r imagedriver.Load, _ driver.Progress) ([]imagedriver.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	raw, err := os.ReadFile(r.Archive)
	if err != nil {
		return nil, err
	}
	members, err := readArchive(raw)
	if err != nil {
		return nil, err
	}
	sources, err := members.sources()
	if err != nil {
		return nil, err
	}
	var images []imagedriver.Image
	for _, s := range sources {
		i, err := d.image(s)
		if err != nil {
			return nil, err
		}
		want := r.Platform
		if want == "" {
			want = "linux/" + runtime.GOARCH
		}
		if i.OS+"/"+i.Architecture != want {
			return nil, driver.Errorf(errdefs.ErrNotFound, "no image for %s", want)
		}
		images = append(images, i)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return images, d.store(images, sources)
}

func (d *reference) store(images []imagedriver.Image, sources []source) error {
	for n, s := range sources {
		for _, raw := range s.layers {
			if err := os.WriteFile(d.path(digestOf(raw)), raw, 0o644); err != nil {
				return err
			}
		}
		d.images[images[n].ID] = images[n]
	}
	return nil
}

func (d *reference) Name(_ context.Context, image string, names []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.images[image]
	if !ok {
		return driver.Errorf(errdefs.ErrNotFound, "image %s is not held", image)
	}
	i.Names = names
	d.images[image] = i
	return nil
}

func (d *reference) Remove(_ context.Context, image string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := d.images[image]
	delete(d.images, image)
	used := map[string]bool{}
	for _, i := range d.images {
		for _, l := range i.Layers {
			used[l.Path] = true
		}
	}
	for _, l := range gone.Layers {
		if !used[l.Path] {
			os.Remove(l.Path)
		}
	}
	return nil
}

func (d *reference) List(context.Context) ([]driver.Item, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var items []driver.Item
	for id := range d.images {
		items = append(items, heldImage(id))
	}
	return items, nil
}
