package cli

import (
	"path"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// The forms of Docker's inspect: those of its keys that say something here. The
// names are Docker's, in JSON and in templates alike.
type (
	dockerContainer struct {
		Id              string
		Created         stamp
		Path            string
		Args            []string
		State           dockerState
		Image           string
		LogPath         string
		Name            string
		RestartCount    int
		Platform        string
		ExecIDs         []string
		HostConfig      dockerHostConfig
		Mounts          []dockerMount
		Config          dockerConfig
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
		StartedAt  stamp
		FinishedAt stamp
		Health     *dockerHealth `json:",omitempty"`
	}

	dockerHealth struct {
		Status        string
		FailingStreak int
		Log           []dockerProbe
	}

	dockerProbe struct {
		Start    time.Time
		End      time.Time
		ExitCode int
		Output   string
	}

	dockerConfig struct {
		Hostname    string
		Domainname  string
		User        string
		Tty         bool
		OpenStdin   bool
		StdinOnce   bool
		Env         []string
		Cmd         []string
		Image       string
		WorkingDir  string
		Entrypoint  []string
		Labels      map[string]string
		StopSignal  string            `json:",omitempty"`
		StopTimeout int               `json:",omitempty"`
		Healthcheck *dockerHealthTest `json:",omitempty"`
	}

	dockerNetworks struct {
		Ports      map[string]any // none can be published yet
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

	// dockerHealthTest has its times in nanoseconds.
	dockerHealthTest struct {
		Test          []string
		Interval      time.Duration `json:",omitempty"`
		Timeout       time.Duration `json:",omitempty"`
		StartPeriod   time.Duration `json:",omitempty"`
		StartInterval time.Duration `json:",omitempty"`
		Retries       int           `json:",omitempty"`
	}

	// gantryState is what Docker has no word for.
	gantryState struct {
		Want     core.Want
		Run      uint64
		Holds    []string
		Jobs     []core.JobID `json:",omitempty"`
		Steps    []query.Step `json:",omitempty"`
		OOMKills uint64       `json:",omitempty"`
		UIDMap   []string     `json:",omitempty"` // first id inside, first on the host, how many
		GIDMap   []string     `json:",omitempty"`
	}
)

// stamp is a moment as Docker's inspect tells it, by a template as in JSON.
type stamp struct{ time.Time }

func (s stamp) String() string { return s.Format(time.RFC3339Nano) }

// containerView is a container in Docker's form.
func containerView(d *query.ContainerDetail) dockerContainer {
	sp := d.State.Spec
	v := dockerContainer{
		Id: string(d.ID), Created: stamp{d.Created.UTC()}, Image: string(d.ImageID), LogPath: d.LogPath, Name: "/" + d.Name, Platform: "linux",
		State: stateView(d), Config: configView(d), HostConfig: hostConfigView(d),
		NetworkSettings: networksView(d.Networks), RestartCount: d.Restarts, Mounts: mountsView(sp.Mounts),
		Gantry: gantryState{Want: d.Want, Run: d.Run, Holds: d.Holds, Steps: d.Steps, OOMKills: d.OOMKills},
	}
	if v.LogPath == "" {
		v.LogPath = d.State.LogPath
	}
	if args := sp.Process.Args(); len(args) > 0 {
		v.Path, v.Args = args[0], args[1:]
	}
	for i := range d.State.Execs {
		if x := &d.State.Execs[i]; !x.Exited && x.Fault == nil {
			v.ExecIDs = append(v.ExecIDs, string(x.ID))
		}
	}
	if m := d.State.IDMap; m != nil {
		v.Gantry.UIDMap, v.Gantry.GIDMap = idMapView(m.UIDs), idMapView(m.GIDs)
	}
	for _, j := range d.Jobs {
		v.Gantry.Jobs = append(v.Gantry.Jobs, j.ID)
	}
	return v
}

func stateView(d *query.ContainerDetail) dockerState {
	s := dockerState{
		Status: d.Status, Running: d.Running || d.Status == "restarting", Paused: d.Status == "paused",
		Restarting: d.Status == "restarting", Dead: d.Status == "dead", Pid: d.PID, StartedAt: stamp{d.Started.UTC()},
		OOMKilled: d.OOMKills > 0, Health: healthView(d.State.Health),
	}
	if d.Exit != nil {
		s.FinishedAt = stamp{d.Exit.Time.UTC()}
		s.OOMKilled = s.OOMKilled || d.Exit.OOMKilled
	}
	if !d.Running {
		s.ExitCode = exitCodeOf(&d.Container)
		if d.Exit != nil {
			s.Error = d.Exit.Reason
		}
		if s.Error == "" && d.Exit != nil && d.Exit.LogEnd > 0 {
			s.Error = "the log lacks the end of the output: its disk did not take it"
		}
	}
	if d.Fault != nil {
		s.Error = d.Fault.Message
	}
	return s
}

func healthView(h *core.HealthState) *dockerHealth {
	if h == nil {
		return nil
	}
	v := &dockerHealth{Status: h.Status, FailingStreak: h.Streak, Log: []dockerProbe{}}
	for _, p := range h.Probes {
		v.Log = append(v.Log, dockerProbe{Start: p.Begun.UTC(), End: p.Ended.UTC(), ExitCode: p.Code, Output: p.Output})
	}
	return v
}

func configView(d *query.ContainerDetail) dockerConfig {
	p := &d.State.Spec.Process
	c := dockerConfig{
		Hostname: d.State.Spec.Network.Hostname, Domainname: d.State.Spec.Network.Domain, User: p.User, Tty: p.TTY,
		OpenStdin: p.OpenStdin, StdinOnce: p.StdinOnce, Cmd: p.Cmd,
		Image: familiar(d.Image), WorkingDir: p.Cwd, Entrypoint: p.Entrypoint, Labels: d.Labels,
		StopTimeout: int(p.StopTimeout / time.Second), Env: environmentView(p.Env),
	}
	shares := func(mode string) bool { return mode == "host" || strings.HasPrefix(mode, "container:") }
	if c.Hostname == "" && !shares(d.State.Spec.Security.UTS) && !shares(d.State.Spec.Network.Network) {
		c.Hostname = short(string(d.ID))
	}
	if h := d.State.Spec.Health; h != nil {
		c.Healthcheck = &dockerHealthTest{h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries}
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

func networksView(list []query.Attachment) dockerNetworks {
	v := dockerNetworks{Ports: map[string]any{}, Networks: make(map[string]dockerEndpoint)}
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
