package core

import (
	"path"

	"github.com/containerd/errdefs"
)

// ExecContainer runs a further process in a running container. Its job is done
// when the program has been executed.
type ExecContainer struct {
	ID     ContainerID `json:"id"`
	Exec   ExecID      `json:"exec"`
	Spec   ExecSpec    `json:"spec"`
	Attach bool        `json:"attach,omitempty"` // hold the program until a client has attached
}

func (*ExecContainer) name() string { return "container.exec" }

func (c *ExecContainer) subject(*State) Noun { return c.ID.noun() }

// Secrets lists what must be sealed before the command is decided on, with the
// key that the container has already.
func (c *ExecContainer) Secrets() (ContainerID, []*Env) {
	env := make([]*Env, len(c.Spec.Env))
	for i := range c.Spec.Env {
		env[i] = &c.Spec.Env[i]
	}
	return c.ID, env
}

// maxExecs bounds the execs of one container that are open at once.
const maxExecs = 1000

func (c *ExecContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	if k == nil {
		return nil, notFound("container", string(c.ID))
	}
	if err := checkHexID("exec", string(c.Exec)); err != nil {
		return nil, err
	}
	open := 0
	for i := range k.Execs {
		x := &k.Execs[i]
		if x.slotName() == execSlotName(c.Exec) {
			return nil, refuse(errdefs.ErrAlreadyExists, "exec id %s is in use: make another", c.Exec)
		}
		if x.State != Absent || !x.Over() {
			open++
		}
	}
	switch {
	case k.Status() == "restarting":
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is restarting: wait until it runs", k.Name)
	case !k.Running():
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is not running", k.Name)
	case k.Frozen() || k.Paused.Wanted:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is paused: unpause it first", k.Name)
	case open >= maxExecs:
		return nil, refuse(errdefs.ErrResourceExhausted, "container %s has %d execs open", k.Name, open)
	}
	if err := c.Spec.check(); err != nil {
		return nil, err
	}
	if err := s.needDriver("exec", s.Engine.Drivers.Exec); err != nil {
		return nil, err
	}
	return []Event{&ExecWanted{Header: about(k.ID.noun()), Exec: c.Exec, Run: k.Process.Run, Spec: c.Spec, Attach: c.Attach}}, nil
}

// check refuses what cannot be, by field and value.
func (sp *ExecSpec) check() error {
	if sp.Cwd != "" && !path.IsAbs(sp.Cwd) {
		return refuse(errdefs.ErrInvalidArgument, "the working directory %q is invalid: it must be an absolute path", sp.Cwd)
	}
	if len(sp.Args) == 0 {
		return refuse(errdefs.ErrInvalidArgument, "no exec command specified")
	}
	if err := checkTerminal(sp.Rows, sp.Columns); err != nil {
		return err
	}
	if err := checkEnv(sp.Env); err != nil {
		return err
	}
	return checkArgs(sp.Args)
}

func execSlotName(id ExecID) string { return "exec-" + string(id[:min(len(id), 16)]) }

// slotName is the slot's part of a step id.
func (x *Exec) slotName() string { return execSlotName(x.ID) }

// exec finds an exec, or nil.
func (c *Container) exec(id ExecID) *Exec {
	for i := range c.Execs {
		if c.Execs[i].ID == id {
			return &c.Execs[i]
		}
	}
	return nil
}

func (c *Container) execVerb(i int) string {
	switch x := &c.Execs[i]; {
	case x.State == Unsure, x.State == Held && x.Exited:
		return "release"
	case x.State == Held:
		if len(x.Kills) > 0 {
			return "kill"
		}
	case !x.Over() && c.Running() && c.Process.Run == x.Run:
		return "start"
	}
	return ""
}

// execStarting reports whether an exec is being started: it cannot be while the
// container stands still.
func (c *Container) execStarting() bool {
	for i := range c.Execs {
		if c.execVerb(i) == "start" {
			return true
		}
	}
	return false
}

func (c *Container) nextExec(q ask, i int) Step {
	x := &c.Execs[i]
	verb := c.execVerb(i)
	if verb == "" {
		return nil
	}
	turn := x.Turn
	if verb == "kill" {
		turn = x.Kills[0].Seq
	}
	id := c.execStep(q, x.slotName(), verb, turn)
	switch verb {
	case "start":
		p := &c.Spec.Process
		sp := x.Spec
		sp.Env = mergeEnv(p.Env, sp.Env)
		if sp.Cwd == "" {
			sp.Cwd = p.Cwd
		}
		st := StartExec{owedStep: id, Container: c.ID, Run: x.Run, Exec: x.ID, Attach: x.Attach}
		if sp.User == "" {
			sp.User, st.Groups = p.User, p.Groups
		}
		st.Spec = sp
		return st
	case "kill":
		return SignalProcess{owedStep: id, Container: c.ID, Run: x.Run, Exec: x.ID, Signal: x.Kills[0].Signal}
	case "release":
		return ReleaseProcess{owedStep: id, Container: c.ID, Run: x.Run, Exec: x.ID}
	}
	return nil
}

// forgetExecs keeps the last ExecsKept of those that are over and released.
func (c *Container) forgetExecs() {
	over := -ExecsKept
	for i := range c.Execs {
		if x := &c.Execs[i]; x.State == Absent && x.Over() {
			over++
		}
	}
	if over <= 0 {
		return
	}
	kept := make([]Exec, 0, len(c.Execs)-over)
	for i := range c.Execs {
		if x := &c.Execs[i]; over > 0 && x.State == Absent && x.Over() {
			over--
			continue
		}
		kept = append(kept, c.Execs[i])
	}
	c.Execs = kept
}

// foldExec changes an exec of a container by f.
func (s *State) foldExec(h *Header, id ExecID, f func(x *Exec)) []Noun {
	return s.fold(h, func(c *Container) {
		if x := c.exec(id); x != nil {
			f(x)
		}
	})
}

// ExecWanted says that a further process is to run in a run.
type ExecWanted struct {
	Header
	Exec   ExecID   `json:"exec"`
	Run    uint64   `json:"run"`
	Spec   ExecSpec `json:"spec"`
	Attach bool     `json:"attach,omitempty"`
}

func (*ExecWanted) name() string { return "container.exec-wanted" }

func (e *ExecWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Execs = append(c.Execs, Exec{ID: e.Exec, Run: e.Run, Spec: e.Spec, Attach: e.Attach, Job: e.Job, Wanted: e.Time})
	})
}

// ExecStarted says that an exec's program was executed.
type ExecStarted struct {
	Header
	Exec ExecID `json:"exec"`
	PID  int    `json:"pid,omitempty"`
}

func (*ExecStarted) name() string { return "container.exec-started" }

func (e *ExecStarted) apply(s *State) []Noun {
	return s.foldExec(&e.Header, e.Exec, func(x *Exec) {
		x.State, x.PID, x.Started, x.Job = Held, e.PID, e.Time, ""
	})
}

func (st StartExec) finish(s *State, r *FinishStep) []Event {
	k := s.Containers[st.Container]
	x := k.exec(st.Exec)
	if r.Fault != nil {
		fault := *r.Fault
		fault.Step = st.StepID
		return k.execFailed(x, fault)
	}
	return k.execStarted(x, r.Result.Started)
}

func (c *Container) execStarted(x *Exec, started *Started) []Event {
	e := &ExecStarted{Header: about(c.ID.noun()), Exec: x.ID}
	e.Job = x.Job
	if started != nil {
		e.PID = started.PID
	}
	return append([]Event{e}, endJobs(jobs(x.Job), JobDone, "", nil)...)
}

// ExecFailed says that an exec could not be started. What there is of it is given
// back.
type ExecFailed struct {
	Header
	Exec  ExecID `json:"exec"`
	Fault Fault  `json:"fault"`
}

func (*ExecFailed) name() string { return "container.exec-failed" }

func (e *ExecFailed) apply(s *State) []Noun {
	return s.foldExec(&e.Header, e.Exec, func(x *Exec) { x.State, x.Fault, x.Job = Unsure, &e.Fault, "" })
}

func (c *Container) execFailed(x *Exec, f Fault) []Event {
	e := &ExecFailed{Header: about(c.ID.noun()), Exec: x.ID, Fault: f}
	e.Job = x.Job
	return append([]Event{e}, endJobs(jobs(x.Job), JobFailed, "", &f)...)
}

// execsCutOff is the end of those execs that are being started while their
// container's run ends.
func (c *Container) execsCutOff() []Event {
	var events []Event
	for i := range c.Execs {
		if c.execVerb(i) == "start" {
			x := &c.Execs[i]
			events = append(events, c.execFailed(x, Fault{
				Step: stepID(c.ID.noun(), x.slotName(), "start", x.Turn), Class: "failed-precondition",
				Message: sprintf("container %s has ended before the exec began", c.Name),
			})...)
		}
	}
	return events
}

// ExecExited says how an exec has ended.
type ExecExited struct {
	Header
	Exec ExecID `json:"exec"`
	Exit Exit   `json:"exit"`
}

func (*ExecExited) name() string { return "container.exec-exited" }

func (e *ExecExited) apply(s *State) []Noun {
	return s.foldExec(&e.Header, e.Exec, func(x *Exec) {
		exit := e.Exit
		x.Exit, x.Exited, x.PID, x.Kills = &exit, true, 0, nil
	})
}

// execExited is the end of an exec with what follows from it.
func (c *Container) execExited(x *Exec, exit Exit) []Event {
	e := &ExecExited{Header: about(c.ID.noun()), Exec: x.ID, Exit: exit}
	return append([]Event{e}, endKills(x.Kills)...)
}

// execsLost is the end of the execs of which nothing is there any more; nil means
// of all. Nobody saw their ends.
func (c *Container) execsLost(exit Exit, held map[string]Item) []Event {
	var events []Event
	for i := range c.Execs {
		x := &c.Execs[i]
		item := Item{Kind: "process", Key: string(c.ID), Run: x.Run, Exec: string(x.ID)}
		if _, there := held[item.key()]; !there && x.State == Held && !x.Exited {
			exit.Run = x.Run
			events = append(events, c.execExited(x, exit)...)
		}
	}
	return events
}

// reportExec is ReportExit for an exec.
func (c *ReportExit) reportExec(k *Container, exit Exit) []Event {
	x := k.exec(c.Exec)
	if x == nil || x.Run != c.Run || x.Over() || x.State == Unsure {
		return nil
	}
	events := k.execExited(x, exit)
	switch {
	case x.State == Held:
		events[0].Head().Cause = x.Turn
		return events
	case !k.Running() || k.Process.Run != x.Run:
		return nil
	}
	// The program ended before its start was reported.
	started := k.execStarted(x, nil)
	started[0].Head().Cause = x.Turn
	return append(started, events...)
}

// ExecReleased says that nothing of an exec is left on the machine.
type ExecReleased struct {
	Header
	Exec ExecID `json:"exec"`
}

func (*ExecReleased) name() string { return "container.exec-released" }

func (e *ExecReleased) on(c *Container) {
	if x := c.exec(e.Exec); x != nil {
		x.State = Absent
	}
}

func (e *ExecReleased) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }
