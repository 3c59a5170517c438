package imagetest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

// altered is the reference with some of its methods replaced.
type altered struct {
	*reference
	info   func() (driver.Info, error)
	load   func(context.Context, imagedriver.Load) ([]imagedriver.Image, error)
	name   func(context.Context, string, []string) error
	remove func(context.Context, string) error
}

func (a *altered) Info(ctx context.Context) (driver.Info, error) {
	if a.info != nil {
		return a.info()
	}
	return a.reference.Info(ctx)
}

func (a *altered) Load(ctx context.Context, r imagedriver.Load, p driver.Progress) ([]imagedriver.Image, error) {
	if a.load != nil {
		return a.load(ctx, r)
	}
	return a.reference.Load(ctx, r, p)
}

func (a *altered) Name(ctx context.Context, image string, names []string) error {
	if a.name != nil {
		return a.name(ctx, image, names)
	}
	return a.reference.Name(ctx, image, names)
}

func (a *altered) Remove(ctx context.Context, image string) error {
	if a.remove != nil {
		return a.remove(ctx, image)
	}
	return a.reference.Remove(ctx, image)
}

func flaw(check, what string, alter func(a *altered)) conform.Flaw[imagedriver.Driver] {
	w := &world{}
	return conform.Flaw[imagedriver.Driver]{Check: check, What: what, Open: func(c driver.Config) (imagedriver.Driver, error) {
		a := &altered{reference: w.open(c)}
		alter(a)
		return a, nil
	}}
}

// answers makes a flaw of the images that Load answers.
func answers(check, what string, change func([]imagedriver.Image) []imagedriver.Image) conform.Flaw[imagedriver.Driver] {
	return flaw(check, what, func(a *altered) {
		a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
			images, err := a.reference.Load(ctx, r, nothing)
			if err != nil {
				return nil, err
			}
			return change(slices.Clone(images)), nil
		}
	})
}

// classless hides every class of Load.
func classless(check string) conform.Flaw[imagedriver.Driver] {
	return flaw(check, "calls it Internal", func(a *altered) {
		a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
			images, err := a.reference.Load(ctx, r, nothing)
			if err != nil {
				err = driver.Errorf(errdefs.ErrInternal, "%s", err.Error())
			}
			return images, err
		}
	})
}

// litters leaves a file behind when Load fails.
func litters(check string) conform.Flaw[imagedriver.Driver] {
	return flaw(check, "leaves half of it", func(a *altered) {
		a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
			images, err := a.reference.Load(ctx, r, nothing)
			if err != nil {
				os.WriteFile(filepath.Join(a.root, "half"), []byte(r.Archive), 0o600)
			}
			return images, err
		}
	})
}

func TestSuite(t *testing.T) {
	w := &world{}
	good := conform.Value(func(c driver.Config) (imagedriver.Driver, error) { return w.open(c), nil })
	conform.Prove(t, Suite(), good, append(loadFlaws(), keepFlaws()...))
}

func TestOverGRPC(t *testing.T) {
	w := &world{}
	Suite().Run(conform.Testing(t), OverGRPC(func(c driver.Config) (imagedriver.Driver, error) { return w.open(c), nil }))
}

func loadFlaws() []conform.Flaw[imagedriver.Driver] {
	return []conform.Flaw[imagedriver.Driver]{
		flaw("info", "has no name", func(a *altered) {
			a.info = func() (driver.Info, error) { return driver.Info{Version: "1"}, nil }
		}),
		answers("load-oci", "takes the manifest's digest for the id", func(i []imagedriver.Image) []imagedriver.Image {
			i[0].ID = i[0].Manifest
			return i
		}),
		answers("load-oci", "takes DiffIDs for chain ids", func(i []imagedriver.Image) []imagedriver.Image {
			i[0].Layers = slices.Clone(i[0].Layers)
			i[0].Layers[1].ChainID = i[0].Layers[1].DiffID
			return i
		}),
		answers("load-oci", "loses the entrypoint", func(i []imagedriver.Image) []imagedriver.Image {
			i[0].Config.Entrypoint = nil
			return i
		}),
		answers("load-oci", "answers paths that are not there", func(i []imagedriver.Image) []imagedriver.Image {
			i[0].Layers = slices.Clone(i[0].Layers)
			i[0].Layers[0].Path += ".gone"
			return i
		}),
		answers("load-docker", "forgets the names", func(i []imagedriver.Image) []imagedriver.Image {
			i[0].Names = nil
			return i
		}),
		flaw("load-compressed", "takes no gzip", func(a *altered) {
			a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
				if raw, _ := os.ReadFile(r.Archive); raw[0] == 0x1f {
					return nil, invalid("no tar")
				}
				return a.reference.Load(ctx, r, nothing)
			}
		}),
		answers("load-several", "answers in another order", func(i []imagedriver.Image) []imagedriver.Image {
			slices.Reverse(i)
			return i
		}),
		flaw("load-repeated", "refuses a repeat", func(a *altered) {
			a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
				if len(a.images) > 0 {
					return nil, driver.Errorf(errdefs.ErrAlreadyExists, "the image is there")
				}
				return a.reference.Load(ctx, r, nothing)
			}
		}),
		classless("load-platform"), classless("load-truncated"), classless("load-wrong-digest"),
		classless("load-missing-blob"), classless("load-no-archive"),
		litters("load-truncated"), litters("load-wrong-digest"), litters("load-missing-blob"),
		flaw("load-hostile-names", "unpacks the names as they are", func(a *altered) {
			a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
				raw, _ := os.ReadFile(r.Archive)
				members, _ := readArchive(raw)
				for name, data := range members {
					os.WriteFile(filepath.Join(a.root, name), data, 0o600)
				}
				return a.reference.Load(ctx, r, nothing)
			}
		}),
	}
}

func keepFlaws() []conform.Flaw[imagedriver.Driver] {
	return []conform.Flaw[imagedriver.Driver]{
		flaw("name", "takes an unknown image", func(a *altered) {
			a.name = func(context.Context, string, []string) error { return nil }
		}),
		flaw("name", "loses an image without names", func(a *altered) {
			a.name = func(ctx context.Context, image string, names []string) error {
				if len(names) == 0 {
					return a.reference.Remove(ctx, image)
				}
				return a.reference.Name(ctx, image, names)
			}
		}),
		flaw("remove", "refuses what is not held", func(a *altered) {
			a.remove = func(ctx context.Context, image string) error {
				if _, ok := a.images[image]; !ok {
					return driver.Errorf(errdefs.ErrNotFound, "image %s", image)
				}
				return a.reference.Remove(ctx, image)
			}
		}),
		flaw("remove", "leaves the blobs", func(a *altered) {
			a.remove = func(_ context.Context, image string) error {
				delete(a.images, image)
				return nil
			}
		}),
		flaw("remove-shared", "removes what others use", func(a *altered) {
			a.remove = func(_ context.Context, image string) error {
				for _, l := range a.images[image].Layers {
					os.Remove(l.Path)
				}
				delete(a.images, image)
				return nil
			}
		}),
		{Check: "restart", What: "forgets at a restart", Open: func(c driver.Config) (imagedriver.Driver, error) {
			return newReference(c), nil
		}},
		flaw("cancelled", "believes a cancelled load complete", func(a *altered) {
			a.load = func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
				images, err := a.reference.Load(context.WithoutCancel(ctx), r, nothing)
				if ctx.Err() != nil {
					for _, i := range images {
						os.Remove(i.Layers[0].Path)
					}
					a.load = func(context.Context, imagedriver.Load) ([]imagedriver.Image, error) { return images, nil }
				}
				return images, err
			}
		}),
		flaw("side-by-side", "fails when asked twice at once", func(a *altered) { a.load = a.busy() }),
	}
}

// busy refuses a call while another one is in it. The first waits for another one.
func (a *altered) busy() func(context.Context, imagedriver.Load) ([]imagedriver.Image, error) {
	turn, refused := make(chan struct{}, 1), make(chan struct{})
	var once sync.Once
	return func(ctx context.Context, r imagedriver.Load) ([]imagedriver.Image, error) {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
			select {
			case <-refused:
			case <-ctx.Done(): // nobody comes: the check does not ask side by side
			}
			return a.reference.Load(ctx, r, nothing)
		default:
			once.Do(func() { close(refused) })
			return nil, driver.Errorf(errdefs.ErrUnavailable, "another archive is being loaded")
		}
	}
}
