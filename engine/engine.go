package engine

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// Hosts carries steps to driver hosts. A message may get lost: the engine asks
// again. Neither method may block.
type Hosts interface {
	Send(bus.Step) error
	Cancel(bus.Cancel) error
}

// Begin is how a new log begins; an old log's own word holds.
type Begin struct {
	ID       string       // UUID; empty: one is made
	Name     string       // of the engine
	Drivers  core.Choice  // for every container
	Pool     netip.Prefix // subnets of networks come from it
	PoolBits int          // length of such a subnet
	IDs      core.IDPool  // of private user namespaces; zero: the core's default
}

// Options are what an engine needs.
type Options struct {
	Log   eventlog.Log
	Hosts Hosts
	Asker Asker // of drivers, for what is no step; nil: nobody can be asked
	Keys  Keys  // of sealed values

	Begin   Begin
	Logging core.Logging // where a new container says nothing else
	Machine query.Info   // what is told about the process and the machine beside the state
	// Security tells what keeps containers in; asked for by engine.info, from any
	// goroutine. Nil: nothing is told.
	Security func() []query.Protection

	Version string // of the program
	BootID  string // of the kernel that runs

	// Committed is told of every record once it is durable, in order. It must
	// not block. Nil: nobody is told.
	Committed func([]eventlog.Record)
	// Ended is told of containers and jobs that have ended, after that is durable:
	// whoever keeps something for one lets it go. Nil: nobody is told.
	Ended func(core.Noun)

	// Needed is told of a driver, as Holders tells them at the start, that holds
	// something and was enabled again: its host has ended it and sees no reason of
	// its own to start it. It must not block. Nil: nobody is told.
	Needed func(id, path string)

	Now    func() time.Time // nil: time.Now; its monotonic reading is used
	Random io.Reader        // nil: crypto/rand
	Logger *slog.Logger     // nil: nothing is logged

	Limits Limits
}

// Limits bound what is queued, taken at once and running. Zero fields have
// defaults.
type Limits struct {
	Commands  int // queued commands of clients; 1,024
	Reports   int // queued results and reports; 65,536
	Batch     int // requests decided on at once; 256
	PerDriver int // steps in flight for one driver; 64
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	set(&l.Commands, 1024)
	set(&l.Reports, 65_536)
	set(&l.Batch, 256)
	set(&l.PerDriver, 64)
	return l
}

// Engine is one engine over one log.
type Engine struct {
	o       Options
	log     *slog.Logger
	queue   *queue
	vault   *vault
	began   time.Time
	pending []core.Noun // touched and not yet asked for what they owe

	// head is decided on. Turn alone touches it.
	head *core.State
	// asked is when finished jobs were last looked through.
	asked time.Time
	// opening is set until Start returns: nothing is handed out before.
	opening atomic.Bool

	// mu guards durable, what queries see. Turn alone changes it, and never
	// holds mu across a write.
	mu      sync.RWMutex
	durable *core.State
	// onlookers are told of durable's events; guarded by mu.
	onlookers map[core.Noun][]*onlooker

	dispatch *dispatch
	asks     *asker
	meter    *meter
	stopping atomic.Bool // see Halt
	turning  atomic.Bool // Turn is at work
}

// Open is Load and Start.
func Open(o Options) (*Engine, error) {
	e, err := Load(o)
	if err == nil {
		err = e.Start()
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Load folds the log. The engine answers queries from now on, as of the log's last
// event, and queues what is sent; it decides on nothing before Start.
func Load(o Options) (*Engine, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Limits = o.Limits.withDefaults()
	e := &Engine{
		o: o, log: o.Logger, began: o.Now(),
		queue: newQueue(o.Limits.Commands, o.Limits.Reports),
		vault: newVault(o.Keys, o.Random), dispatch: newDispatch(o.Limits.PerDriver),
		asks: &asker{to: o.Asker}, meter: newMeter(), onlookers: make(map[core.Noun][]*onlooker),
	}
	e.opening.Store(true)
	var err error
	e.durable, err = Fold(o.Log)
	return e, err
}

// Start records that an engine has started and finds out what is owed. Nothing is
// handed out before the first Turn. What has come into the log since Load (the
// stream may have given back what it had lost) is folded, too.
func (e *Engine) Start() error {
	if e.o.Log.Head().Seq != e.durable.Seq {
		durable, err := Fold(e.o.Log)
		if err != nil {
			return err
		}
		e.mu.Lock()
		e.durable = durable
		e.mu.Unlock()
	}
	e.head = e.durable.Clone()
	if err := e.start(); err != nil {
		return err
	}
	if err := e.vault.sweep(e.durable); err != nil {
		e.log.Warn("keys of containers that are gone could not be destroyed", "error", err)
	}
	e.dispatch.epoch = e.durable.Engine.Epoch
	e.asks.epoch.Store(e.dispatch.epoch)
	e.pending = e.durable.Nouns()
	e.opening.Store(false)
	return nil
}

// start decides on core.StartEngine, the first command of every engine process.
func (e *Engine) start() error {
	b := e.o.Begin
	id := b.ID
	if id == "" {
		var err error
		if id, err = NewUUID(e.o.Random); err != nil {
			return err
		}
	}
	c := &core.StartEngine{
		ID: id, Name: b.Name, Drivers: b.Drivers, Pool: b.Pool, PoolBits: b.PoolBits,
		Version: e.o.Version, BootID: e.o.BootID, IDs: b.IDs,
	}
	for i := range c.Networks {
		var raw [32]byte
		if _, err := io.ReadFull(e.o.Random, raw[:]); err != nil {
			return fmt.Errorf("make network ids: %w", err)
		}
		c.Networks[i] = core.NetworkID(fmt.Sprintf("%x", raw))
	}
	var refused error
	r := request{command: c, actor: core.Actor{Engine: true}, essential: true,
		reply: func(_ bus.Receipt, err error) { refused = err }}
	if err := e.commit([]request{r}); err != nil {
		return err
	}
	if refused != nil {
		return fmt.Errorf("start the engine: %w", refused)
	}
	return nil
}

// ID is the engine's own id, the log's word.
func (e *Engine) ID() string { return e.durable.Engine.ID }

// Holders are the drivers, by "kind/name", that hold something which may end by
// itself: they must run for anybody to see that, unless they are disabled. The value is
// the program's path if the driver was replaced, else empty.
func (e *Engine) Holders() map[string]string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, c := range e.durable.Containers {
		if c.Process.State != core.Absent {
			id := "exec/" + e.durable.Engine.Drivers.Exec
			path := ""
			if d := e.durable.Drivers[id]; d != nil {
				if d.Disabled {
					return nil
				}
				path = d.Path
			}
			return map[string]string{id: path}
		}
	}
	return nil
}

// Epoch is the sequence of this engine's start: results of older ones are refused.
func (e *Engine) Epoch() uint64 { return e.dispatch.epoch }

// NewUUID makes a random UUID (RFC 9562, version 4).
func NewUUID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// Command takes a client's command; reply is called once, from Turn or at once.
// It is Unavailable when the engine stops and ResourceExhausted when too many
// are queued. It does not block.
func (e *Engine) Command(actor bus.Actor, c bus.Command, reply func(bus.Receipt, error)) {
	r, err := e.newRequest(actor, c)
	if err == nil {
		r.reply = reply
		err = e.queue.putCommand(r)
	}
	if err != nil {
		reply(bus.Receipt{}, err)
	}
}

// Finish takes the result of a step, or a sign of its life. It does not block.
func (e *Engine) Finish(f bus.Finish, reply func(bus.Receipt, error)) {
	if f.Heartbeat {
		if f.Epoch >= e.dispatch.epoch {
			e.dispatch.heard(core.StepID(f.Step), e.o.Now())
		}
		reply(bus.Receipt{}, nil)
		return
	}
	c := &core.FinishStep{Step: core.StepID(f.Step)}
	if f.Error != nil {
		c.Fault = &core.Fault{Class: f.Error.Class, Message: f.Error.Message}
	} else if len(f.Result) > 0 {
		if err := json.Unmarshal(f.Result, &c.Result); err != nil {
			reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrInvalidArgument, "read the result of %s: %w", f.Step, err))
			return
		}
	}
	r := reportOf(c, fence{f.Epoch, f.Kind, f.Driver, f.Instance, f.Try}, len(f.Result), reply)
	if e.dispatch.told(c.Step) && c.Fault == nil {
		r.until = e.o.Now().Add(companyFor)
	}
	e.queueReport(r)
}

// Report takes what a driver's host has seen: its name is that of a report in
// the core's catalogue. It does not block.
func (e *Engine) Report(p bus.Report, reply func(bus.Receipt, error)) {
	c, err := core.DecodeCommand(p.Name, p.Body)
	if err == nil {
		switch c.(type) {
		case *core.ReportExit, *core.ReportInventory, *core.ReportDriver, *core.ReportHealth, *core.ReportOOM:
			e.queueReport(reportOf(c, fence{p.Epoch, p.Kind, p.Driver, p.Instance, 0}, len(p.Body), reply))
			return
		}
		err = errclass.Errorf(errdefs.ErrPermissionDenied, "%s is not a report", p.Name)
	}
	reply(bus.Receipt{}, err)
}

func reportOf(c core.Command, f fence, size int, reply func(bus.Receipt, error)) request {
	return request{command: c, actor: core.Actor{Engine: true}, fence: &f, size: size, essential: true, reply: reply}
}

func (e *Engine) queueReport(r request) {
	if err := e.queue.putReport(r); err != nil {
		r.reply(bus.Receipt{}, err)
	}
}
