package core

import "time"

// SlotState says what a slot holds.
type SlotState string

// A slot goes from absent to held and back. It is unsure after a failed or an
// interrupted acquisition: something may be half there, so it is released
// before anything else.
const (
	Absent SlotState = ""
	Held   SlotState = "held"
	Unsure SlotState = "unsure"
)

// Slot is one thing that a noun acquires and gives back, one step at a time.
type Slot struct {
	State SlotState `json:"state,omitempty"`
	// Turn is the sequence of the event that last changed what is owed here;
	// a part of the step's id and the cause of the step's result.
	Turn uint64 `json:"turn,omitempty"`
}

// Result is what a step brought back: the fields that its verb has.
type Result struct {
	Mounts   []Mount       `json:"mounts,omitempty"`   // PrepareRootfs
	Endpoint *Endpoint     `json:"endpoint,omitempty"` // AttachNetwork
	Started  *Started      `json:"started,omitempty"`  // StartProcess, StartExec
	UserNS   *Namespace    `json:"userns,omitempty"`   // HoldUserNS
	Images   []LoadedImage `json:"images,omitempty"`   // LoadArchive
	Size     int64         `json:"size,omitempty"`     // ApplyLayer: bytes unpacked
	Instance string        `json:"instance,omitempty"` // ReplaceDriver: the new instance
	Version  string        `json:"version,omitempty"`  // ReplaceDriver: of the new driver
}

// Mount is a mount as data (sdk/driver.Mount).
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source"`
	Target  string   `json:"target,omitempty"`
	Options []string `json:"options,omitempty"`
}

// Namespace says which network namespace a run is put in (sdk/netdriver.Namespace).
type Namespace struct {
	Mode  string `json:"mode,omitempty"`
	Path  string `json:"path,omitempty"`
	Inode uint64 `json:"inode,omitempty"`
}

// Endpoint is a made attachment (sdk/netdriver.Endpoint).
type Endpoint struct {
	Namespace Namespace `json:"namespace"`
	Interface string    `json:"interface,omitempty"`
	Files     []Mount   `json:"files,omitempty"`
}

// Target is a mount point that must exist in a root filesystem
// (sdk/driver.Target).
type Target struct {
	Path   string `json:"path"`
	File   bool   `json:"file,omitempty"`
	Source string `json:"source,omitempty"` // host path of what is bound there: whoever makes the target looks whether it is a file
}

// IDMap maps a container's user namespace (sdk/driver.IDMap). The zero value is
// the host's own.
type IDMap struct {
	UIDs []IDMapping `json:"uids,omitempty"`
	GIDs []IDMapping `json:"gids,omitempty"`
}

// IDMapping maps Size ids from Container on to the host's from Host on.
type IDMapping struct {
	Container uint32 `json:"container"`
	Host      uint32 `json:"host"`
	Size      uint32 `json:"size"`
}

// Shares says which namespaces of other containers' present runs a run is put
// in; nil: none.
type Shares struct {
	PID     *RunKey `json:"pid,omitempty"`
	IPC     *RunKey `json:"ipc,omitempty"`
	UTS     *RunKey `json:"uts,omitempty"`
	Network *RunKey `json:"network,omitempty"` // the step's Endpoint is that container's, too
}

// RunKey names a run of a container.
type RunKey struct {
	Container ContainerID `json:"container"`
	Run       uint64      `json:"run"`
	PID       int         `json:"pid,omitempty"` // of its first process; 0: it does not run
}

// Started is a running process (sdk/execdriver.Started).
type Started struct {
	PID int    `json:"pid"`
	Log string `json:"log,omitempty"`
}

// Item is one thing that a driver holds (sdk/driver.Item).
type Item struct {
	Kind    string `json:"kind"`
	Key     string `json:"key"`
	Run     uint64 `json:"run,omitempty"`
	Exec    string `json:"exec,omitempty"` // of a process: the exec that it is
	Network string `json:"network,omitempty"`
	State   string `json:"state,omitempty"`
	PID     int    `json:"pid,omitempty"`
}

func (i Item) key() string {
	key := sprintf("%s:%s:%s:%d", i.Kind, i.Key, i.Network, i.Run)
	if i.Exec != "" {
		key += ":" + i.Exec
	}
	return key
}

// owedStep carries a step's identity and runner; every step embeds it.
type owedStep struct {
	StepID     StepID `json:"id"`
	DriverKind string `json:"driver_kind,omitempty"`
	DriverName string `json:"driver_name,omitempty"`
}

// ID is the step's identity.
func (o owedStep) ID() StepID { return o.StepID }

// Driver says who runs the step.
func (o owedStep) Driver() (kind, name string) { return o.DriverKind, o.DriverName }

func owed(id StepID, kind, name string) owedStep { return owedStep{id, kind, name} }

// The steps. Each maps onto one method of a driver's contract; the driver host
// has a runner for each.
type (
	// PrepareRootfs composes a container's root filesystem.
	PrepareRootfs struct {
		owedStep
		Container ContainerID `json:"container"`
		Layer     LayerID     `json:"layer,omitempty"` // topmost; empty for an empty root
		IDMap     IDMap       `json:"id_map,omitzero"`
		Targets   []Target    `json:"targets,omitempty"` // of the container's own mounts
	}
	// ReleaseRootfs gives it back.
	ReleaseRootfs struct {
		owedStep
		Container ContainerID `json:"container"`
	}
	// AttachNetwork connects a run to a network.
	AttachNetwork struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Network   NetworkID   `json:"network"`
		Hostname  string      `json:"hostname"`
		Names     []string    `json:"names,omitempty"`
		Address   Address     `json:"address"`
		UserNS    Namespace   `json:"userns,omitzero"` // that must own the network namespace
	}
	// DetachNetwork gives the endpoint back.
	DetachNetwork struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Network   NetworkID   `json:"network"`
	}
	// StartProcess runs a container's program.
	StartProcess struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Name      string      `json:"name"`
		Hostname  string      `json:"hostname"` // where the machine's is not shared
		Rootfs    []Mount     `json:"rootfs"`
		Endpoint  Endpoint    `json:"endpoint"`
		Spec      *Spec       `json:"spec"`
		Attach    bool        `json:"attach,omitempty"` // wait at the gate for a client
		IDMap     IDMap       `json:"id_map,omitzero"`
		UserNS    Namespace   `json:"userns,omitzero"` // the one held for the container
		Shares    Shares      `json:"shares,omitzero"`
		LogEnd    uint64      `json:"log_end,omitempty"` // of the last run's exit: the log goes on there
	}
	// SignalProcess delivers a signal to a run's first process, or to an
	// exec's.
	SignalProcess struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Exec      ExecID      `json:"exec,omitempty"`
		Signal    int         `json:"signal"`
	}
	// Wait ends when Length has passed by the monotonic clock, or when the
	// wall clock shows Until, whichever is first. The engine runs it.
	Wait struct {
		owedStep
		Until  time.Time     `json:"until"`
		Length time.Duration `json:"length_ns"`
	}
	// ReleaseProcess ends what is left of a run, or of an exec.
	ReleaseProcess struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Exec      ExecID      `json:"exec,omitempty"`
		RemoveLog bool        `json:"remove_log,omitempty"` // the container is being removed: its log goes too
	}
	// RemoveLog removes a container's log files.
	RemoveLog struct {
		owedStep
		Container ContainerID `json:"container"`
	}
	// StartExec runs a further process in a run.
	StartExec struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Exec      ExecID      `json:"exec"`
		Spec      ExecSpec    `json:"spec"` // whole: what the exec leaves out is the container's
		Groups    []string    `json:"groups,omitempty"`
		Attach    bool        `json:"attach,omitempty"` // wait at the gate for a client
	}
	// Freeze holds all processes of a run.
	Freeze struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
	}
	// Thaw lets them go on.
	Thaw struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
	}
	// UpdateResources changes the limits of a run, all or none.
	UpdateResources struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Resources Resources   `json:"resources"` // whole
	}
	// WatchHealth has the driver's host probe a run until it is told
	// otherwise. It ends when the host has taken the watch over; asked again
	// for the same run, the watch goes on as it is.
	WatchHealth struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
		Spec      Health      `json:"spec"`    // no field is zero but what means so
		Process   Process     `json:"process"` // Env, User, Groups and Cwd of the probes
		Status    string      `json:"status"`  // the last one that was reported
		Streak    int         `json:"streak,omitempty"`
		Started   time.Time   `json:"started"` // of the run: the start period counts from here
	}
	// UnwatchHealth ends the watch; nothing is reported afterwards.
	UnwatchHealth struct {
		owedStep
		Container ContainerID `json:"container"`
		Run       uint64      `json:"run"`
	}
	// HoldUserNS makes the container's user namespace.
	HoldUserNS struct {
		owedStep
		Container ContainerID `json:"container"`
		IDMap     IDMap       `json:"id_map"`
	}
	// ReleaseUserNS gives it back.
	ReleaseUserNS struct {
		owedStep
		Container ContainerID `json:"container"`
	}
	// LoadArchive reads an image archive.
	LoadArchive struct {
		owedStep
		Archive  string `json:"archive"`
		Platform string `json:"platform,omitempty"`
	}
	// Reconcile has the driver's inventory reported anew, before it ends.
	Reconcile struct {
		owedStep
	}
	// NameImage sets the names of an image in the store.
	NameImage struct {
		owedStep
		Image ImageID  `json:"image"`
		Names []string `json:"names"`
	}
	// RemoveImage gives an image's content back.
	RemoveImage struct {
		owedStep
		Image ImageID `json:"image"`
	}
	// ApplyLayer unpacks a layer.
	ApplyLayer struct {
		owedStep
		Layer     LayerID `json:"layer"`
		Parent    LayerID `json:"parent,omitempty"`
		Archive   string  `json:"archive"`
		Digest    string  `json:"digest"`
		DiffID    string  `json:"diff_id"`
		MediaType string  `json:"media_type"`
	}
	// RemoveLayer gives a layer back.
	RemoveLayer struct {
		owedStep
		Layer LayerID `json:"layer"`
	}
	// CreateNetwork makes a network.
	CreateNetwork struct {
		owedStep
		Network  NetworkID         `json:"network"`
		Name     string            `json:"name"`
		Subnet   string            `json:"subnet,omitempty"`
		Gateway  string            `json:"gateway,omitempty"`
		Internal bool              `json:"internal,omitempty"`
		Options  map[string]string `json:"options,omitempty"`
	}
	// RemoveNetwork gives it back.
	RemoveNetwork struct {
		owedStep
		Network NetworkID `json:"network"`
	}
	// ReplaceDriver starts the program at Path in the driver's place.
	ReplaceDriver struct {
		owedStep
		Path string `json:"path"`
	}
	// StopDriver ends a driver's processes: it was disabled.
	StopDriver struct {
		owedStep
	}
	// GiveBack releases something that a driver holds for nobody.
	GiveBack struct {
		owedStep
		Item Item `json:"item"`
	}
)

// The names of the steps on the bus.

func (PrepareRootfs) name() string   { return "container.prepare-rootfs" }
func (ReleaseRootfs) name() string   { return "container.release-rootfs" }
func (AttachNetwork) name() string   { return "container.attach-network" }
func (DetachNetwork) name() string   { return "container.detach-network" }
func (StartProcess) name() string    { return "container.start-process" }
func (SignalProcess) name() string   { return "container.signal-process" }
func (Wait) name() string            { return "container.wait" }
func (ReleaseProcess) name() string  { return "container.release-process" }
func (RemoveLog) name() string       { return "container.remove-log" }
func (StartExec) name() string       { return "container.start-exec" }
func (Freeze) name() string          { return "container.freeze" }
func (Thaw) name() string            { return "container.thaw" }
func (UpdateResources) name() string { return "container.update-resources" }
func (WatchHealth) name() string     { return "container.watch-health" }
func (UnwatchHealth) name() string   { return "container.unwatch-health" }
func (HoldUserNS) name() string      { return "container.hold-userns" }
func (ReleaseUserNS) name() string   { return "container.release-userns" }
func (LoadArchive) name() string     { return "image.load-archive" }
func (Reconcile) name() string       { return "image.reconcile" }
func (NameImage) name() string       { return "image.set-names" }
func (RemoveImage) name() string     { return "image.remove-content" }
func (ApplyLayer) name() string      { return "layer.apply" }
func (RemoveLayer) name() string     { return "layer.remove" }
func (CreateNetwork) name() string   { return "network.create" }
func (RemoveNetwork) name() string   { return "network.remove" }
func (ReplaceDriver) name() string   { return "driver.replace" }
func (StopDriver) name() string      { return "driver.stop" }
func (GiveBack) name() string        { return "driver.give-back" }

// StepBehind names the step whose good end an event tells, for people who read
// the log; "" for events that no step has brought.
func StepBehind(event string) string {
	switch event {
	case "container.rootfs-prepared":
		return PrepareRootfs{}.name()
	case "container.network-attached":
		return AttachNetwork{}.name()
	case "container.started":
		return StartProcess{}.name()
	case "container.signaled":
		return SignalProcess{}.name()
	case "container.grace-ended":
		return Wait{}.name()
	case "container.process-released", "container.exec-released":
		return ReleaseProcess{}.name()
	case "container.exec-started":
		return StartExec{}.name()
	case "container.paused":
		return Freeze{}.name()
	case "container.unpaused":
		return Thaw{}.name()
	case "container.updated":
		return UpdateResources{}.name()
	case "container.health-watched":
		return WatchHealth{}.name()
	case "container.health-unwatched":
		return UnwatchHealth{}.name()
	case "container.userns-held":
		return HoldUserNS{}.name()
	case "container.userns-released":
		return ReleaseUserNS{}.name()
	case "container.restart-due":
		return Wait{}.name()
	case "container.network-detached":
		return DetachNetwork{}.name()
	case "container.rootfs-released":
		return ReleaseRootfs{}.name()
	case "container.log-removed":
		return RemoveLog{}.name()
	case "image.archive-loaded":
		return LoadArchive{}.name()
	case "image.load-settled":
		return Reconcile{}.name()
	case "image.named":
		return NameImage{}.name()
	case "image.removed":
		return RemoveImage{}.name()
	case "layer.applied":
		return ApplyLayer{}.name()
	case "layer.removed":
		return RemoveLayer{}.name()
	case "network.up":
		return CreateNetwork{}.name()
	case "network.down", "network.removed":
		return RemoveNetwork{}.name()
	case "driver.replaced":
		return ReplaceDriver{}.name()
	case "driver.stopped":
		return StopDriver{}.name()
	case "driver.stray-given-back":
		return GiveBack{}.name()
	}
	return ""
}
