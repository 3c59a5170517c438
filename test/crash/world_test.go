package crash

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/test/rig"
)

// limit bounds what a single wait may take: far more than anything needs.
const limit = 30 * time.Second

// world is an engine with an image, ready to be hurt.
type world struct {
	t *testing.T
	*rig.Engine
	client *rig.Client
	empty  rig.Inventory // with the image and the network, without containers
	lost   int           // runs whose shim was killed under them
}

func newWorld(t *testing.T, o rig.Options) *world {
	t.Helper()
	e, err := rig.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, Engine: e}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.Account())
		}
		if err := e.Close(); err != nil {
			t.Errorf("take the engine away: %v", err)
		}
	})
	w.connect()
	return w
}

// within is a context for one act.
func (w *world) within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) connect() {
	w.t.Helper()
	if w.client != nil {
		_ = w.client.Close() // lost with the engine
	}
	var err error
	w.client, err = w.Dial(w.within())
	w.must(err)
}

// load loads the image.
func (w *world) load() {
	w.t.Helper()
	w.must(w.client.Load(w.within(), os.Getenv(archiveEnv)))
}

// takeStock runs a container, so that everything is there that stays, and takes
// stock.
func (w *world) takeStock() {
	w.t.Helper()
	c := w.container("exit 0")
	w.must(w.client.Do(w.within(), c))
	w.gone(c.ID)
	w.must(w.client.Settle(w.within()))
	var err error
	w.empty, err = w.AtRest(w.within())
	w.must(err)
}

func (w *world) inventory() rig.Inventory {
	w.t.Helper()
	v, err := w.Inventory()
	w.must(err)
	return v
}

// container is a command for one that runs a script on the bridge.
func (w *world) container(script string) *core.CreateContainer {
	id := rig.NewID()
	return &core.CreateContainer{
		ID: core.ContainerID(id), Name: "c" + id[:8], Image: rig.Busybox, Want: core.Running,
		Spec: core.Spec{Process: core.Process{Cmd: []string{"sh", "-c", script}}},
	}
}

// gone removes a container and waits until it is not there any more.
func (w *world) gone(id core.ContainerID) {
	w.t.Helper()
	w.must(w.client.Do(w.within(), &core.RemoveContainer{ID: id, Force: true}))
}

// restart starts the engine again after it was killed or stopped.
func (w *world) restart() {
	w.t.Helper()
	w.must(w.Start())
	w.connect()
}

// ended waits until a container's run has ended and nothing is owed; k, if there
// is one, may strike meanwhile.
func (w *world) ended(id core.ContainerID, k *struck) query.ContainerDetail {
	w.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		d, err := w.client.Container(w.within(), string(id))
		if err == nil && !d.Running && d.Want != core.Running {
			if err = w.client.Settle(w.within()); err == nil {
				d, err = w.client.Container(w.within(), string(id))
			}
			if err == nil {
				return d
			}
		}
		if err != nil && k != nil {
			w.regain(k, err)
		} else {
			w.must(err)
		}
		if time.Now().After(end) {
			w.t.Fatalf("container %.12s does not end: %+v", id, d)
		}
	}
}

// holds compares the machine with what the containers hold by the list. What
// the kernel takes away behind its caller's back gets a moment.
func (w *world) holds() {
	w.t.Helper()
	list, err := w.client.Containers(w.within())
	w.must(err)
	want := append(rig.Inventory(nil), w.empty...)
	for _, c := range list {
		for _, slot := range c.Holds {
			switch {
			case slot == "rootfs":
				want = append(want, "data graphdriver-overlay/rootfs/"+string(c.ID))
			case slot == "log":
				dir := "data exec-native/" + string(c.ID)
				want = append(want, dir, dir+"/output.log")
			default:
				w.t.Fatalf("container %s rests and holds %s", c.Name, slot)
			}
		}
	}
	w.is(want)
	// Four upper directories, one tree shared by root filesystems, and of logs, cgroups
	// and shims two each; one may be on its way out. A driver that was begun anew makes
	// its own while it still removes those of the one before.
	const most = 12
	n := w.Ahead()
	for end := time.Now().Add(limit); n > most && time.Now().Before(end); n = w.Ahead() {
		time.Sleep(10 * time.Millisecond)
	}
	if n > most {
		w.t.Errorf("drivers have made %d things ahead of demand: they leak", n)
	}
}

// is waits for the machine to be as it is wanted.
func (w *world) is(want rig.Inventory) {
	w.t.Helper()
	if err := w.Becomes(w.within(), want); err != nil {
		w.t.Error(err)
	}
}

// verified verifies the log, which the engine may be writing.
func (w *world) verified() {
	w.t.Helper()
	w.must(w.VerifyLive(w.within()))
}

// busy checks that an inventory taken while a container ran is worth comparing.
func busy(t *testing.T, empty, v rig.Inventory) {
	t.Helper()
	more := rig.Diff(empty, v)
	for _, kind := range []string{
		"+ process gantry-shim", "+ process s", "+ namespace pid", "+ namespace mnt", "+ namespace net", "+ link gv", "+ cgroup ",
		"+ run exec-native/", "+ run net-bridge/", "+ data graphdriver-overlay/rootfs/", "+ data exec-native/",
	} {
		if !strings.Contains("\n"+more, "\n"+kind) {
			t.Errorf("the inventory of a running container has no %q:\n%s", kind, more)
		}
	}
}
