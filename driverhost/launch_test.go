package driverhost

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestAnEndedInstanceIsNotEndedAgain: its cgroup's name may be the next instance's by
// then, which would be ended in its place.
func TestAnEndedInstanceIsNotEndedAgain(t *testing.T) {
	c := &cage{dir: t.TempDir(), v2: true}
	if err := os.Mkdir(filepath.Join(c.dir, "net-fake.0"), 0o700); err != nil {
		t.Fatal(err)
	}
	asked := func() bool {
		_, err := os.Stat(filepath.Join(c.dir, "net-fake.0", "cgroup.kill"))
		return !errors.Is(err, fs.ErrNotExist)
	}
	l := &launch{cmd: exec.Command("true"), cage: c, name: "net-fake.0", gone: make(chan struct{})}
	if err := l.cmd.Run(); err != nil {
		t.Fatal(err)
	}
	close(l.gone)
	if err := l.Kill(t.Context()); err != nil || asked() {
		t.Errorf("after its end: %v, its cgroup is asked to end: %v", err, asked())
	}
	l.gone = make(chan struct{}) // what it has left may run
	if err := l.Kill(t.Context()); err != nil || !asked() {
		t.Errorf("before its end: %v, its cgroup is asked to end: %v", err, asked())
	}
}
