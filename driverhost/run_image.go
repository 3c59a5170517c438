package driverhost

import (
	"context"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

func runImage(ctx context.Context, d imagedriver.Driver, st core.Step, p driver.Progress) (core.Result, error) {
	switch st := st.(type) {
	case *core.LoadArchive:
		images, err := d.Load(ctx, imagedriver.Load{Archive: st.Archive, Platform: st.Platform}, p)
		if err != nil {
			return core.Result{}, err
		}
		var r core.Result
		for _, i := range images {
			r.Images = append(r.Images, fromImage(i))
		}
		return r, nil
	case *core.NameImage:
		return core.Result{}, d.Name(ctx, string(st.Image), st.Names)
	case *core.RemoveImage:
		return core.Result{}, d.Remove(ctx, string(st.Image))
	case *core.GiveBack:
		if st.Item.Kind == "image" {
			return core.Result{}, d.Remove(ctx, st.Item.Key)
		}
	}
	return core.Result{}, noRunner(st)
}

func fromImage(i imagedriver.Image) core.LoadedImage {
	l := core.LoadedImage{
		ID: core.ImageID(i.ID), Manifest: i.Manifest, Names: i.Names, Size: i.Size, Created: i.Created,
		Architecture: i.Architecture, OS: i.OS,
		Config: core.ImageConfig{
			User: i.Config.User, Entrypoint: i.Config.Entrypoint, Cmd: i.Config.Cmd, Cwd: i.Config.WorkingDir,
			StopSignal: signalNumber(i.Config.StopSignal), Labels: i.Config.Labels,
			ExposedPorts: i.Config.ExposedPorts, Volumes: i.Config.Volumes,
		},
	}
	if h := i.Config.Health; h != nil && len(h.Test) > 0 {
		l.Config.Health = &core.Health{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for _, e := range i.Config.Env {
		name, value, _ := strings.Cut(e, "=")
		if name != "" {
			l.Config.Env = append(l.Config.Env, core.Env{Name: name, Value: value})
		}
	}
	for _, y := range i.Layers {
		l.Layers = append(l.Layers, core.ImageLayer{
			ID: core.LayerID(y.ChainID), DiffID: y.DiffID, Digest: y.Digest, MediaType: y.MediaType, Size: y.Size, Path: y.Path,
		})
	}
	return l
}

// signalNumber reads "SIGTERM", "TERM" or "15"; 0 for what is none: an image
// with a strange signal is stopped as others are.
func signalNumber(s string) int {
	s = strings.ToUpper(s)
	if n := unix.SignalNum(s); n != 0 {
		return int(n)
	}
	if n := unix.SignalNum("SIG" + s); n != 0 {
		return int(n)
	}
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' || n > 64 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	if n > 64 {
		return 0
	}
	return int(syscall.Signal(n))
}
