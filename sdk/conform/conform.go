// Package conform runs the contracts of drivers as tests: against a value,
// against the same value behind a real gRPC pair, and against any program.
//
// The suites themselves stand beside the contracts (graphtest, nettest,
// exectest, imagetest). A suite is a list of checks; each check holds one
// promise of the contract, gets a driver of its own with fresh directories, and
// whatever it leaves behind is given back and counted as a fault if the driver
// cannot.
package conform

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
)

// T is what a check needs of its surroundings: go test (see Testing) or the
// report of gantry-conform (see Record).
type T interface {
	// Run runs f as a part with a name of its own and reports whether it
	// succeeded.
	Run(name string, f func(T)) bool
	// Errorf notes a fault and goes on.
	Errorf(format string, args ...any)
	// Fatalf notes a fault and ends the part.
	Fatalf(format string, args ...any)
	// Logf notes what may help to understand a fault.
	Logf(format string, args ...any)
	// TempDir makes a directory with a short path, since a socket's address
	// holds 107 bytes. It is removed at the end of the part.
	TempDir() string
	// Cleanup calls f at the end of the part, last ones first.
	Cleanup(f func())
	// Helper marks the caller as one whose lines are of no interest.
	Helper()
}

// Patience is how long one check may take in all, and the deadline of its
// calls.
const Patience = 60 * time.Second

// Opened is a driver that a check may use, and how to end it.
type Opened[D any] struct {
	Driver D
	Close  func() error // end the driver as the host does
	Kill   func()       // kill it in the middle of what it does; nil where that is not possible
	Exited func() bool  // whether it has ended by itself; nil where that is not possible
}

// Open opens a driver on a configuration, as often as a check wishes.
type Open[D any] func(T, driver.Config) (Opened[D], error)

// Check is one promise of a contract.
type Check[D driver.Common] struct {
	Name    string // words joined by "-"; unique in the suite
	Promise string // what is promised, in a sentence
	Run     func(ctx context.Context, b *Bench[D])
}

// Suite is a contract as a list of checks.
type Suite[D driver.Common] struct {
	Kind   string
	Checks []Check[D]
	// Probe is a call that changes nothing: giving back what is not held.
	Probe func(ctx context.Context, d D) error
	// Sweep gives back everything that List tells.
	Sweep func(ctx context.Context, d D) error
	// Adapt changes the configuration of every check; nil for no change.
	Adapt func(driver.Config) driver.Config
	// After removes what a driver may leave on the machine by its contract,
	// e.g. the engine's parent cgroup; nil for nothing.
	After func(T, driver.Config)
}

// Bench is where one check works: a driver with directories of its own.
type Bench[D driver.Common] struct {
	T
	Config driver.Config
	open   Open[D]
	now    *Opened[D]
	opened bool // at least once: there may be something to give back
}

// Run runs all checks against drivers made by open.
func (s Suite[D]) Run(t T, open Open[D]) {
	t.Helper()
	for _, c := range s.Checks {
		t.Run(c.Name, func(t T) {
			t.Helper()
			t.Logf("promise: %s", c.Promise)
			s.runCheck(t, c, open)
		})
	}
}

func (s Suite[D]) runCheck(t T, c Check[D], open Open[D]) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	b := &Bench[D]{T: t, Config: NewConfig(t), open: open}
	if s.Adapt != nil {
		b.Config = s.Adapt(b.Config)
	}
	if s.After != nil {
		t.Cleanup(func() { s.After(t, b.Config) })
	}
	t.Cleanup(b.Close)
	t.Cleanup(func() { s.sweep(b) })
	c.Run(ctx, b)
}

// sweep gives back what the check has left, so that nothing stays on the
// machine, and holds the driver to the promise that this is possible.
func (s Suite[D]) sweep(b *Bench[D]) {
	if !b.opened {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	d := b.Driver()
	err := s.Sweep(ctx, d)
	if errdefs.IsUnavailable(err) { // it has just died: what it held is another process's now
		awaitExit(b.now.Exited)
		d = b.Driver()
		err = s.Sweep(ctx, d)
	}
	if err != nil {
		b.Errorf("give back what is still held at the end: %v", err)
		return
	}
	left, err := d.List(ctx)
	if err != nil {
		b.Errorf("List at the end: %v", err)
	}
	for _, i := range left {
		b.Errorf("everything was given back, but List still tells %+v", i)
	}
}

// Driver is the open driver; the first call opens it.
func (b *Bench[D]) Driver() D {
	b.Helper()
	if b.now != nil && b.now.Exited != nil && b.now.Exited() {
		b.Errorf("the driver's process has ended by itself")
		b.Close()
	}
	if b.now == nil {
		o, err := b.open(b.T, b.Config)
		if err != nil {
			b.Fatalf("open the driver: %v", err)
		}
		b.now, b.opened = &o, true
	}
	return b.now.Driver
}

// awaitExit waits for the end of a process whose connection has ended: the first may be
// seen long after the second on a busy machine. A nil exited is of what is no process.
func awaitExit(exited func() bool) {
	for end := time.Now().Add(10 * time.Second); exited != nil && !exited() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// Reopen ends the driver and starts it again on the same configuration, as the
// host does after a crash or an update.
func (b *Bench[D]) Reopen() D {
	b.Helper()
	b.Close()
	return b.Driver()
}

// CanKill reports whether the driver is a process that Kill can kill.
func (b *Bench[D]) CanKill() bool {
	b.Driver()
	return b.now.Kill != nil
}

// Kill kills the driver's process in the middle of what it does.
func (b *Bench[D]) Kill() {
	b.now.Kill()
	b.now = nil
}

// Close ends the driver; the next call of Driver starts it again.
func (b *Bench[D]) Close() {
	if b.now == nil {
		return
	}
	err := b.now.Close()
	b.now = nil
	if err != nil {
		b.Errorf("close the driver: %v", err)
	}
}

// NewConfig makes the configuration of an engine that exists for one check
// only.
func NewConfig(t T) driver.Config {
	t.Helper()
	dir := t.TempDir()
	c := driver.Config{
		EngineID:   uuid(),
		EngineName: "conform-" + ID()[:8],
		Root:       filepath.Join(dir, "root"),
		Run:        filepath.Join(dir, "run"),
		Libexec:    os.Getenv(driver.EnvLibexec),
	}
	c.Cgroup = "/" + c.EngineName
	for _, d := range []string{c.Root, c.Run} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatalf("make a directory for the driver: %v", err)
		}
	}
	return c
}

// ID makes an id as the engine makes them for containers and networks: 64
// hexadecimal digits.
func ID() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	return hex.EncodeToString(raw[:])
}

func uuid() string {
	id := ID()
	return fmt.Sprintf("%s-%s-7%s-8%s-%s", id[:8], id[8:12], id[13:16], id[17:20], id[20:32])
}

// tempDir makes a directory with a short path.
func tempDir(t T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gc")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the directories of the driver cannot be removed: %v", err)
		}
	})
	return dir
}
