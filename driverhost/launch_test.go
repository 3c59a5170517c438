package driverhost

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
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

// line is a connection to a driver, as it is.
type line struct{ err error }

func (l line) Drain(context.Context) error          { return l.err }
func (l line) Cancel(context.Context, string) error { return l.err }

// TestAnEndIsSeenLate: the connection of a driver that dies ends first. Its end is waited
// for, but not that of one that still answers.
func TestAnEndIsSeenLate(t *testing.T) {
	p := &process{launch: &launch{ended: make(chan struct{})}, remote: line{errdefs.ErrUnavailable}}
	time.AfterFunc(3*again, func() { close(p.launch.ended) })
	if !p.died(t.Context()) {
		t.Error("one whose connection has ended is taken to live")
	}
	p = &process{launch: &launch{ended: make(chan struct{})}, remote: line{}}
	if p.died(t.Context()) {
		t.Error("one that answers is taken to be dead")
	}
}
