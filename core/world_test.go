package core

import (
	"fmt"
	"strings"
	"testing"
)

// world is what drivers and kernel would hold: a set of things by key, changed
// by steps alone. It checks what no driver would forgive.
type world struct {
	t    testing.TB
	held map[string]bool
	// stubborn containers outlive SIGTERM.
	stubborn map[ContainerID]bool
	images   []LoadedImage          // what the next archive holds
	stuck    map[ContainerID]bool   // could not be thawed
	exited   func(ContainerID) bool // its run has told its end
	ran      map[string]bool        // steps, by their names
}

func newWorld(t testing.TB) *world {
	return &world{t: t, held: map[string]bool{}, stubborn: map[ContainerID]bool{}, ran: map[string]bool{}, stuck: map[ContainerID]bool{}, exited: func(ContainerID) bool { return false }}
}

// heldBy is what the state says is, or may be, held.
func heldBy(s *State) map[string]bool {
	held := map[string]bool{}
	for id, c := range s.Containers {
		if c.Rootfs.State != Absent {
			held["rootfs "+string(id)] = true
		}
		for _, n := range c.Nets {
			if n.State != Absent {
				held[fmt.Sprintf("endpoint %s %s %d", n.Network, id, n.Run)] = true
			}
		}
		if c.UserNS.State != Absent {
			held["userns "+string(id)] = true
		}
		if c.Paused.State != Absent {
			held[fmt.Sprintf("frozen %s %d", id, c.Process.Run)] = true
		}
		if c.Watch.State != Absent {
			held[fmt.Sprintf("watch %s %d", id, c.Watch.Run)] = true
		}
		for _, x := range c.Execs {
			if x.State != Absent {
				held[execKey(id, x.Run, x.ID)] = true
			}
		}
		if c.Process.State != Absent {
			held[fmt.Sprintf("process %s %d", id, c.Process.Run)] = true
		}
		if c.Log.State != Absent {
			held["log "+string(id)] = true
		}
	}
	for id, l := range s.Layers {
		if l.Slot.State != Absent {
			held["layer "+string(id)] = true
		}
	}
	for id, i := range s.Images {
		if i.Store.State != Absent {
			held["image "+string(id)] = true
		}
	}
	for id, n := range s.Networks {
		if n.Slot.State != Absent {
			held["network "+string(id)] = true
		}
	}
	return held
}

func execKey(id ContainerID, run uint64, x ExecID) string {
	return fmt.Sprintf("exec %s %d %s", id, run, x)
}

// acquires and releases say what a step does to the world.
func acquires(st Step) []string {
	switch st := st.(type) {
	case PrepareRootfs:
		return []string{"rootfs " + string(st.Container)}
	case AttachNetwork:
		return []string{fmt.Sprintf("endpoint %s %s %d", st.Network, st.Container, st.Run)}
	case StartProcess:
		return []string{fmt.Sprintf("process %s %d", st.Container, st.Run), "log " + string(st.Container)}
	case StartExec:
		return []string{execKey(st.Container, st.Run, st.Exec)}
	case Freeze:
		return []string{fmt.Sprintf("frozen %s %d", st.Container, st.Run)}
	case WatchHealth:
		return []string{fmt.Sprintf("watch %s %d", st.Container, st.Run)}
	case HoldUserNS:
		return []string{"userns " + string(st.Container)}
	case ApplyLayer:
		return []string{"layer " + string(st.Layer)}
	case CreateNetwork:
		return []string{"network " + string(st.Network)}
	}
	return nil
}

func releases(st Step) []string {
	switch st := st.(type) {
	case ReleaseRootfs:
		return []string{"rootfs " + string(st.Container)}
	case DetachNetwork:
		return []string{fmt.Sprintf("endpoint %s %s %d", st.Network, st.Container, st.Run)}
	case Thaw:
		return []string{fmt.Sprintf("frozen %s %d", st.Container, st.Run)}
	case UnwatchHealth:
		return []string{fmt.Sprintf("watch %s %d", st.Container, st.Run)}
	case ReleaseUserNS:
		return []string{"userns " + string(st.Container)}
	case ReleaseProcess:
		if st.Exec != "" {
			return []string{execKey(st.Container, st.Run, st.Exec)}
		}
		r := []string{fmt.Sprintf("process %s %d", st.Container, st.Run), fmt.Sprintf("frozen %s %d", st.Container, st.Run)}
		if st.RemoveLog {
			r = append(r, "log "+string(st.Container))
		}
		return r
	case RemoveLog:
		return []string{"log " + string(st.Container)}
	case RemoveLayer:
		return []string{"layer " + string(st.Layer)}
	case RemoveNetwork:
		return []string{"network " + string(st.Network)}
	case RemoveImage:
		return []string{"image " + string(st.Image)}
	case GiveBack:
		switch i := st.Item; i.Kind {
		case "endpoint":
			return []string{fmt.Sprintf("endpoint %s %s %d", i.Network, i.Key, i.Run)}
		case "process":
			if i.Exec != "" {
				return []string{execKey(ContainerID(i.Key), i.Run, ExecID(i.Exec))}
			}
			return []string{fmt.Sprintf("process %s %d", i.Key, i.Run)}
		default:
			return []string{i.Kind + " " + i.Key}
		}
	}
	return nil
}

// do runs a step in the world and says what it brought back.
func (w *world) do(st Step) Result {
	w.check(st)
	w.ran[st.name()] = true
	for _, k := range acquires(st) {
		w.held[k] = true
	}
	for _, k := range releases(st) {
		delete(w.held, k)
	}
	if _, ok := st.(LoadArchive); ok {
		for _, i := range w.images {
			w.held["image "+string(i.ID)] = true
		}
	}
	return w.result(st)
}

// result is what a step brings back.
func (w *world) result(st Step) Result {
	switch st.(type) {
	case PrepareRootfs:
		return Result{Mounts: []Mount{{Type: "overlay", Source: "overlay", Target: "/"}}}
	case AttachNetwork:
		return Result{Endpoint: &Endpoint{Namespace: Namespace{Mode: "path", Path: "/proc/1/fd/3", Inode: 7}, Interface: "eth0"}}
	case StartProcess:
		return Result{Started: &Started{PID: 100, Log: "/log"}}
	case StartExec:
		return Result{Started: &Started{PID: 200}}
	case HoldUserNS:
		return Result{UserNS: &Namespace{Mode: "path", Path: "/proc/1/fd/4", Inode: 8}}
	case LoadArchive:
		return Result{Images: w.images}
	}
	return Result{}
}

// check stops the test when a step is asked for that its neighbours forbid.
func (w *world) check(st Step) {
	need := func(k string) {
		if !w.held[k] {
			w.t.Fatalf("step %s is asked for without %s", st.ID(), k)
		}
	}
	switch st := st.(type) {
	case StartProcess:
		need("rootfs " + string(st.Container))
		if len(st.Rootfs) == 0 || st.Endpoint.Namespace.Mode == "" {
			w.t.Fatalf("step %s lacks its root filesystem or network: %+v", st.ID(), st)
		}
		if st.Spec.Security.UserNS == "private" {
			need("userns " + string(st.Container))
			if len(st.IDMap.UIDs) != 1 || st.UserNS.Path == "" {
				w.t.Fatalf("step %s lacks its user namespace: %+v", st.ID(), st)
			}
		}
		for k := range w.held {
			if strings.HasPrefix(k, "process "+string(st.Container)) && k != fmt.Sprintf("process %s %d", st.Container, st.Run) {
				w.t.Fatalf("step %s is asked for beside %s", st.ID(), k)
			}
		}
	case AttachNetwork:
		need("network " + string(st.Network))
		if st.UserNS.Path != "" {
			need("userns " + string(st.Container))
		}
	case HoldUserNS:
		if len(st.IDMap.UIDs) != 1 || st.IDMap.UIDs[0].Size != IDRange {
			w.t.Fatalf("step %s lacks its ids: %+v", st.ID(), st)
		}
	case StartExec:
		need(fmt.Sprintf("process %s %d", st.Container, st.Run))
		w.alone(st.ID(), "frozen "+string(st.Container))
	case ReleaseUserNS:
		w.alone(st.ID(), "process "+string(st.Container))
		for k := range w.held {
			if f := strings.Fields(k); f[0] == "endpoint" && f[2] == string(st.Container) {
				w.t.Fatalf("step %s takes the user namespace from around %s", st.ID(), k)
			}
		}
	case SignalProcess:
		if st.ID().Verb() == "signal" && st.Signal != sigkill && !w.stuck[st.Container] {
			w.alone(st.ID(), fmt.Sprintf("frozen %s %d", st.Container, st.Run))
		}
	case ApplyLayer:
		if st.Parent != "" {
			need("layer " + string(st.Parent))
		}
	case ReleaseRootfs:
		w.afterEnd(st.ID(), st.Container)
	case DetachNetwork:
		w.afterEnd(st.ID(), st.Container)
	}
}

// afterEnd: what a run has used is given back when its end is known.
func (w *world) afterEnd(id StepID, of ContainerID) {
	if !w.exited(of) {
		w.alone(id, "process "+string(of))
	}
}

// alone stops the test when something is there beside which a step cannot be.
func (w *world) alone(id StepID, prefix string) {
	for k := range w.held {
		if strings.HasPrefix(k, prefix) {
			w.t.Fatalf("step %s is asked for beside %s", id, k)
		}
	}
}

// refusal is why the driver does not start a run, or "": a container that it
// shares namespaces with does not run.
func (w *world) refusal(st Step) string {
	start, ok := st.(StartProcess)
	if !ok {
		return ""
	}
	for _, k := range []*RunKey{start.Shares.PID, start.Shares.IPC, start.Shares.UTS, start.Shares.Network} {
		if k != nil && (k.Run == 0 || !w.held[fmt.Sprintf("process %s %d", k.Container, k.Run)]) {
			return fmt.Sprintf("container %s is not running", k.Container)
		}
	}
	return ""
}

// loaded is a small image with two layers, the lower shared by all.
func loaded(name string) LoadedImage {
	sum := func(s string) string { return fmt.Sprintf("sha256:%064x", []byte(s)) }
	return LoadedImage{
		ID: ImageID(sum("cfg" + name)), Manifest: sum("man" + name), Names: []string{"docker.io/library/" + name + ":latest"},
		Layers: []ImageLayer{
			{ID: LayerID(sum("base")), DiffID: sum("d0"), Digest: sum("b0"), MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Size: 5, Path: "/blobs/base"},
			{ID: LayerID(sum("top" + name)), DiffID: sum("d1" + name), Digest: sum("b1" + name), MediaType: "application/vnd.oci.image.layer.v1.tar", Size: 7, Path: "/blobs/" + name},
		},
		Size: 12, OS: "linux", Architecture: "amd64",
		Config: ImageConfig{Cmd: []string{"sh"}, Env: []Env{{Name: "PATH", Value: "/bin"}}},
	}
}
