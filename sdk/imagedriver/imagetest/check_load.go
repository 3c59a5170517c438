package imagetest

import (
	"context"
	"os"
	"reflect"
	"slices"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

const (
	nameOne = "docker.io/library/one:1.0"
	nameTwo = "registry.example/some/two:latest"
)

func one() picture { return picture{name: nameOne, layers: []string{"shared", "of one"}} }
func two() picture { return picture{name: nameTwo, layers: []string{"shared", "of two"}} }

func loadChecks() []check {
	return []check{
		{Name: "info", Promise: "Info names the driver.", Run: checkInfo},
		{Name: "load-oci", Promise: "Load of an OCI layout answers with ids, names, layers, configuration, and stores every blob.", Run: checkLoadOCI},
		{Name: "load-docker", Promise: "Load of a docker-archive answers with the same image.", Run: checkLoadDocker},
		{Name: "load-compressed", Promise: "A compressed archive is as good as a plain one.", Run: checkLoadCompressed},
		{Name: "load-several", Promise: "An archive with several images is answered in its order; they share blobs.", Run: checkLoadSeveral},
		{Name: "load-repeated", Promise: "Load may be repeated, and answers the same; List tells the image once.", Run: checkLoadRepeated},
		{Name: "load-platform", Promise: "An image of another platform is found when asked for, and NotFound otherwise.", Run: checkPlatform},
	}
}

func nothing(int64, int64, string) {}

// load loads an archive and ends the check if that fails.
func load(ctx context.Context, b *bench, r imagedriver.Load) []imagedriver.Image {
	b.Helper()
	images, err := b.Driver().Load(ctx, r, nothing)
	if err != nil {
		b.Fatalf("Load: %v", err)
	}
	return images
}

// heldImage is the line of an image in the inventory.
func heldImage(id string) driver.Item { return driver.Item{Kind: "image", Key: id, State: "held"} }

// wantItems compares what List tells with what it should; order is free.
func wantItems(ctx context.Context, b *bench, ids ...string) {
	b.Helper()
	got, err := b.Driver().List(ctx)
	if err != nil {
		b.Fatalf("List: %v", err)
	}
	for _, id := range ids {
		if !slices.Contains(got, heldImage(id)) {
			b.Errorf("List lacks %+v\n\tit tells %+v", heldImage(id), got)
		}
	}
	if len(got) > len(ids) {
		b.Errorf("List has %d items, want %d: %+v", len(got), len(ids), got)
	}
}

// wantImage holds an answer to what was put into the archive.
func wantImage(b *bench, got imagedriver.Image, want made) {
	b.Helper()
	if got.ID != want.id() {
		b.Errorf("the image has id %s, want the digest of its configuration, %s", got.ID, want.id())
	}
	if got.Architecture != want.architecture() || got.OS != "linux" || !got.Created.Equal(stamp()) {
		b.Errorf("the image is for %s/%s, made at %v; want linux/%s at %v", got.OS, got.Architecture, got.Created, want.architecture(), stamp())
	}
	if !slices.Equal(got.Names, []string{want.name}) {
		b.Errorf("the image has the names %q, want %q", got.Names, want.name)
	}
	config := got.Config
	slices.Sort(config.ExposedPorts)
	if !reflect.DeepEqual(config, want.wantConfig()) {
		b.Errorf("the image's configuration is\n\t%+v, want\n\t%+v", config, want.wantConfig())
	}
	if got.Manifest == "" {
		b.Errorf("the image has no manifest digest")
	}
	if len(got.Layers) != len(want.layers) {
		b.Fatalf("the image has %d layers, want %d", len(got.Layers), len(want.layers))
	}
	var size int64
	for i, l := range got.Layers {
		if l.ChainID != want.chain()[i] || l.DiffID != digestOf(want.plain[i]) {
			b.Errorf("layer %d has chain id %s and DiffID %s, want %s and %s", i, l.ChainID, l.DiffID, want.chain()[i], digestOf(want.plain[i]))
		}
		wantBlob(b, l)
		size += l.Size
	}
	if got.Size != size {
		b.Errorf("the image has size %d, its layers together %d", got.Size, size)
	}
}

// wantBlob reads a layer's blob as a graph driver would.
func wantBlob(b *bench, l imagedriver.Layer) {
	b.Helper()
	raw, err := os.ReadFile(l.Path)
	if err != nil {
		b.Errorf("read the blob of a layer: %v", err)
		return
	}
	if digestOf(raw) != l.Digest || int64(len(raw)) != l.Size {
		b.Errorf("the blob at %s has %d bytes and digest %s, want %d and %s", l.Path, len(raw), digestOf(raw), l.Size, l.Digest)
	}
	if l.MediaType == "" {
		b.Errorf("the layer %s has no media type", l.Digest)
	}
}

func checkInfo(ctx context.Context, b *bench) {
	info, err := b.Driver().Info(ctx)
	if err != nil {
		b.Fatalf("Info: %v", err)
	}
	if info.Name == "" || info.Version == "" {
		b.Errorf("Info has no name or no version: %+v", info)
	}
}

// wantOne loads an archive that holds the one image.
func wantOne(ctx context.Context, b *bench, r imagedriver.Load, want made) {
	b.Helper()
	images := load(ctx, b, r)
	if len(images) != 1 {
		b.Fatalf("Load found %d images, want 1: %+v", len(images), images)
	}
	wantImage(b, images[0], want)
	wantItems(ctx, b, want.id())
}

func checkLoadOCI(ctx context.Context, b *bench) {
	m := one().build(b)
	wantOne(ctx, b, saveOCI(b, m), m)
	if got := load(ctx, b, saveOCI(b, m))[0]; got.Manifest != digestOf(m.manifest.data) {
		b.Errorf("the image has manifest %s, want %s", got.Manifest, digestOf(m.manifest.data))
	}
}

func checkLoadDocker(ctx context.Context, b *bench) {
	m := one().build(b)
	wantOne(ctx, b, save(b, packTar(b, dockerMembers(b, m))), m)
}

func checkLoadCompressed(ctx context.Context, b *bench) {
	m := one().build(b)
	wantOne(ctx, b, save(b, compress(packTar(b, ociMembers(b, m)))), m)
	wantOne(ctx, b, save(b, compress(packTar(b, dockerMembers(b, m)))), m)
}

func checkLoadSeveral(ctx context.Context, b *bench) {
	first, second := one().build(b), two().build(b)
	images := load(ctx, b, saveOCI(b, second, first))
	if len(images) != 2 {
		b.Fatalf("Load found %d images, want 2", len(images))
	}
	wantImage(b, images[0], second)
	wantImage(b, images[1], first)
	wantItems(ctx, b, first.id(), second.id())
}

func checkLoadRepeated(ctx context.Context, b *bench) {
	m := one().build(b)
	r := saveOCI(b, m)
	first := load(ctx, b, r)
	for _, when := range []string{"repeated", "after a restart"} {
		if again := load(ctx, b, r); !reflect.DeepEqual(again, first) {
			b.Errorf("Load answered\n\t%+v, %s\n\t%+v", first, when, again)
		}
		wantItems(ctx, b, m.id())
		b.Reopen()
	}
}

func checkPlatform(ctx context.Context, b *bench) {
	foreign := one()
	foreign.platform = "s390x"
	m := foreign.build(b)
	r := saveOCI(b, m)
	_, err := b.Driver().Load(ctx, r, nothing)
	conform.WantClass(b, "Load without an image for this platform", err, "not-found")
	wantItems(ctx, b)
	r.Platform = "linux/s390x"
	wantOne(ctx, b, r, m)
}
