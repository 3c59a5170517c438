// Package query names what can be asked of the engine, with what goes in and
// what comes out. A query is answered from memory (those of the log from its
// files); it changes nothing and waits for nobody. Every answer says as of
// which event it is, so that an asker can go on from there with events.
//
//	name               in          out
//	engine.info        –           Info
//	engine.hash        –           Hash
//	container.list     ListIn      Containers
//	container.inspect  RefIn       ContainerDetail
//	container.why      RefIn       Why
//	container.exec     RefIn       ExecDetail
//	image.list         –           Images
//	image.inspect      RefIn       ImageDetail
//	network.list       –           Networks
//	network.inspect    RefIn       NetworkDetail
//	driver.list        –           Drivers
//	driver.inspect     RefIn       DriverDetail
//	job.list           JobsIn      Jobs
//	job.inspect        RefIn       JobDetail
//	noun.resolve       ResolveIn   Resolved
//	step.list          –           Steps
//	log.read           LogIn       LogPage
//
// A reference that finds nothing is NotFound, with the nearest right name as
// the hint; an ambiguous prefix is InvalidArgument.
package query

import (
	"encoding/json"
	"time"

	"github.com/gantryd/gantry/core"
)

// The names of the queries.
const (
	EngineInfo       = "engine.info"
	EngineHash       = "engine.hash"
	ContainerList    = "container.list"
	ContainerInspect = "container.inspect"
	ContainerWhy     = "container.why"
	ContainerExec    = "container.exec"
	ImageList        = "image.list"
	ImageInspect     = "image.inspect"
	NetworkList      = "network.list"
	NetworkInspect   = "network.inspect"
	DriverList       = "driver.list"
	DriverInspect    = "driver.inspect"
	JobList          = "job.list"
	JobInspect       = "job.inspect"
	NounResolve      = "noun.resolve"
	StepList         = "step.list"
	LogRead          = "log.read"
)

// RefIn asks for one thing: by name, id, or unique prefix of the id.
type RefIn struct {
	Ref string `json:"ref"`
}

// ResolveIn asks what a reference means. Kind is container, image, network or
// driver; the empty one tries container, image, network in this order.
type ResolveIn struct {
	Kind string `json:"kind,omitempty"`
	Ref  string `json:"ref"`
}

// Resolved is what a reference means.
type Resolved struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // an image's first name
	Seq  uint64 `json:"seq"`
}

// Info is about the engine and the machine.
type Info struct {
	Seq     uint64      `json:"seq"`
	Engine  core.Engine `json:"engine"`
	PID     int         `json:"pid"`
	Started time.Time   `json:"started"` // the process
	// Opening says that the engine answers as of its last end, and takes commands,
	// but decides on nothing yet: the log is being compared with its replica.
	Opening bool   `json:"opening,omitempty"`
	Root    string `json:"root,omitempty"`
	Run     string `json:"run,omitempty"`

	Hostname     string `json:"hostname,omitempty"`
	Kernel       string `json:"kernel,omitempty"`
	OS           string `json:"os,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	CPUs         int    `json:"cpus,omitempty"`
	MemoryBytes  int64  `json:"memory_bytes,omitempty"`

	Containers int      `json:"containers"`
	Running    int      `json:"running"`
	Images     int      `json:"images"`
	Networks   int      `json:"networks"`
	OpenJobs   int      `json:"open_jobs"`
	Owed       int      `json:"owed"`      // steps
	InFlight   int      `json:"in_flight"` // steps
	Warnings   []string `json:"warnings,omitempty"`

	Security []Protection `json:"security,omitempty"`

	Strays map[string]core.Item `json:"strays,omitempty"` // quarantined: held for nobody, may bear work
}

// Protection is one thing that keeps containers in, as it is in force here.
type Protection struct {
	Name    string `json:"name"` // "seccomp", "AppArmor", …
	Have    bool   `json:"have"`
	Detail  string `json:"detail,omitempty"`  // what is in force, or what was found instead
	Follows string `json:"follows,omitempty"` // from its absence; empty when it is there
}

// Hash identifies the state after an event.
type Hash struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"` // of the state, SHA-256
	Log  string `json:"log"`  // of the record that ends with Seq
}

// Step is a step that is owed.
type Step struct {
	ID     core.StepID `json:"id"`
	Name   string      `json:"name"`             // e.g. "container.prepare-rootfs"
	Driver string      `json:"driver,omitempty"` // "kind/name"; empty for the engine's own clock
	// State is waiting (for its slot, its driver's turn, or its retry), sent,
	// running (it was acknowledged) or cancelling.
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"` // when it was first handed out
	Tries int       `json:"tries,omitempty"`
	Last  string    `json:"last,omitempty"` // sentence of the last failure that is being tried again
}

// Steps are the steps owed and in flight.
type Steps struct {
	Seq   uint64 `json:"seq"`
	Steps []Step `json:"steps"`
}

// JobsIn filters jobs.
type JobsIn struct {
	Open  bool   `json:"open,omitempty"`  // only those that have not ended
	Noun  string `json:"noun,omitempty"`  // only those about this kind of noun
	ID    string `json:"id,omitempty"`    // only those about this id of Noun
	Limit int    `json:"limit,omitempty"` // the newest so many; 0: 200
}

// Jobs are jobs, newest first.
type Jobs struct {
	Seq  uint64     `json:"seq"`
	Jobs []core.Job `json:"jobs"`
}

// JobDetail is one job and what it still owes.
type JobDetail struct {
	Seq   uint64   `json:"seq"`
	Job   core.Job `json:"job"`
	Steps []Step   `json:"steps,omitempty"` // that its noun owes
}

// LogIn asks for a page of events. Zero fields do not filter.
type LogIn struct {
	From  uint64    `json:"from,omitempty"`  // first sequence; 0: the first of all, or with Tail the tail's
	To    uint64    `json:"to,omitempty"`    // last sequence; 0: the newest
	Since time.Time `json:"since,omitzero"`  // events' own time not before
	Until time.Time `json:"until,omitzero"`  // events' own time not after
	Noun  string    `json:"noun,omitempty"`  // kind
	ID    string    `json:"id,omitempty"`    // of Noun: events about it, and the jobs about it
	Job   string    `json:"job,omitempty"`   // events of this job
	Actor *uint32   `json:"actor,omitempty"` // events of jobs of this uid
	Limit int       `json:"limit,omitempty"` // at most so many; 0 and more than 1,000: 1,000
}

// LogPage is one page. Ask again with From = Next until Done.
type LogPage struct {
	Head   uint64            `json:"head"`   // last sequence in the log when it was asked
	Next   uint64            `json:"next"`   // the sequence to go on with
	Done   bool              `json:"done"`   // nothing is left up to To or Head
	Events []json.RawMessage `json:"events"` // as they are in the log
}

// Why is the chain of causes of a container's present state.
type Why struct {
	Seq       uint64    `json:"seq"`
	Container Container `json:"container"`
	// Chain begins with the newest event and follows the causes down to the
	// job that somebody asked for, or to what was seen from outside.
	Chain []Link `json:"chain"`
	Steps []Step `json:"steps,omitempty"` // that it still owes
}

// Link is one event of a chain.
type Link struct {
	Event json.RawMessage `json:"event"` // as it is in the log
	// Guessed says that the event names no cause, and that the next link is
	// what came before it in the same container.
	Guessed bool      `json:"guessed,omitempty"`
	Job     *core.Job `json:"job,omitempty"` // of the last link: who asked
}
