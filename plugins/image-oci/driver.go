// Package oci is the image driver that keeps images in an OCI image layout
// (package image has its form), which other tools can read.
package oci

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/gantryd/gantry/image"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

// version is the driver's own.
const version = "0.1.0"

// Driver is the image driver.
type Driver struct {
	store *image.Store
}

var _ imagedriver.Driver = (*Driver)(nil)

// New opens the driver on the directory cfg.Root. The store is in layout/.
func New(cfg driver.Config) (imagedriver.Driver, error) {
	store, err := image.Open(filepath.Join(cfg.Root, "layout"))
	if err != nil {
		return nil, err
	}
	return &Driver{store: store}, nil
}

// Info introduces the driver.
func (d *Driver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "oci", Version: version}, nil
}

// Load reads an archive.
func (d *Driver) Load(ctx context.Context, r imagedriver.Load, p driver.Progress) ([]imagedriver.Image, error) {
	platform := r.Platform
	if platform == "" {
		platform = "linux/" + runtime.GOARCH
	}
	images, err := d.store.Load(ctx, r.Archive, image.LoadOptions{Platform: platform, Progress: p})
	if err != nil {
		return nil, err
	}
	var out []imagedriver.Image
	for _, i := range images {
		out = append(out, d.describe(i))
	}
	return out, nil
}

// describe puts an image into the contract's words.
func (d *Driver) describe(i image.Image) imagedriver.Image {
	out := imagedriver.Image{
		ID: i.ID, Manifest: i.Manifest, Names: i.Names, Size: i.Size, Created: i.Created,
		Architecture: i.Architecture, OS: i.OS,
		Config: imagedriver.Config{
			User: i.Config.User, Env: i.Config.Env, Entrypoint: i.Config.Entrypoint, Cmd: i.Config.Cmd,
			WorkingDir: i.Config.WorkingDir, StopSignal: i.Config.StopSignal, Labels: i.Config.Labels,
			ExposedPorts: i.Ports(), Volumes: i.Volumes(),
		},
	}
	if i.Health != nil {
		health := imagedriver.Health(*i.Health)
		out.Config.Health = &health
	}
	for _, l := range i.Layers {
		out.Layers = append(out.Layers, imagedriver.Layer{
			ChainID: l.ChainID, DiffID: l.DiffID, Digest: l.Digest, MediaType: l.MediaType, Size: l.Size, Path: d.store.BlobPath(l),
		})
	}
	return out
}

// Name sets the names of an image.
func (d *Driver) Name(_ context.Context, id string, names []string) error {
	if err := d.store.Name(id, names); err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	return nil
}

// Remove gives an image back.
func (d *Driver) Remove(_ context.Context, id string) error {
	if err := d.store.Remove(id); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	return nil
}

// List tells every image.
func (d *Driver) List(context.Context) ([]driver.Item, error) {
	var items []driver.Item
	for _, i := range d.store.Images() {
		items = append(items, driver.Item{Kind: "image", Key: i.ID, State: "held"})
	}
	return items, nil
}
