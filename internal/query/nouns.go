package query

import (
	"time"

	"github.com/gantryd/gantry/core"
)

// ListIn filters containers.
type ListIn struct {
	All bool `json:"all,omitempty"` // also those that do not run
}

// Containers are containers, newest first.
type Containers struct {
	Seq        uint64      `json:"seq"`
	Containers []Container `json:"containers"`
}

// Container is a container in a line.
type Container struct {
	ID         core.ContainerID  `json:"id"`
	Name       string            `json:"name"`
	Image      string            `json:"image"` // as given
	ImageID    core.ImageID      `json:"image_id"`
	Command    []string          `json:"command"`
	Created    time.Time         `json:"created"`
	Status     string            `json:"status"` // created, running, paused, restarting, removing, exited, dead
	Want       core.Want         `json:"want"`
	Running    bool              `json:"running,omitempty"`
	Run        uint64            `json:"run,omitempty"` // number of the newest run
	PID        int               `json:"pid,omitempty"`
	Started    time.Time         `json:"started,omitzero"`
	Exit       *core.Exit        `json:"exit,omitempty"`  // of the newest ended run
	Fault      *core.Fault       `json:"fault,omitempty"` // why the last start failed
	Networks   []Attachment      `json:"networks,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Mounts     []string          `json:"mounts,omitempty"` // host paths that were asked for
	AutoRemove bool              `json:"auto_remove,omitempty"`
	Holds      []string          `json:"holds,omitempty"` // slots that hold something: rootfs, net-…, process, log, userns

	Paused   bool   `json:"paused,omitempty"`
	Health   string `json:"health,omitempty"`    // starting, healthy, unhealthy; empty: it is not probed
	Restarts int    `json:"restarts,omitempty"`  // by its policy, since somebody started it
	OOMKills uint64 `json:"oom_kills,omitempty"` // in the newest run
	Execs    int    `json:"execs,omitempty"`     // that have not ended
}

// Attachment is a container in a network.
type Attachment struct {
	Container     core.ContainerID `json:"container"`
	ContainerName string           `json:"container_name"`
	Network       core.NetworkID   `json:"network"`
	NetworkName   string           `json:"network_name"`
	Address       core.Address     `json:"address,omitzero"`
	Held          bool             `json:"held,omitempty"` // the endpoint is there
}

// ContainerDetail is all about a container. Sealed values are left out of State.
type ContainerDetail struct {
	Seq uint64 `json:"seq"`
	Container
	LogPath string         `json:"log_path,omitempty"`
	State   core.Container `json:"state"` // as it is folded
	Jobs    []core.Job     `json:"open_jobs,omitempty"`
	Steps   []Step         `json:"steps,omitempty"` // that it owes
}

// ExecDetail is all about an exec. Sealed values are left out.
type ExecDetail struct {
	Seq           uint64           `json:"seq"`
	Container     core.ContainerID `json:"container"`
	ContainerName string           `json:"container_name"`
	Exec          core.Exec        `json:"exec"`
}

// Images are images, newest first.
type Images struct {
	Seq    uint64  `json:"seq"`
	Images []Image `json:"images"`
}

// Image is an image in a line.
type Image struct {
	ID           core.ImageID `json:"id"`
	Names        []string     `json:"names,omitempty"` // full references, sorted
	Manifest     string       `json:"manifest"`
	Created      time.Time    `json:"created,omitzero"`
	Size         int64        `json:"size"`     // bytes of the layer archives
	Unpacked     int64        `json:"unpacked"` // bytes of the unpacked layers
	Architecture string       `json:"architecture,omitempty"`
	OS           string       `json:"os,omitempty"`
	Ready        bool         `json:"ready,omitempty"`
	Want         core.Want    `json:"want"`
	Containers   int          `json:"containers"` // made from it
}

// ImageDetail is all about an image.
type ImageDetail struct {
	Seq uint64 `json:"seq"`
	Image
	State  core.Image   `json:"state"`
	Layers []core.Layer `json:"layers,omitempty"` // lowest first
	Steps  []Step       `json:"steps,omitempty"`
}

// Networks are networks by name.
type Networks struct {
	Seq      uint64    `json:"seq"`
	Networks []Network `json:"networks"`
}

// Network is a network in a line.
type Network struct {
	ID       core.NetworkID `json:"id"`
	Name     string         `json:"name"`
	Driver   string         `json:"driver"`
	Builtin  bool           `json:"builtin,omitempty"`
	Subnet   string         `json:"subnet,omitempty"`
	Gateway  string         `json:"gateway,omitempty"`
	Internal bool           `json:"internal,omitempty"`
	Want     core.Want      `json:"want"`
	Held     bool           `json:"held,omitempty"` // it is made on the machine
}

// NetworkDetail is all about a network.
type NetworkDetail struct {
	Seq uint64 `json:"seq"`
	Network
	State       core.Network `json:"state"`
	Attachments []Attachment `json:"attachments,omitempty"`
	Steps       []Step       `json:"steps,omitempty"`
}

// Drivers are the drivers that the log knows, by id.
type Drivers struct {
	Seq     uint64   `json:"seq"`
	Drivers []Driver `json:"drivers"`
}

// Driver is a driver in a line.
type Driver struct {
	core.Driver
	Chosen   bool `json:"chosen,omitempty"`    // the engine uses it for every container, or a network does
	InFlight int  `json:"in_flight,omitempty"` // steps it was asked for and has not ended
	Waiting  int  `json:"waiting,omitempty"`   // steps that wait for their turn
}

// DriverDetail is all about a driver.
type DriverDetail struct {
	Seq uint64 `json:"seq"`
	Driver
	Steps []Step `json:"steps,omitempty"` // that it is asked for, or will be
}
