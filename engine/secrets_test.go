package engine

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/query"
)

const planted = "planted-7f3a-value"

// durable is a world over a journal and keys in directories.
func durable(t *testing.T) (*world, string) {
	w := newWorld(t)
	dir := t.TempDir()
	log, err := eventlog.Open(filepath.Join(dir, "log"), eventlog.Options{Reserve: 1 << 16, Chunk: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	keys, err := DirKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	w.log, w.keys = log, keys
	return w, dir
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSecretsAreNowhereInClear(t *testing.T) {
	w, dir := durable(t)
	var stream bytes.Buffer
	w.open()
	w.e.o.Committed = func(records []eventlog.Record) {
		for _, r := range records {
			stream.Write(FrameOf(r).Payload)
		}
	}
	w.image()
	w.say("container.create", create(1, "web", core.Running, core.Env{Name: "TOKEN", Value: planted}))
	w.settle()
	if _, err := Snapshot(w.log); err != nil {
		t.Fatal(err)
	}
	start := w.host.sentOf("container.start-process")
	if len(start) != 1 || !strings.Contains(string(start[0].Body), planted) {
		t.Fatalf("the driver was not given the value: %s", start[0].Body)
	}
	seen := 0
	for path, data := range files(t, dir) {
		if bytes.Contains(data, []byte(planted)) {
			t.Errorf("%s holds the value", path)
		}
		if bytes.Contains(data, []byte("TOKEN")) {
			seen++
		}
	}
	if seen < 2 { // journal and snapshot
		t.Errorf("only %d files hold the name: the search looks in the wrong place", seen)
	}
	if bytes.Contains(stream.Bytes(), []byte(planted)) || !bytes.Contains(stream.Bytes(), []byte("TOKEN")) {
		t.Error("the stream holds the value, or not the name")
	}
	detail, err := inquire[query.ContainerDetail](w, query.ContainerInspect, query.RefIn{Ref: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(detail); err != nil || bytes.Contains(text, []byte(planted)) {
		t.Errorf("inspect shows the value (%v)", err)
	}
	for _, v := range detail.State.Spec.Process.Env {
		if v.Sealed && v.Value != "" {
			t.Errorf("inspect shows the sealed value of %s", v.Name)
		}
	}
}

func TestAKeyIsDestroyedWithItsContainer(t *testing.T) {
	w, dir := durable(t)
	w.open()
	w.image()
	env := core.Env{Name: "TOKEN", Value: planted}
	w.say("container.create", create(1, "web", core.Stopped, env))
	refused := w.say("container.create", create(2, "web", core.Stopped, env))
	w.settle()
	if !errdefs.IsAlreadyExists(refused.err) {
		t.Fatalf("a taken name: %v", refused.err)
	}
	keys := func() int {
		n := 0
		for path, data := range files(t, filepath.Join(dir, "keys")) {
			n++
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || len(data) != keySize {
				t.Errorf("key %s: %v %v", path, info.Mode(), err)
			}
		}
		return n
	}
	if n := keys(); n != 1 {
		t.Fatalf("%d keys for one container", n)
	}
	w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	if n := keys(); n != 0 {
		t.Errorf("%d keys after the removal", n)
	}
	if err := w.keys.Save(core.ContainerID(hexOf(9)), make([]byte, keySize)); err != nil {
		t.Fatal(err)
	}
	w.open()
	if n := keys(); n != 0 {
		t.Error("a key that belongs to nobody outlived a start")
	}
}

func TestSealedStartSurvivesARestartAndALostKeyFailsIt(t *testing.T) {
	w, _ := durable(t)
	w.open()
	w.image()
	c := create(1, "web", core.Stopped, core.Env{Name: "TOKEN", Value: planted})
	w.say("container.create", c)
	w.settle()
	w.open()
	w.say("container.start", core.StartContainer{ID: c.ID})
	w.settle()
	if start := w.host.sentOf("container.start-process"); len(start) != 1 || !strings.Contains(string(start[0].Body), planted) {
		t.Fatal("after a restart the driver was not given the value")
	}
	w.exit(1, 1, 0)
	w.settle()
	if err := w.keys.Destroy(c.ID); err != nil {
		t.Fatal(err)
	}
	w.say("container.start", core.StartContainer{ID: c.ID})
	w.settle()
	if f := w.container(1).Fault; f == nil || f.Class != "failed-precondition" {
		t.Errorf("a start without its key: %+v", f)
	}
	w.atRest()
}

func TestAClientCannotSeal(t *testing.T) {
	w := newWorld(t)
	w.open()
	o := w.say("container.create", create(1, "web", core.Stopped, core.Env{Name: "A", Value: "x", Sealed: true}))
	w.settle()
	if !errdefs.IsInvalidArgument(o.err) {
		t.Errorf("a value that claims to be sealed: %v", o.err)
	}
}

// TestAnIdThatIsUsedAgainKeepsItsNewKey: the key of a container is destroyed with it,
// but not that of the one which has its id since, though both are of one batch.
func TestAnIdThatIsUsedAgainKeepsItsNewKey(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	secret := core.Env{Name: "PASSWORD", Value: "hidden"}
	w.say("container.create", create(1, "web", core.Running, secret))
	w.settle()
	w.host.hold = func(s bus.Step) bool { return s.Verb == "container.release-rootfs" }
	w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(1)), Force: true})
	w.settle()
	w.exit(1, 1, 137)
	w.settle()
	last := w.only()
	delete(w.host.running, last.ID)
	w.host.hold = func(bus.Step) bool { return false }
	w.host.finish(last)
	again := w.say("container.create", create(1, "web", core.Running, secret))
	w.settle()
	again.ok(t)
	if c := w.container(1); c == nil || !c.Running() {
		t.Fatalf("the second of that id: %+v", c)
	}
}
