package core

import (
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Spec is what a container is to be, merged with its image: replay needs no
// image. Only fields that something acts on are here; docs/adr/0008 maps
// Docker's container-create onto these groups.
type Spec struct {
	Process   Process           `json:"process"`
	Rootfs    Rootfs            `json:"rootfs,omitzero"`
	Resources Resources         `json:"resources,omitzero"`
	Security  Security          `json:"security,omitzero"`
	Network   NetworkSpec       `json:"network,omitzero"`
	Logging   Logging           `json:"logging,omitzero"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Process is the program and how it is talked to.
type Process struct {
	Entrypoint  []string      `json:"entrypoint,omitempty"`
	Cmd         []string      `json:"cmd,omitempty"`
	Env         []Env         `json:"env,omitempty"`
	Cwd         string        `json:"cwd,omitempty"`
	User        string        `json:"user,omitempty"`
	OpenStdin   bool          `json:"open_stdin,omitempty"`
	StopSignal  int           `json:"stop_signal,omitempty"`     // 0: SIGTERM
	StopTimeout time.Duration `json:"stop_timeout_ns,omitempty"` // 0: 10 s
}

// Args is the whole command line.
func (p Process) Args() []string {
	return append(append([]string(nil), p.Entrypoint...), p.Cmd...)
}

// Env is one environment variable. A value that a person gave is sealed by the
// engine's edge before the core sees it: what stands here is then ciphertext,
// and only the name is readable. Values out of an image are as public as the
// image and stay in clear.
type Env struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Sealed bool   `json:"sealed,omitempty"`
}

// Rootfs is about the root filesystem.
type Rootfs struct {
	ReadOnly bool `json:"read_only,omitempty"`
}

// Resources are limits; zero means none.
type Resources struct {
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	NanoCPUs    int64 `json:"nano_cpus,omitempty"` // 1e9 is one processor
	PidsLimit   int64 `json:"pids_limit,omitempty"`
}

// Security says how far the process is kept in.
type Security struct {
	Privileged      bool     `json:"privileged,omitempty"`
	CapAdd          []string `json:"cap_add,omitempty"`
	CapDrop         []string `json:"cap_drop,omitempty"`
	NoNewPrivileges bool     `json:"no_new_privileges,omitempty"`
	Seccomp         string   `json:"seccomp,omitempty"` // "": the default profile; "unconfined"
}

// NetworkSpec says what the container is called and connected to.
type NetworkSpec struct {
	Hostname string `json:"hostname,omitempty"` // empty: the id's first twelve digits
	Network  string `json:"network,omitempty"`  // as given; empty: "bridge"
}

// Logging says how output is kept.
type Logging struct {
	Driver   string `json:"driver,omitempty"` // "" and "local": the shim's file; "none"
	MaxBytes int64  `json:"max_bytes,omitempty"`
	MaxFiles int    `json:"max_files,omitempty"`
}

const defaultStopTimeout = 10 * time.Second

// memoryFloor is the least memory limit that Docker's users know: less than
// that no process can be started in.
const memoryFloor = 6 << 20

// check refuses what cannot be, by field and value.
func (sp *Spec) check() error {
	p, r := &sp.Process, &sp.Resources
	switch {
	case p.Cwd != "" && !path.IsAbs(p.Cwd):
		return refuse(errdefs.ErrInvalidArgument, "the working directory %q is invalid: it must be an absolute path", p.Cwd)
	case p.StopSignal < 0 || p.StopSignal > 64:
		return refuse(errdefs.ErrInvalidArgument, "stop signal %d is not between 1 and 64", p.StopSignal)
	case p.StopTimeout < 0:
		return refuse(errdefs.ErrInvalidArgument, "stop timeout %v is negative", p.StopTimeout)
	case r.MemoryBytes < 0 || r.MemoryBytes > 0 && r.MemoryBytes < memoryFloor:
		return refuse(errdefs.ErrInvalidArgument, "memory limit %d is less than the minimum of %d bytes (6m)", r.MemoryBytes, int64(memoryFloor))
	case r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return refuse(errdefs.ErrInvalidArgument, "%g CPUs are less than the minimum of 0.01", float64(r.NanoCPUs)/1e9)
	case r.PidsLimit < -1:
		return refuse(errdefs.ErrInvalidArgument, "pids limit %d: use a positive number, or -1 for none", r.PidsLimit)
	case sp.Security.Seccomp != "" && sp.Security.Seccomp != "unconfined":
		return refuse(errdefs.ErrInvalidArgument, "seccomp profile %q: only the default one and \"unconfined\" are supported yet", sp.Security.Seccomp)
	}
	switch sp.Logging.Driver {
	case "", "local", "json-file", "none":
	default:
		return refuse(errdefs.ErrInvalidArgument, "log driver %q is not supported yet: use local, json-file or none", sp.Logging.Driver)
	}
	for _, e := range p.Env {
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
			return refuse(errdefs.ErrInvalidArgument, "environment variable name %q is invalid", e.Name)
		}
	}
	return checkArgs(p.Args())
}

func checkArgs(args []string) error {
	if len(args) == 0 || args[0] == "" {
		return refuse(errdefs.ErrInvalidArgument, "no command specified, and the image names none")
	}
	for _, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return refuse(errdefs.ErrInvalidArgument, "argument %q holds a NUL byte", a)
		}
	}
	return nil
}

// mergeImage fills what the command left out from the image, as Docker does:
// an entrypoint of one's own also drops the image's command.
func (sp Spec) mergeImage(i *ImageConfig) Spec {
	p := &sp.Process
	if p.Entrypoint == nil {
		p.Entrypoint = i.Entrypoint
		if len(p.Cmd) == 0 {
			p.Cmd = i.Cmd
		}
	}
	if len(p.Entrypoint) == 1 && p.Entrypoint[0] == "" {
		p.Entrypoint = nil // --entrypoint "" resets the image's
	}
	p.Env = mergeEnv(i.Env, p.Env)
	if p.Cwd == "" {
		p.Cwd = i.Cwd
	}
	if p.User == "" {
		p.User = i.User
	}
	if p.StopSignal == 0 {
		p.StopSignal = i.StopSignal
	}
	if len(i.Labels) > 0 {
		labels := make(map[string]string, len(i.Labels)+len(sp.Labels))
		for k, v := range i.Labels {
			labels[k] = v
		}
		for k, v := range sp.Labels {
			labels[k] = v
		}
		sp.Labels = labels
	}
	return sp
}

// mergeEnv is base with over's values; the order of first mention stays.
func mergeEnv(base, over []Env) []Env {
	merged := make([]Env, 0, len(base)+len(over))
	at := make(map[string]int, len(base)+len(over))
	for _, list := range [2][]Env{base, over} {
		for _, e := range list {
			if i, ok := at[e.Name]; ok {
				merged[i] = e
				continue
			}
			at[e.Name] = len(merged)
			merged = append(merged, e)
		}
	}
	return merged
}
