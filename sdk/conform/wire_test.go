package conform_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"testing"
	"time"

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

// filled is a T in which every field has a value of its own, so that a field
// which the mapping forgets, or mixes up with another one, shows.
func filled[T any](t *testing.T) T {
	t.Helper()
	var v T
	n := 0
	fill(t, reflect.ValueOf(&v).Elem(), &n)
	return v
}

func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(int64(*n)*1000, int64(*n)).UTC()))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(*n)})))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(*n)}), 24)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("value %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n) + 1<<20)
	case reflect.Uint16:
		v.SetUint(uint64(*n) + 1<<10)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n) + 1<<20)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(fmt.Sprintf("key %d", *n)), reflect.ValueOf(fmt.Sprintf("value %d", *n)))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	default:
		panic("a field of kind " + v.Kind().String() + " is not known here") // maybe on a server's goroutine
	}
}

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

func (c common) Info(context.Context) (driver.Info, error) { return filled[driver.Info](c.t), nil }
func (c common) List(context.Context) ([]driver.Item, error) {
	return filled[[]driver.Item](c.t), nil
}

func checkCommon(t *testing.T, d driver.Common) {
	t.Helper()
	info, err := d.Info(t.Context())
	crossed(t, "Info", info, filled[driver.Info](t))
	items, listErr := d.List(t.Context())
	crossed(t, "List", items, filled[[]driver.Item](t))
	if err != nil || listErr != nil {
		t.Errorf("%v, %v", err, listErr)
	}
}

type graph struct{ common }

func (g graph) ApplyLayer(_ context.Context, r graphdriver.ApplyLayer, _ driver.Progress) (graphdriver.Layer, error) {
	crossed(g.t, "ApplyLayer", r, filled[graphdriver.ApplyLayer](g.t))
	return filled[graphdriver.Layer](g.t), nil
}

func (g graph) PrepareRootfs(_ context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	crossed(g.t, "PrepareRootfs", r, filled[graphdriver.PrepareRootfs](g.t))
	return filled[[]driver.Mount](g.t), nil
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
	layer, err := d.ApplyLayer(t.Context(), filled[graphdriver.ApplyLayer](t), nil)
	crossed(t, "Layer", layer, filled[graphdriver.Layer](t))
	mounts, prepareErr := d.PrepareRootfs(t.Context(), filled[graphdriver.PrepareRootfs](t))
	crossed(t, "mounts", mounts, filled[[]driver.Mount](t))
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
	crossed(n.t, "Network", r, filled[netdriver.Network](n.t))
	return nil
}

func (n network) RemoveNetwork(_ context.Context, id string) error {
	crossed(n.t, "RemoveNetwork", id, "the network")
	return nil
}

func (n network) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	crossed(n.t, "Attach", r, filled[netdriver.Attach](n.t))
	return filled[netdriver.Endpoint](n.t), nil
}

func (n network) Detach(_ context.Context, k netdriver.EndpointKey) error {
	crossed(n.t, "Detach", k, filled[netdriver.EndpointKey](n.t))
	return nil
}

func TestNetworkCrosses(t *testing.T) {
	d := over[netdriver.Driver](t, network{common{t}}, nettest.OverGRPC)
	checkCommon(t, d)
	e, err := d.Attach(t.Context(), filled[netdriver.Attach](t))
	crossed(t, "Endpoint", e, filled[netdriver.Endpoint](t))
	for _, err := range []error{
		err, d.CreateNetwork(t.Context(), filled[netdriver.Network](t)),
		d.RemoveNetwork(t.Context(), "the network"), d.Detach(t.Context(), filled[netdriver.EndpointKey](t)),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

type image struct{ common }

func (i image) Load(_ context.Context, r imagedriver.Load, _ driver.Progress) ([]imagedriver.Image, error) {
	crossed(i.t, "Load", r, filled[imagedriver.Load](i.t))
	return append(filled[[]imagedriver.Image](i.t), imagedriver.Image{ID: "made at no time"}), nil
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
	images, err := d.Load(t.Context(), filled[imagedriver.Load](t), nil)
	crossed(t, "images", images, append(filled[[]imagedriver.Image](t), imagedriver.Image{ID: "made at no time"}))
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
	want := filled[execdriver.Start](p.t)
	want.Exec = "" // a start is a run's: its key on the wire has no place for one
	crossed(p.t, "Start", r, want)
	return filled[execdriver.Started](p.t), nil
}

func (p process) Signal(_ context.Context, k execdriver.Key, signal int) error {
	crossed(p.t, "Signal", k, filled[execdriver.Key](p.t))
	crossed(p.t, "Signal", signal, 15)
	return nil
}

func (p process) Release(_ context.Context, k execdriver.Key) error {
	crossed(p.t, "Release", k, filled[execdriver.Key](p.t))
	return nil
}

func (p process) RemoveLog(_ context.Context, container string) error {
	crossed(p.t, "RemoveLog", container, "the container")
	return nil
}

func (p process) Exits(_ context.Context, f func(execdriver.Exit) error) error {
	return f(filled[execdriver.Exit](p.t))
}

func TestExecCrosses(t *testing.T) {
	d := over[execdriver.Driver](t, process{common{t}}, exectest.OverGRPC)
	checkCommon(t, d)
	s, err := d.Start(t.Context(), filled[execdriver.Start](t))
	crossed(t, "Started", s, filled[execdriver.Started](t))
	told := 0
	exitsErr := d.Exits(t.Context(), func(e execdriver.Exit) error {
		told++
		crossed(t, "Exit", e, filled[execdriver.Exit](t))
		return nil
	})
	for _, err := range []error{
		err, exitsErr, d.Signal(t.Context(), filled[execdriver.Key](t), 15),
		d.Release(t.Context(), filled[execdriver.Key](t)), d.RemoveLog(t.Context(), "the container"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if told != 1 {
		t.Errorf("Exits told %d exits, want 1", told)
	}
}

// A draining driver ends the stream of exits, which has no end of its own.
func TestDrainEndsExits(t *testing.T) {
	cc := connect(t, execdriver.Service(endless{process{common{t}}}))
	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		ended <- execdriver.NewClient(cc).Exits(t.Context(), func(execdriver.Exit) error {
			close(began)
			return nil
		})
	}()
	<-began
	if err := driver.NewClient(cc).Drain(t.Context()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Exits of a draining driver: %v", err)
	}
}

// endless never ends Exits by itself.
type endless struct{ process }

func (e endless) Exits(ctx context.Context, f func(execdriver.Exit) error) error {
	if err := f(execdriver.Exit{}); err != nil {
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
