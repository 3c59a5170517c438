package cli

import (
	"path"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// The forms of Docker's inspect: those of its keys that say something here. The
// names are Docker's, in JSON and in templates alike.
type (
	dockerContainer struct {
		Id              string
		Created         time.Time
		Path            string
		Args            []string
		State           dockerState
		Image           string
		LogPath         string
		Name            string
		Driver          string `json:",omitempty"`
		Config          dockerConfig
		HostConfig      dockerHostConfig
		NetworkSettings dockerNetworks
		Gantry          gantryState
	}

	dockerState struct {
		Status     string
		Running    bool
		Paused     bool
		Restarting bool
		OOMKilled  bool
		Dead       bool
		Pid        int
		ExitCode   int
		Error      string
		StartedAt  time.Time
		FinishedAt time.Time
	}

	dockerConfig struct {
		Hostname    string
		User        string
		OpenStdin   bool
		Tty         bool
		Env         []string
		Cmd         []string
		Image       string
		WorkingDir  string
		Entrypoint  []string
		Labels      map[string]string
		StopSignal  string `json:",omitempty"`
		StopTimeout int    `json:",omitempty"`
	}

	dockerHostConfig struct {
		LogConfig      dockerLog
		NetworkMode    string
		AutoRemove     bool
		CapAdd         []string
		CapDrop        []string
		Privileged     bool
		ReadonlyRootfs bool
		SecurityOpt    []string
		Memory         int64
		NanoCpus       int64
		PidsLimit      int64
	}

	dockerLog struct{ Type string }

	dockerNetworks struct {
		IPAddress  string
		Gateway    string
		MacAddress string
		Networks   map[string]dockerEndpoint
	}

	dockerEndpoint struct {
		NetworkID   string
		IPAddress   string
		IPPrefixLen int
		Gateway     string
		MacAddress  string
	}

	// gantryState is what Docker has no word for.
	gantryState struct {
		Want  core.Want
		Run   uint64
		Holds []string
		Jobs  []core.JobID `json:",omitempty"`
		Steps []query.Step `json:",omitempty"`
	}
)

// containerView is a container in Docker's form.
func containerView(d *query.ContainerDetail) dockerContainer {
	sp := &d.State.Spec
	v := dockerContainer{
		Id: string(d.ID), Created: d.Created.UTC(), Image: string(d.ImageID), LogPath: d.LogPath, Name: "/" + d.Name,
		State: stateView(d), Config: configView(d), HostConfig: hostConfigView(d),
		NetworkSettings: networksView(d.Networks),
		Gantry:          gantryState{Want: d.Want, Run: d.Run, Holds: d.Holds, Steps: d.Steps},
	}
	if v.LogPath == "" {
		v.LogPath = d.State.LogPath
	}
	if args := sp.Process.Args(); len(args) > 0 {
		v.Path, v.Args = args[0], args[1:]
	}
	for _, j := range d.Jobs {
		v.Gantry.Jobs = append(v.Gantry.Jobs, j.ID)
	}
	return v
}

func stateView(d *query.ContainerDetail) dockerState {
	s := dockerState{Status: d.Status, Running: d.Running, Pid: d.PID, StartedAt: d.Started.UTC()}
	if d.Exit != nil {
		s.FinishedAt = d.Exit.Time.UTC()
		s.OOMKilled = d.Exit.OOMKilled
	}
	if !d.Running {
		s.ExitCode = exitCodeOf(&d.Container)
	}
	if d.Fault != nil {
		s.Error = d.Fault.Message
	}
	return s
}

func configView(d *query.ContainerDetail) dockerConfig {
	p := &d.State.Spec.Process
	c := dockerConfig{
		Hostname: d.State.Spec.Network.Hostname, User: p.User, OpenStdin: p.OpenStdin, Cmd: p.Cmd,
		Image: familiar(d.Image), WorkingDir: p.Cwd, Entrypoint: p.Entrypoint, Labels: d.Labels,
		StopTimeout: int(p.StopTimeout / time.Second), Env: environmentView(p.Env),
	}
	if c.Hostname == "" {
		c.Hostname = short(string(d.ID))
	}
	if p.StopSignal != 0 {
		c.StopSignal = signalName(p.StopSignal)
	}
	return c
}

// environmentView is Docker's list. A sealed value is not shown.
func environmentView(env []core.Env) []string {
	var list []string
	for _, e := range env {
		if e.Sealed {
			list = append(list, e.Name+"=(sealed)")
			continue
		}
		list = append(list, e.Name+"="+e.Value)
	}
	return list
}

func hostConfigView(d *query.ContainerDetail) dockerHostConfig {
	sp := &d.State.Spec
	h := dockerHostConfig{
		LogConfig: dockerLog{sp.Logging.Driver}, NetworkMode: sp.Network.Network, AutoRemove: d.AutoRemove,
		CapAdd: sp.Security.CapAdd, CapDrop: sp.Security.CapDrop, Privileged: sp.Security.Privileged,
		ReadonlyRootfs: sp.Rootfs.ReadOnly, Memory: sp.Resources.MemoryBytes, NanoCpus: sp.Resources.NanoCPUs,
		PidsLimit: sp.Resources.PidsLimit,
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "local"
	}
	if h.NetworkMode == "" {
		h.NetworkMode = "bridge"
	}
	if sp.Security.NoNewPrivileges {
		h.SecurityOpt = append(h.SecurityOpt, "no-new-privileges")
	}
	if sp.Security.Seccomp != "" {
		h.SecurityOpt = append(h.SecurityOpt, "seccomp="+sp.Security.Seccomp)
	}
	return h
}

func networksView(list []query.Attachment) dockerNetworks {
	v := dockerNetworks{Networks: make(map[string]dockerEndpoint)}
	for _, n := range list {
		e := dockerEndpoint{NetworkID: string(n.Network)}
		if ip := n.Address.IP; n.Held && ip.IsValid() {
			e.IPAddress, e.IPPrefixLen, e.MacAddress = ip.Addr().String(), ip.Bits(), n.Address.MAC
			if n.Address.Gateway.IsValid() {
				e.Gateway = n.Address.Gateway.String()
			}
		}
		v.Networks[n.NetworkName] = e
		if v.IPAddress == "" {
			v.IPAddress, v.Gateway, v.MacAddress = e.IPAddress, e.Gateway, e.MacAddress
		}
	}
	return v
}

// driverName is the program's name of a driver, "gantry-net-bridge".
func driverName(id string) string {
	kind, name := path.Split(id)
	return "gantry-" + path.Clean(kind) + "-" + name
}
