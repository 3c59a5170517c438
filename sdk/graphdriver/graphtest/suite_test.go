package graphtest

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/layertar"
)

// altered is the reference with some of its methods replaced.
type altered struct {
	*reference
	info    func() (driver.Info, error)
	apply   func(context.Context, graphdriver.ApplyLayer) (graphdriver.Layer, error)
	remove  func(context.Context, string) error
	prepare func(context.Context, graphdriver.PrepareRootfs) ([]driver.Mount, error)
	release func(context.Context, string) error
	diff    func(context.Context, string, io.Writer) error
	changes func(context.Context, string) ([]graphdriver.Change, error)
}

func (a *altered) Changes(ctx context.Context, id string) ([]graphdriver.Change, error) {
	if a.changes != nil {
		return a.changes(ctx, id)
	}
	return a.reference.Changes(ctx, id)
}

func (a *altered) Info(ctx context.Context) (driver.Info, error) {
	if a.info != nil {
		return a.info()
	}
	return a.reference.Info(ctx)
}

func (a *altered) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, p driver.Progress) (graphdriver.Layer, error) {
	if a.apply != nil {
		return a.apply(ctx, r)
	}
	return a.reference.ApplyLayer(ctx, r, p)
}

func (a *altered) RemoveLayer(ctx context.Context, id string) error {
	if a.remove != nil {
		return a.remove(ctx, id)
	}
	return a.reference.RemoveLayer(ctx, id)
}

func (a *altered) PrepareRootfs(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	if a.prepare != nil {
		return a.prepare(ctx, r)
	}
	return a.reference.PrepareRootfs(ctx, r)
}

func (a *altered) ReleaseRootfs(ctx context.Context, id string) error {
	if a.release != nil {
		return a.release(ctx, id)
	}
	return a.reference.ReleaseRootfs(ctx, id)
}

func (a *altered) Diff(ctx context.Context, id string, w io.Writer) error {
	if a.diff != nil {
		return a.diff(ctx, id, w)
	}
	return a.reference.Diff(ctx, id, w)
}

// flaw alters the reference.
func flaw(check, what string, alter func(a *altered)) conform.Flaw[graphdriver.Driver] {
	w := &world{}
	return conform.Flaw[graphdriver.Driver]{Check: check, What: what, Open: func(c driver.Config) (graphdriver.Driver, error) {
		a := &altered{reference: w.open(c)}
		alter(a)
		return a, nil
	}}
}

// forgetful loses its memory at every restart.
func forgetful(check string) conform.Flaw[graphdriver.Driver] {
	return conform.Flaw[graphdriver.Driver]{Check: check, What: "forgets at a restart",
		Open: func(c driver.Config) (graphdriver.Driver, error) { return newReference(c), nil }}
}

// unpacks makes a flaw of the way a layer is unpacked.
func unpacks(check, what string, options func(graphdriver.ApplyLayer) layertar.Options) conform.Flaw[graphdriver.Driver] {
	return flaw(check, what, func(a *altered) {
		a.apply = func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
			return a.applyWith(ctx, r, options(r))
		}
	})
}

func TestSuite(t *testing.T) {
	w := &world{}
	good := conform.Value(func(c driver.Config) (graphdriver.Driver, error) { return w.open(c), nil })
	conform.Prove(t, Suite(), good, slices.Concat(layerFlaws(), refusalFlaws(), rootfsFlaws(), writtenFlaws()))
}

func TestOverGRPC(t *testing.T) {
	w := &world{}
	Suite().Run(conform.Testing(t), OverGRPC(func(c driver.Config) (graphdriver.Driver, error) { return w.open(c), nil }))
}

func layerFlaws() []conform.Flaw[graphdriver.Driver] {
	return []conform.Flaw[graphdriver.Driver]{
		flaw("info", "has no version", func(a *altered) {
			a.info = func() (driver.Info, error) { return driver.Info{Name: "x"}, nil }
		}),
		flaw("apply", "answers no size", func(a *altered) {
			a.apply = func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
				l, err := a.reference.ApplyLayer(ctx, r, nothing)
				l.Size = 0
				return l, err
			}
		}),
		flaw("apply", "loses modes", func(a *altered) {
			a.apply = func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
				l, err := a.reference.ApplyLayer(ctx, r, nothing)
				os.Chmod(filepath.Join(a.dir(r.ID), "bin/tool"), 0o755)
				return l, err
			}
		}),
		flaw("apply-plain", "wants gzip", func(a *altered) {
			a.apply = func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
				if r.MediaType != mediaGzip {
					return graphdriver.Layer{}, driver.Errorf(errdefs.ErrInvalidArgument, "media type %s", r.MediaType)
				}
				return a.reference.ApplyLayer(ctx, r, nothing)
			}
		}),
		unpacks("apply-on-parent", "keeps whiteouts as they are", func(r graphdriver.ApplyLayer) layertar.Options {
			return layertar.Options{Whiteouts: layertar.Overlay, Digest: r.Digest, DiffID: r.DiffID}
		}),
		flaw("apply-repeated", "refuses a repeat", func(a *altered) {
			a.apply = func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
				if _, ok := a.layers[r.ID]; ok {
					return graphdriver.Layer{}, driver.Errorf(errdefs.ErrAlreadyExists, "layer %s is there", r.ID)
				}
				return a.reference.ApplyLayer(ctx, r, nothing)
			}
		}),
		flaw("apply-again-without-archive", "opens the archive first", func(a *altered) {
			a.apply = func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
				if _, err := os.Stat(r.Archive); err != nil {
					return graphdriver.Layer{}, err
				}
				return a.reference.ApplyLayer(ctx, r, nothing)
			}
		}),
		flaw("remove-layer", "refuses what is not held", func(a *altered) {
			a.remove = func(ctx context.Context, id string) error {
				if _, ok := a.layers[id]; !ok {
					return driver.Errorf(errdefs.ErrNotFound, "layer %s", id)
				}
				return a.reference.RemoveLayer(ctx, id)
			}
		}),
		flaw("remove-layer-in-use", "removes what is in use", func(a *altered) {
			a.remove = func(_ context.Context, id string) error {
				delete(a.layers, id)
				return os.RemoveAll(a.dir(id))
			}
		}),
	}
}

func refusalFlaws() []conform.Flaw[graphdriver.Driver] {
	return []conform.Flaw[graphdriver.Driver]{
		unpacks("apply-wrong-digest", "does not compare digests", func(r graphdriver.ApplyLayer) layertar.Options {
			return layertar.Options{Whiteouts: layertar.Apply, DiffID: r.DiffID}
		}),
		unpacks("apply-wrong-diff-id", "does not compare DiffIDs", func(r graphdriver.ApplyLayer) layertar.Options {
			return layertar.Options{Whiteouts: layertar.Apply, Digest: r.Digest}
		}),
		flaw("apply-truncated", "calls it Internal", func(a *altered) { a.apply = a.classless }),
		flaw("apply-no-parent", "calls it Internal", func(a *altered) { a.apply = a.classless }),
		flaw("apply-hostile-names", "calls it Internal", func(a *altered) { a.apply = a.classless }),
		flaw("apply-hostile-names", "follows the names", func(a *altered) { a.apply = a.naive }),
		flaw("apply-through-links", "follows the links", func(a *altered) { a.apply = a.naive }),
		forgetful("restart"), forgetful("prepare-repeated"),
		flaw("killed", "lists what no release removes", func(a *altered) {
			a.remove = func(context.Context, string) error { return nil }
		}),
		flaw("cancelled", "believes a cancelled layer complete", func(a *altered) { a.apply = a.hasty }),
		flaw("same-layer-at-once", "fails when asked twice at once", func(a *altered) { a.apply = a.busy() }),
		flaw("side-by-side", "fails when asked twice at once", func(a *altered) { a.apply = a.busy() }),
	}
}

// classless hides every class.
func (a *altered) classless(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
	l, err := a.reference.ApplyLayer(ctx, r, nothing)
	if err != nil {
		err = driver.Errorf(errdefs.ErrInternal, "%s", err.Error())
	}
	return l, err
}

// naive unpacks as a program does that trusts names and links.
func (a *altered) naive(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
	dir := a.dir(r.ID)
	os.MkdirAll(dir, 0o755)
	err := untar(r.Archive, dir)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.layers[r.ID] = layerRecord{r.Parent, graphdriver.Layer{ID: r.ID}}
	return graphdriver.Layer{ID: r.ID}, err
}

// hasty takes what a cancelled call has left for the whole.
func (a *altered) hasty(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
	l, err := a.reference.ApplyLayer(ctx, r, nothing)
	if ctx.Err() != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		os.MkdirAll(a.dir(r.ID), 0o755)
		a.layers[r.ID] = layerRecord{r.Parent, graphdriver.Layer{ID: r.ID}}
	}
	return l, err
}

// busy refuses a call while another one is in it. The first waits for another one.
func (a *altered) busy() func(context.Context, graphdriver.ApplyLayer) (graphdriver.Layer, error) {
	turn, refused := make(chan struct{}, 1), make(chan struct{})
	var once sync.Once
	return func(ctx context.Context, r graphdriver.ApplyLayer) (graphdriver.Layer, error) {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
			select {
			case <-refused:
			case <-ctx.Done(): // nobody comes: the check does not ask side by side
			}
			return a.reference.ApplyLayer(ctx, r, nothing)
		default:
			once.Do(func() { close(refused) })
			return graphdriver.Layer{}, driver.Errorf(errdefs.ErrUnavailable, "another layer is being applied")
		}
	}
}

func rootfsFlaws() []conform.Flaw[graphdriver.Driver] {
	return []conform.Flaw[graphdriver.Driver]{
		flaw("prepare", "mounts something itself", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				mounts, err := a.reference.PrepareRootfs(ctx, r)
				unix.Mount(a.dir(r.Container), a.dir(r.Container), "", unix.MS_BIND, "")
				return mounts, err
			}
			a.release = func(ctx context.Context, id string) error {
				unix.Unmount(a.dir(id), unix.MNT_DETACH)
				return a.reference.ReleaseRootfs(ctx, id)
			}
		}),
		flaw("prepare", "mounts read-only", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				mounts, err := a.reference.PrepareRootfs(ctx, r)
				mounts[0].Options = append(mounts[0].Options, "ro")
				return mounts, err
			}
		}),
		flaw("prepare-empty", "needs a layer", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				if r.Layer == "" {
					return nil, driver.Errorf(errdefs.ErrInvalidArgument, "no layer")
				}
				return a.reference.PrepareRootfs(ctx, r)
			}
		}),
		flaw("prepare-repeated", "prepares anew", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				a.ReleaseRootfs(ctx, r.Container)
				return a.reference.PrepareRootfs(ctx, r)
			}
		}),
		flaw("prepare-targets", "makes none", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				r.Targets = nil
				return a.reference.PrepareRootfs(ctx, r)
			}
		}),
		flaw("prepare-id-map", "calls it Internal", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				if !r.IDMap.IsZero() {
					return nil, driver.Errorf(errdefs.ErrInternal, "cannot map")
				}
				return a.reference.PrepareRootfs(ctx, r)
			}
		}),
	}
}

func writtenFlaws() []conform.Flaw[graphdriver.Driver] {
	return []conform.Flaw[graphdriver.Driver]{
		flaw("rootfs-apart", "gives out the layer itself", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				mounts, err := a.reference.PrepareRootfs(ctx, r)
				mounts[0].Source = a.dir(r.Layer)
				return mounts, err
			}
		}),
		flaw("release", "keeps what was written", func(a *altered) {
			a.release = func(_ context.Context, id string) error {
				a.mu.Lock()
				defer a.mu.Unlock()
				delete(a.rootfs, id)
				return nil
			}
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				if _, err := os.Stat(a.dir(r.Container)); err == nil {
					a.rootfs[r.Container] = r.Layer
				}
				return a.reference.PrepareRootfs(ctx, r)
			}
		}),
		flaw("release", "refuses what is not held", func(a *altered) {
			a.release = func(ctx context.Context, id string) error {
				if _, ok := a.rootfs[id]; !ok {
					return driver.Errorf(errdefs.ErrNotFound, "container %s", id)
				}
				return a.reference.ReleaseRootfs(ctx, id)
			}
		}),
		flaw("diff", "tells the mount points", func(a *altered) {
			a.prepare = func(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
				mounts, err := a.reference.PrepareRootfs(ctx, r)
				a.targets[r.Container] = nil
				return mounts, err
			}
		}),
		flaw("diff", "ends early", func(a *altered) {
			a.diff = func(ctx context.Context, id string, w io.Writer) error {
				var all strings.Builder
				if err := a.reference.Diff(ctx, id, &all); err != nil {
					return err
				}
				_, err := io.WriteString(w, all.String()[:all.Len()/2])
				return err
			}
		}),
		flaw("changes", "leaves out the directories above", func(a *altered) {
			a.changes = func(ctx context.Context, id string) ([]graphdriver.Change, error) {
				all, err := a.reference.Changes(ctx, id)
				return slices.DeleteFunc(all, func(c graphdriver.Change) bool { return c.Kind == "C" && c.Path == "/etc" }), err
			}
		}),
		flaw("diff-of-nothing", "is empty for what is not held", func(a *altered) {
			a.diff = func(context.Context, string, io.Writer) error { return nil }
		}),
	}
}
