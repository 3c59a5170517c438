package conform_test

import (
	"context"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/execdriver/exectest"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/graphdriver/graphtest"
	"github.com/gantryd/gantry/sdk/imagedriver"
	"github.com/gantryd/gantry/sdk/imagedriver/imagetest"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/nettest"
)

// crossed holds what arrived to what was sent.
func crossed[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s crossed the wire as\n\t%+v, sent was\n\t%+v", what, got, want)
	}
}

// over opens d behind a gRPC connection.
func over[D any](t *testing.T, d D, wrap func(func(driver.Config) (D, error)) conform.Open[D]) D {
	t.Helper()
	ct := conform.Testing(t)
	o, err := wrap(func(driver.Config) (D, error) { return d, nil })(ct, conform.NewConfig(ct))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o.Driver
}

// common answers what all kinds share.
type common struct{ t *testing.T }

func (c common) Info(context.Context) (driver.Info, error) { return conform.Filled[driver.Info](), nil }
func (c common) List(context.Context) ([]driver.Item, error) {
	return conform.Filled[[]driver.Item](), nil
}

func checkCommon(t *testing.T, d driver.Common) {
	t.Helper()
	info, err := d.Info(t.Context())
	crossed(t, "Info", info, conform.Filled[driver.Info]())
	items, listErr := d.List(t.Context())
	crossed(t, "List", items, conform.Filled[[]driver.Item]())
	if err != nil || listErr != nil {
		t.Errorf("%v, %v", err, listErr)
	}
}

type graph struct{ common }

func (g graph) ApplyLayer(_ context.Context, r graphdriver.ApplyLayer, _ driver.Progress) (graphdriver.Layer, error) {
	crossed(g.t, "ApplyLayer", r, conform.Filled[graphdriver.ApplyLayer]())
	return conform.Filled[graphdriver.Layer](), nil
}

func (g graph) PrepareRootfs(_ context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	crossed(g.t, "PrepareRootfs", r, conform.Filled[graphdriver.PrepareRootfs]())
	return conform.Filled[[]driver.Mount](), nil
}

func (g graph) RemoveLayer(_ context.Context, id string) error {
	crossed(g.t, "RemoveLayer", id, "the layer")
	return nil
}

func (g graph) ReleaseRootfs(_ context.Context, id string) error {
	crossed(g.t, "ReleaseRootfs", id, "the container")
	return nil
}

func TestGraphCrosses(t *testing.T) {
	d := over[graphdriver.Driver](t, graph{common{t}}, graphtest.OverGRPC)
	checkCommon(t, d)
	layer, err := d.ApplyLayer(t.Context(), conform.Filled[graphdriver.ApplyLayer](), nil)
	crossed(t, "Layer", layer, conform.Filled[graphdriver.Layer]())
	mounts, prepareErr := d.PrepareRootfs(t.Context(), conform.Filled[graphdriver.PrepareRootfs]())
	crossed(t, "mounts", mounts, conform.Filled[[]driver.Mount]())
	for _, err := range []error{err, prepareErr, d.RemoveLayer(t.Context(), "the layer"), d.ReleaseRootfs(t.Context(), "the container")} {
		if err != nil {
			t.Error(err)
		}
	}
	err = d.(graphdriver.Differ).Diff(t.Context(), "c", io.Discard)
	if driver.ClassName(err) != "unimplemented" {
		t.Errorf("Diff of a driver without it: %v", err)
	}
}

type network struct{ common }

func (n network) CreateNetwork(_ context.Context, r netdriver.Network) error {
	crossed(n.t, "Network", r, conform.Filled[netdriver.Network]())
	return nil
}

func (n network) RemoveNetwork(_ context.Context, id string) error {
	crossed(n.t, "RemoveNetwork", id, "the network")
	return nil
}

func (n network) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	crossed(n.t, "Attach", r, conform.Filled[netdriver.Attach]())
	return conform.Filled[netdriver.Endpoint](), nil
}

func (n network) Detach(_ context.Context, k netdriver.EndpointKey) error {
	crossed(n.t, "Detach", k, conform.Filled[netdriver.EndpointKey]())
	return nil
}

func TestNetworkCrosses(t *testing.T) {
	d := over[netdriver.Driver](t, network{common{t}}, nettest.OverGRPC)
	checkCommon(t, d)
	e, err := d.Attach(t.Context(), conform.Filled[netdriver.Attach]())
	crossed(t, "Endpoint", e, conform.Filled[netdriver.Endpoint]())
	for _, err := range []error{
		err, d.CreateNetwork(t.Context(), conform.Filled[netdriver.Network]()),
		d.RemoveNetwork(t.Context(), "the network"), d.Detach(t.Context(), conform.Filled[netdriver.EndpointKey]()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

type image struct{ common }

func (i image) Load(_ context.Context, r imagedriver.Load, _ driver.Progress) ([]imagedriver.Image, error) {
	crossed(i.t, "Load", r, conform.Filled[imagedriver.Load]())
	return append(conform.Filled[[]imagedriver.Image](), imagedriver.Image{ID: "made at no time"}), nil
}

func (i image) Name(_ context.Context, id string, names []string) error {
	crossed(i.t, "Name", append(names, id), []string{"one", "two", "the image"})
	return nil
}

func (i image) Remove(_ context.Context, id string) error {
	crossed(i.t, "Remove", id, "the image")
	return nil
}

func TestImageCrosses(t *testing.T) {
	d := over[imagedriver.Driver](t, image{common{t}}, imagetest.OverGRPC)
	checkCommon(t, d)
	images, err := d.Load(t.Context(), conform.Filled[imagedriver.Load](), nil)
	crossed(t, "images", images, append(conform.Filled[[]imagedriver.Image](), imagedriver.Image{ID: "made at no time"}))
	for _, err := range []error{
		err, d.Name(t.Context(), "the image", []string{"one", "two"}), d.Remove(t.Context(), "the image"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

type process struct{ common }

func (p process) Start(_ context.Context, r execdriver.Start) (execdriver.Started, error) {
	want := conform.Filled[execdriver.Start]()
	want.Exec = "" // a start is a run's: its key on the wire has no place for one
	crossed(p.t, "Start", r, want)
	return conform.Filled[execdriver.Started](), nil
}

func (p process) Signal(_ context.Context, k execdriver.Key, signal int) error {
	crossed(p.t, "Signal", k, conform.Filled[execdriver.Key]())
	crossed(p.t, "Signal", signal, 15)
	return nil
}

func (p process) Release(_ context.Context, k execdriver.Key) error {
	crossed(p.t, "Release", k, conform.Filled[execdriver.Key]())
	return nil
}

func (p process) RemoveLog(_ context.Context, container string) error {
	crossed(p.t, "RemoveLog", container, "the container")
	return nil
}

func (p process) Exits(_ context.Context, f func(execdriver.Exit) error) error {
	return f(conform.Filled[execdriver.Exit]())
}

func TestExecCrosses(t *testing.T) {
	d := over[execdriver.Driver](t, process{common{t}}, exectest.OverGRPC)
	checkCommon(t, d)
	s, err := d.Start(t.Context(), conform.Filled[execdriver.Start]())
	crossed(t, "Started", s, conform.Filled[execdriver.Started]())
	told := 0
	exitsErr := d.Exits(t.Context(), func(e execdriver.Exit) error {
		told++
		crossed(t, "Exit", e, conform.Filled[execdriver.Exit]())
		return nil
	})
	for _, err := range []error{
		err, exitsErr, d.Signal(t.Context(), conform.Filled[execdriver.Key](), 15),
		d.Release(t.Context(), conform.Filled[execdriver.Key]()), d.RemoveLog(t.Context(), "the container"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if told != 1 {
		t.Errorf("Exits told %d exits, want 1", told)
	}
}

// What strangers name with bytes that are no text crosses, as far as it can be read,
// and does not cost the answer; an error keeps its class.
func TestAnyBytesCross(t *testing.T) {
	d := over[execdriver.Driver](t, strange{process{common{t}}}, exectest.OverGRPC)
	for _, k := range []execdriver.Key{{Container: "bytes"}, {Container: "long"}} {
		if err := d.Signal(t.Context(), k, 15); !errdefs.IsConflict(err) {
			t.Errorf("an error of %s: %v", k.Container, driver.ClassName(err))
		}
	}
	tasks, err := d.(execdriver.Meter).Processes(t.Context(), execdriver.Key{})
	if err != nil || len(tasks) != 1 || tasks[0].Name != "a\uFFFD" || tasks[0].Args[0] != "b\uFFFD" {
		t.Errorf("processes: %+v %v", tasks, err)
	}
	stats, err := d.(execdriver.Meter).Stats(t.Context(), nil)
	if err != nil || len(stats) != 1 || stats[0].Interfaces[0].Name != "eth\uFFFD" {
		t.Errorf("statistics: %+v %v", stats, err)
	}
	if st, err := d.(execdriver.Copier).Stat(t.Context(), execdriver.Copy{}); err != nil || st.Link != "/l\uFFFD" {
		t.Errorf("stat: %+v %v", st, err)
	}
	g := over[graphdriver.Driver](t, strangeFiles{graph{common{t}}}, graphtest.OverGRPC)
	if got, err := g.(graphdriver.Changer).Changes(t.Context(), "c"); err != nil || len(got) != 1 || got[0].Path != "/f\uFFFD" {
		t.Errorf("changes: %+v %v", got, err)
	}
}

// strange tells of names that are no text.
type strange struct{ process }

func (strange) Signal(_ context.Context, k execdriver.Key, _ int) error {
	if k.Container == "long" { // cut in the middle of a letter
		return driver.Errorf(errdefs.ErrConflict, "%s", strings.Repeat("a", 4092)+"öööö")
	}
	return driver.Errorf(errdefs.ErrConflict, "file \xff")
}

func (strange) Processes(context.Context, execdriver.Key) ([]execdriver.Task, error) {
	return []execdriver.Task{{Name: "a\xff", Args: []string{"b\xfe"}}}, nil
}

func (strange) Stats(context.Context, []execdriver.Key) ([]execdriver.Stats, error) {
	return []execdriver.Stats{{Interfaces: []execdriver.InterfaceStats{{Name: "eth\xff"}}}}, nil
}

func (strange) Stat(context.Context, execdriver.Copy) (execdriver.PathStat, error) {
	return execdriver.PathStat{Link: "/l\xff"}, nil
}
func (strange) CopyIn(context.Context, execdriver.Copy) error  { return nil }
func (strange) CopyOut(context.Context, execdriver.Copy) error { return nil }

// strangeFiles tells of a file whose name is no text.
type strangeFiles struct{ graph }

func (strangeFiles) Changes(context.Context, string) ([]graphdriver.Change, error) {
	return []graphdriver.Change{{Kind: "A", Path: "/f\xff"}}, nil
}

// A draining driver ends the streams that have no end of their own, and waits for
// none of them.
func TestDrainEndsWhatIsEndless(t *testing.T) {
	for _, c := range []struct {
		name string
		read func(d *execdriver.Client, told func()) error
	}{
		{"Exits", func(d *execdriver.Client, told func()) error {
			return d.Exits(t.Context(), func(execdriver.Exit) error { told(); return nil })
		}},
		{"OOMs", func(d *execdriver.Client, told func()) error {
			return d.OOMs(t.Context(), func(execdriver.OOM) error { told(); return nil })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cc := connect(t, execdriver.Service(endless{process{common{t}}}))
			ended, began := make(chan error, 1), make(chan struct{})
			go func() { ended <- c.read(execdriver.NewClient(cc), func() { close(began) }) }()
			<-began
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := driver.NewClient(cc).Drain(ctx); err != nil {
				t.Fatalf("Drain: %v", err)
			}
			if err := <-ended; err != nil {
				t.Errorf("the stream of a draining driver: %v", err)
			}
		})
	}
}

// endless never ends its streams by itself.
type endless struct{ process }

func (e endless) Exits(ctx context.Context, f func(execdriver.Exit) error) error {
	if err := f(execdriver.Exit{}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (e endless) OOMs(ctx context.Context, f func(execdriver.OOM) error) error {
	if err := f(execdriver.OOM{}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// connect serves s and connects to it.
func connect(t *testing.T, s driver.Service) *grpc.ClientConn {
	t.Helper()
	var cc *grpc.ClientConn
	open := conform.OverGRPC(
		func(driver.Config) (driver.Common, error) { return s.Common, nil },
		func(driver.Common) driver.Service { return s },
		func(c grpc.ClientConnInterface) driver.Common { cc = c.(*grpc.ClientConn); return driver.NewClient(c) })
	ct := conform.Testing(t)
	o, err := open(ct, conform.NewConfig(ct))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return cc
}
