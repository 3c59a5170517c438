package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/driverhost"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/engine/answer"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/hello"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// copyLate is how late the stream's copy of the events may be where nobody reads it.
const copyLate = 30 * time.Second

// uploadLimit bounds one archive that a client sends, in bytes.
const uploadLimit = 64 << 30

// assembly is everything that gantryd runs, in the order it is built.
type assembly struct {
	o         options
	log       *slog.Logger
	journal   *eventlog.Journal
	bus       *server.Server
	publisher *server.Publisher
	engine    *engine.Engine
	host      *driverhost.Host
	settler   *linux.Settler // after events
	rested    *linux.Settler // after they were copied into the stream
	closers   []func()       // the last one first
	lost      chan error     // what this process cannot go on without

	begun   chan struct{} // closed when the engine has started, with all its parts
	tellers sync.Once     // says that the engine answers
}

func (d *assembly) onClose(f func()) { d.closers = append(d.closers, f) }

// close takes everything down again.
func (d *assembly) close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
	d.closers = nil
}

func (d *assembly) root(parts ...string) string {
	return filepath.Join(append([]string{d.o.root}, parts...)...)
}

// answerAfter is how long the start may take before queries are answered without
// waiting for its end. It is that long only when there are very many events.
const answerAfter = 250 * time.Millisecond

// build makes everything; nothing takes turns yet. ctx ends what carries steps.
// The stream of events is compared with the log before anything is decided: it may
// have what the log has lost. With very many events that takes a while, in which
// queries are answered and commands wait.
func (d *assembly) build(ctx context.Context) error {
	if err := inOrder(ctx, d.directories, d.openLog, d.openBus); err != nil {
		return err
	}
	if d.o.events != "" || d.journal.Head().Seq == 0 { // readers of the stream need it; of a new log there is nothing to tell
		return inOrder(ctx, d.openStream, d.loadEngine, d.startEngine, d.openHost)
	}
	if err := d.loadEngine(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- inOrder(ctx, d.openStream, d.startEngine, d.openHost) }()
	select {
	case err := <-done:
		return err
	case <-time.After(answerAfter):
	}
	d.ready()
	return <-done
}

func inOrder(ctx context.Context, acts ...func(context.Context) error) error {
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// directories makes the directories and locks them: one engine for each root,
// and for each name on a machine.
func (d *assembly) directories(context.Context) error {
	if err := os.MkdirAll(d.o.root, 0o711); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := os.MkdirAll(d.o.run, 0o755); err != nil {
		return fmt.Errorf("make the run directory: %w", err)
	}
	for _, l := range []struct{ path, what string }{
		{d.root("lock"), "data directory " + d.o.root},
		{filepath.Join(d.o.run, "lock"), "run directory " + d.o.run},
		{"/run/gantry-engine-" + d.o.name + ".lock", fmt.Sprintf("engine name %q", d.o.name)},
	} {
		unlock, err := lock(l.path, l.what)
		if err != nil {
			return err
		}
		d.onClose(unlock)
	}
	// The image that every engine brings along, for a first container without
	// a registry: gantry load -i <run>/hello.tar.
	if err := os.WriteFile(filepath.Join(d.o.run, "hello.tar"), []byte(hello.Archive()), 0o644); err != nil {
		return fmt.Errorf("put the image hello into the run directory: %w", err)
	}
	return nil
}

func (d *assembly) openLog(context.Context) error {
	journal, err := eventlog.Open(d.root("log"), eventlog.Options{})
	var corrupt *eventlog.CorruptError
	if errors.As(err, &corrupt) {
		return errclass.WithHint(err, fmt.Sprintf("see what is damaged with gantry log verify --root %s, and let gantry log repair --root %s take it from the replica", d.o.root, d.o.root))
	}
	if err != nil {
		return err
	}
	d.journal = journal
	d.onClose(func() {
		if err := journal.Close(); err != nil {
			d.log.Warn("close the event log", "error", err)
		}
	})
	if r := journal.Recovery(); r.CutBytes > 0 {
		d.log.Warn("the event log had a torn end, which was cut", "bytes", r.CutBytes, "seq", r.CutSeq, "what", r.CutWhat, "kept", r.CutKept)
	}
	return nil
}

// openBus starts the bus under the engine's id.
func (d *assembly) openBus(context.Context) error {
	id, err := engine.Identity(d.journal)
	if err == nil && id == "" {
		id, err = engine.NewUUID(rand.Reader)
	}
	if err != nil {
		return err
	}
	late := copyLate
	if d.o.events != "" {
		late = 0 // somebody listens
	}
	d.bus, err = server.Start(server.Config{
		Node: id, Store: d.root("stream"), Run: d.o.run, ControlGID: d.o.controlGID, ReadGID: d.o.readGID,
		Events: d.o.events, Credentials: d.root("events.creds"), CopyLate: late, Copied: func() { d.rested.Worked(1) }, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.onClose(d.bus.Close)
	d.bus.Show(engine.NewJournal(d.journal))
	return nil
}

// openStream lets the stream give back what the log may have lost.
func (d *assembly) openStream(ctx context.Context) error {
	publisher, found, err := d.bus.OpenStream(ctx, engine.NewJournal(d.journal))
	if err != nil {
		return err
	}
	d.publisher = publisher
	d.onClose(publisher.Close)
	if found.Restored > 0 {
		d.log.Warn("the stream gave back events that the log had lost", "events", found.Restored)
	}
	return nil
}

// loadEngine folds the log and opens the sockets: queries are answered, everything
// else is queued or waits.
func (d *assembly) loadEngine(ctx context.Context) error {
	keys, err := engine.DirKeys(d.root("keys"))
	if err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	client, err := d.dial(ctx, bus.RoleEngine, "steps")
	if err != nil {
		return err
	}
	begin, err := d.begin()
	if err != nil {
		return err
	}
	d.engine, err = engine.Load(engine.Options{
		Log: d.journal, Keys: keys, Begin: begin, Logging: d.o.logging, Version: version, BootID: strings.TrimSpace(string(boot)),
		Hosts: engine.BusHosts(ctx, client, func() engine.Sendings { return d.engine }),
		Asker: client, Machine: machine(d.o), Security: security(), Logger: d.log,
		Committed: func(records []eventlog.Record) {
			for _, r := range records {
				d.publisher.Publish(engine.FrameOf(r))
				d.settler.Worked(int(r.Count))
			}
		},
		Needed: d.start,
	})
	if err != nil {
		return err
	}
	if err := d.bus.Serve(answer.Messages(d.engine)); err != nil {
		return err
	}
	return d.bus.ServeStreams(d.streams())
}

// startEngine has the engine decide.
func (d *assembly) startEngine(ctx context.Context) error {
	if err := d.engine.Start(); err != nil {
		return err
	}
	if d.engine.ID() != d.bus.Subjects().Node {
		return errors.New("the log was taken back from the stream and is of another engine: start again")
	}
	return d.engine.SweepUploads(ctx, d.root("spool")) // before new ones come
}

// dial connects a part of this process to the bus. Without that connection
// nothing can be carried out any more: its loss ends the process.
func (d *assembly) dial(ctx context.Context, role bus.Role, name string) (*bus.Client, error) {
	client, err := d.bus.Dial(ctx, role, name)
	if err != nil {
		return nil, err
	}
	closing := make(chan struct{})
	d.onClose(func() {
		close(closing)
		_ = client.Close() // the bus ends next
	})
	go func() {
		select {
		case <-closing:
		case <-client.Done():
			d.lost <- fmt.Errorf("the bus has dropped the connection of the engine's own part %q", name)
		}
	}()
	return client, nil
}

// begin is how a new log begins.
func (d *assembly) begin() (engine.Begin, error) {
	b := engine.Begin{
		ID: d.bus.Subjects().Node, Name: d.o.name, Pool: d.o.pool, IDs: d.o.ids,
		Drivers: core.Choice{Graph: "overlay", Exec: "native", Image: "oci"},
	}
	if !b.Pool.IsValid() {
		pool, err := freePool(d.o.name)
		if err != nil {
			return b, err
		}
		b.Pool = pool
	}
	b.PoolBits = max(b.Pool.Bits(), 24)
	return b, nil
}

func (d *assembly) openHost(ctx context.Context) error {
	client, err := d.dial(ctx, bus.RoleHost, "driverhost")
	if err != nil {
		return err
	}
	d.host, err = driverhost.Start(driverhost.Options{
		Bus: client, Path: d.o.driverPath, Log: d.log, Epoch: d.engine.Epoch(),
		Config: driver.Config{
			EngineID: d.engine.ID(), EngineName: d.o.name, Root: d.root("drivers"), Run: d.o.run, Libexec: d.o.libexec(),
			Cgroup: d.o.cgroup(), Log: d.log,
		},
	})
	if err == nil {
		close(d.begun)
	}
	return err
}

// paths is where the exec driver's things are; the host gives each driver its
// own directory.
func (d *assembly) paths() engine.Paths {
	own := "exec-" + "native"
	return engine.Paths{
		Socket: func(id core.ContainerID, run uint64, exec core.ExecID) string {
			return execdriver.SocketPath(filepath.Join(d.o.run, own), execdriver.Key{Container: string(id), Run: run, Exec: string(exec)})
		},
		Copy: func(name string) string { return execdriver.CopySocket(filepath.Join(d.o.run, own), name) },
		Log:  func(id core.ContainerID) string { return d.root("drivers", own, string(id), "output.log") },
	}
}
