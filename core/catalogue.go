package core

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
)

// The catalogue: every command, event and step by the name that the log and
// the bus know. Names are for ever; they are written by hand where the type is
// and never taken from the type's Go name. A new verb adds its lines here.
var (
	commands = index([]func() Command{
		command[CreateContainer], command[StartContainer],
		command[StopContainer], command[KillContainer],
		command[RemoveContainer], command[RenameContainer],
		command[ExecContainer], command[PauseContainer], command[UnpauseContainer],
		command[UpdateContainer], command[RestartContainer], command[PrepareContainer],
		command[ReportHealth], command[ReportOOM],
		command[LoadImage], command[TagImage],
		command[DropImage], command[NewNetwork],
		command[DropNetwork], command[EnableDriver],
		command[DisableDriver], command[SwapDriver],
		command[CancelJob], command[ForgetJobs],
		command[FinishStep], command[ReportExit],
		command[ReportInventory], command[ReportDriver],
		command[StartEngine], command[StopEngine],
	})
	events = index([]func() Event{
		event[EngineInitialized], event[EngineStarted], event[EngineStopping], event[NetworkIdle],
		event[JobAccepted], event[JobEnded], event[JobsForgotten],
		event[ContainerCreated], event[ContainerStartWanted],
		event[ContainerJoined], event[RootfsPrepared],
		event[NetworkAttached], event[ProcessStarted],
		event[StartFailed], event[StartCancelled],
		event[ContainerStopWanted], event[ContainerStopHastened], event[ContainerSignaled],
		event[ContainerGraceEnded], event[ContainerKillWanted],
		event[ProcessExited], event[ContainerRemoveWanted],
		event[ProcessReleased], event[NetworkDetached],
		event[RootfsReleased], event[LogRemoved],
		event[ContainerRemoved], event[ContainerRenamed],
		event[RootfsLost], event[NetworkLost],
		event[ExecWanted], event[ExecStarted], event[ExecFailed], event[ExecExited], event[ExecReleased],
		event[ContainerPauseWanted], event[ContainerPaused], event[PauseFailed],
		event[ContainerUnpauseWanted], event[ContainerUnpaused],
		event[ContainerUpdateWanted], event[ContainerUpdated], event[UpdateFailed],
		event[ContainerRestartWanted], event[ContainerRestartPlanned], event[ContainerRestartDue],
		event[ContainerPrepareWanted], event[PrepareFailed],
		event[HealthWatched], event[HealthWatchFailed], event[HealthUnwatched], event[HealthChanged],
		event[OOMKilled], event[UserNSHeld], event[UserNSReleased], event[UserNSLost],
		event[ImageLoadWanted], event[ArchiveLoaded],
		event[LoadSettled], event[ImageLoaded],
		event[ImageReady], event[ImageTagged],
		event[ImageUntagged], event[ImageNamed],
		event[ImageRemoveWanted], event[ImageRemoved],
		event[ImageLost], event[ImageStray],
		event[LayerApplied], event[LayerFailed],
		event[LayerRemoved], event[LayerLost], event[LayerStray],
		event[NetworkCreated], event[NetworkUp],
		event[NetworkFailed], event[NetworkJoined],
		event[NetworkRemoveWanted], event[NetworkDown],
		event[NetworkRemoved], event[NetworkGone],
		event[DriverEnabled], event[DriverDisabled],
		event[DriverStopped], event[DriverReplaceWanted],
		event[DriverReplaced], event[DriverReplaceFailed],
		event[DriverStarted], event[DriverEnded],
		event[StrayFound], event[StrayGivenBack],
		event[StrayQuarantined], event[ReleaseFailed],
	})
	steps = index([]func() finisher{
		step[PrepareRootfs], step[ReleaseRootfs], step[AttachNetwork], step[DetachNetwork],
		step[StartProcess], step[SignalProcess], step[Wait], step[ReleaseProcess], step[RemoveLog],
		step[StartExec], step[Freeze], step[Thaw], step[UpdateResources], step[WatchHealth], step[UnwatchHealth],
		step[HoldUserNS], step[ReleaseUserNS],
		step[LoadArchive], step[Reconcile], step[NameImage], step[RemoveImage], step[ApplyLayer], step[RemoveLayer],
		step[CreateNetwork], step[RemoveNetwork], step[ReplaceDriver], step[StopDriver], step[GiveBack],
	})
)

func command[T any, P interface {
	*T
	Command
}]() Command {
	return P(new(T))
}

func event[T any, P interface {
	*T
	Event
}]() Event {
	return P(new(T))
}

func step[T any, P interface {
	*T
	finisher
}]() finisher {
	return P(new(T))
}

// index maps each type's own name to its constructor; a name used twice stops
// the program.
func index[T interface{ name() string }](makers []func() T) map[string]func() T {
	m := make(map[string]func() T, len(makers))
	for _, f := range makers {
		n := f().name()
		if m[n] != nil {
			panicf("the name %s is used twice in the catalogue", n)
		}
		m[n] = f
	}
	return m
}

// CommandName is the name of c on the bus, "noun.verb".
func CommandName(c Command) string { return c.name() }

// DecodeCommand reads a command as it came over the bus. A field that the
// command does not have is refused by name, never ignored.
func DecodeCommand(name string, body []byte) (Command, error) {
	f := commands[name]
	if f == nil {
		return nil, refuse(errdefs.ErrNotImplemented, "no such command: %s", name)
	}
	c := f()
	if err := strict(body, c); err != nil {
		return nil, refuse(errdefs.ErrInvalidArgument, "command %s: %v", name, err)
	}
	return c, nil
}

// strict decodes JSON and refuses fields that the value does not have.
func strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}

// StepName is the name of st on the bus, "noun.verb".
func StepName(st Step) string { return st.name() }

// StepNames lists the steps that a driver or its host runs, by their names on
// the bus, sorted. Wait is the engine's own.
func StepNames() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(steps)), func(n string) bool { return n == Wait{}.name() })
}

// DecodeStep reads a step as it came over the bus; it yields a pointer to one
// of the step types.
func DecodeStep(name string, body []byte) (Step, error) {
	f := steps[name]
	if f == nil {
		return nil, refuse(errdefs.ErrNotImplemented, "no such step: %s", name)
	}
	st := f()
	if err := json.Unmarshal(body, st); err != nil {
		return nil, fmt.Errorf("decode step %s: %w", name, err)
	}
	return st, nil
}
