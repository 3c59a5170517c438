package core

import (
	"errors"
	"time"

	"github.com/containerd/errdefs"
)

// The restart policies. Without one a container is started by hand alone.
const (
	restartNo            = "no"
	restartOnFailure     = "on-failure"
	restartAlways        = "always"
	restartUnlessStopped = "unless-stopped"
)

// The back-off before a container's next run, as Docker's: it doubles from run to
// run and begins anew after one that has lasted.
const (
	backoffLeast = 100 * time.Millisecond
	backoffMost  = time.Minute
	backoffReset = 10 * time.Second
)

// RestartContainer stops a container that runs and starts it again. Its job is
// done when the program has been executed.
type RestartContainer struct {
	ID      ContainerID    `json:"id"`
	Signal  int            `json:"signal,omitempty"`     // 0: the container's own stop signal
	Timeout *time.Duration `json:"timeout_ns,omitempty"` // as of StopContainer
}

func (*RestartContainer) name() string { return "container.restart" }

func (c *RestartContainer) subject(*State) Noun { return c.ID.noun() }

func (c *RestartContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case c.Signal < 0 || c.Signal > 64:
		return nil, refuse(errdefs.ErrInvalidArgument, "signal %d is not between 1 and 64", c.Signal)
	case !k.Running():
		return (&StartContainer{ID: c.ID}).decide(s, r)
	case k.Want == Removed:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being removed", k.Name)
	}
	if err := s.sharesReady(k.Spec); err != nil {
		return nil, err
	}
	e := &ContainerRestartWanted{Header: about(k.ID.noun())}
	e.Signal, e.Grace = k.stopping(c.Signal, c.Timeout)
	return append([]Event{e}, k.supersede(r.Job)...), nil
}

// ContainerRestartWanted says that a running container is to be stopped and
// started again.
type ContainerRestartWanted struct {
	Header
	Signal    int           `json:"signal"`
	Grace     time.Duration `json:"grace_ns"`
	Unhealthy bool          `json:"unhealthy,omitempty"` // by its policy, and not by hand
}

func (*ContainerRestartWanted) name() string { return "container.restart-wanted" }

func (e *ContainerRestartWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Want = Running
		p := &c.Process
		p.Ending, p.Sick = true, e.Unhealthy
		p.Stop = Stopping{Signal: e.Signal, Grace: e.Grace}
		c.Paused.turn(false, "")
		if !e.Unhealthy {
			c.Jobs, c.ByHand = jobs(e.Job), false
		}
	})
}

// check refuses policies that cannot be.
func (p Restart) check(autoRemove bool) error {
	switch p.Policy {
	case "", restartNo, restartOnFailure, restartAlways, restartUnlessStopped:
	default:
		return refuse(errdefs.ErrInvalidArgument,
			"invalid restart policy %q: use one of no, always, on-failure, unless-stopped", p.Policy)
	}
	switch {
	case p.Max < 0:
		return refuse(errdefs.ErrInvalidArgument, "invalid restart policy: maximum retry count cannot be negative")
	case p.Max > 0 && p.Policy != restartOnFailure:
		return refuse(errdefs.ErrInvalidArgument, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
	case autoRemove && (p.Policy != "" && p.Policy != restartNo || p.Unhealthy):
		return refuse(errdefs.ErrInvalidArgument, "conflicting options: a container that is removed when it ends cannot be restarted (--restart and --rm)")
	}
	return nil
}

// wants reports whether the policy starts a container again that has ended so.
func (p Restart) wants(exit Exit) bool {
	switch p.Policy {
	case restartAlways, restartUnlessStopped:
		return true
	case restartOnFailure:
		return exit.Code != 0
	}
	return false
}

// exhausted reports whether the policy gives up.
func (c *Container) exhausted() bool {
	p := c.Spec.Restart
	return p.Policy == restartOnFailure && p.Max > 0 && c.Restarts >= p.Max
}

// restartAfter is the run that follows one that has lasted so long, or nil.
func (c *Container) restartAfter(exit Exit, ran time.Duration) *ContainerRestartPlanned {
	p := &c.Process
	switch {
	case c.Want != Running:
	case p.State == Held && p.Ending && !p.Sick:
		return &ContainerRestartPlanned{Header: about(c.ID.noun()), ByHand: true}
	case c.exhausted():
	case p.State == Held && p.Sick, !c.ByHand && c.Spec.Restart.wants(exit):
		return c.planRestart(ran)
	}
	return nil
}

// restartAfterFailure is the next try of a start that the container's policy has
// made and that has failed, or nil: somebody's own start is tried once.
func (c *Container) restartAfterFailure() *ContainerRestartPlanned {
	if !c.Auto || c.exhausted() {
		return nil
	}
	return c.planRestart(0)
}

func (c *Container) planRestart(ran time.Duration) *ContainerRestartPlanned {
	e := &ContainerRestartPlanned{Header: about(c.ID.noun()), Count: c.Restarts + 1, Delay: backoffLeast}
	if last := c.Backoff.Length; last > 0 && ran < backoffReset {
		e.Delay = min(2*last, backoffMost)
	}
	return e
}

// restartAtBoot is the first run after the machine's restart, or nil: of what ran
// then, and of what is always to run. That the machine was restarted is not the
// container's failure: it counts for nothing.
func (c *Container) restartAtBoot() *ContainerRestartPlanned {
	e := &ContainerRestartPlanned{Header: about(c.ID.noun()), Count: c.Restarts}
	ran := c.Running()
	switch policy := c.Spec.Restart.Policy; {
	case c.Want == Removed || c.Want == Stopped && (ran || len(c.Jobs) > 0) || c.Run == 0:
		return nil
	case ran && c.Process.Ending:
		e.ByHand = !c.Process.Sick
		return e
	case c.Want == Running && !ran: // it is being started, or waits to be
		return nil
	case policy == restartAlways, policy == restartUnlessStopped && !c.ByHand, policy == restartOnFailure && ran && !c.ByHand:
		return e
	}
	return nil
}

// ContainerRestartPlanned says that a container is started again after a while.
// The wait and the count are recorded: no death of the engine makes the wait
// longer, or counts a restart twice.
type ContainerRestartPlanned struct {
	Header
	Count  int           `json:"count,omitempty"`    // restarts by the policy, this one included
	Delay  time.Duration `json:"delay_ns,omitempty"` // from this event on
	ByHand bool          `json:"by_hand,omitempty"`
}

func (*ContainerRestartPlanned) name() string { return "container.restart-planned" }

func (e *ContainerRestartPlanned) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Want = Running
		c.Run++
		c.Restarts, c.Auto = e.Count, !e.ByHand
		c.Backoff.Pending, c.Backoff.Length, c.Backoff.Since = true, e.Delay, e.Time
	})
}

// restartDue: the wait is over. Addresses are kept, or allotted anew.
func (s *State) restartDue(c *Container, step StepID) []Event {
	start, err := s.allotStart(c)
	if err != nil {
		return s.startFailed(c.ID, step, &Fault{Class: classOf(err), Message: err.Error()})
	}
	return []Event{&ContainerRestartDue{Header: about(c.ID.noun()), Addresses: start.Addresses, IDMap: start.IDMap}}
}

// classOf is the word of a refusal's class.
func classOf(err error) string {
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return "not-found"
	case errors.Is(err, errdefs.ErrResourceExhausted):
		return "resource-exhausted"
	case errors.Is(err, errdefs.ErrInvalidArgument):
		return "invalid-argument"
	}
	return "failed-precondition"
}

// ContainerRestartDue says that the wait before the next run is over.
type ContainerRestartDue struct {
	Header
	Addresses []Address `json:"addresses,omitempty"` // one for each network; zero where it has none
	IDMap     *IDMap    `json:"id_map,omitempty"`    // allotted by this event
}

func (*ContainerRestartDue) name() string { return "container.restart-due" }

func (e *ContainerRestartDue) apply(s *State) []Noun {
	touched := s.fold(&e.Header, func(c *Container) {
		c.Backoff.Pending = false
		c.Fault, c.Stuck, c.Attach = nil, nil, false
		c.takeIDs(e.IDMap)
		s.takeAddresses(c, e.Seq, e.Addresses)
	})
	return touchNetworks(s.Containers[ContainerID(e.ID)], touched)
}
