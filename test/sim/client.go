package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
)

// clients send commands, each until there is an answer.
type clients struct {
	s     *sim
	jobs  int
	open  int
	acked map[string]*order // by job: the engine has said that it is accepted
	sent  []string          // their jobs, oldest first
	last  uint64            // the highest sequence that was acknowledged to anybody

	made       int // names of what was made
	containers []core.ContainerID
	networks   []core.NetworkID
	execs      []core.ExecID
	disabled   map[string]bool // drivers that may be
}

// order is one command on its way.
type order struct {
	job   string
	name  string
	body  []byte
	uid   uint32
	clash bool // it uses a job that was accepted for something else
	done  bool
	sends int
	seq   uint64
	err   error
}

func newClients(s *sim) *clients {
	return &clients{s: s, acked: make(map[string]*order), disabled: make(map[string]bool)}
}

// order makes a command a job.
func (c *clients) order(uid uint32, command core.Command) *order {
	body, err := json.Marshal(command)
	if err != nil {
		panic(err)
	}
	c.jobs++
	return &order{
		job: fmt.Sprintf("01900000-0000-7000-8000-%012x", c.jobs), name: core.CommandName(command), body: body, uid: 1000 + uid,
	}
}

// say sends a new command.
func (c *clients) say(command core.Command) *order {
	o := c.order(uint32(c.s.r.IntN(3)), command)
	c.send(o)
	return o
}

// send sends a command until there is an answer that counts.
func (c *clients) send(o *order) {
	c.open++
	c.s.trace("say %s %s %s", o.name, o.job, o.body)
	c.again(o)
}

func (c *clients) again(o *order) {
	s := c.s
	if o.done {
		return
	}
	o.sends++
	s.toEngine("command", "", func(e *engine.Engine) {
		command := bus.Command{Job: o.job, Name: o.name, Body: o.body, Client: "sim"}
		e.Command(bus.Actor{UID: o.uid}, command, func(r bus.Receipt, err error) {
			s.receipt(0, o.name, r, err)
			c.answered(o, r, err)
			s.wire("answer", "", func() { c.heard(o, err) })
		})
	})
	s.after(s.between(500*time.Millisecond, 2*time.Second), func() { c.again(o) })
}

// answered checks what the engine says, at the moment it says it.
func (c *clients) answered(o *order, r bus.Receipt, err error) {
	was := c.acked[o.job]
	switch {
	case o.clash:
		if err == nil {
			c.s.fail("job %s was accepted for %s %s, and is now for %s %s", o.job, was.name, was.body, o.name, o.body)
		}
		if errdefs.IsConflict(err) {
			c.s.cover.see("client", "another command under a job's id")
		}
	case err != nil:
		if errdefs.IsConflict(err) && was != nil {
			c.s.fail("job %s is repeated and refused: %v", o.job, err)
		}
	case was == nil:
		o.seq = r.Seq
		c.acked[o.job] = o
		c.sent = append(c.sent, o.job)
		c.last = max(c.last, r.Seq)
	default:
		c.s.cover.see("client", "a job repeated")
		if was.seq != r.Seq {
			c.s.fail("job %s has receipt %d, and %d when it is repeated", o.job, was.seq, r.Seq)
		}
	}
}

func (c *clients) heard(o *order, err error) {
	if o.done || err != nil && onTheWay(err) && o.sends < 6 {
		return
	}
	o.done, o.err = true, err
	c.open--
	if err != nil {
		c.s.trace("refused %s %s: %v", o.name, o.job, err)
	}
	if o.name == "container.create" && errdefs.IsNotFound(err) && c.s.chance(50) {
		c.say(&core.LoadImage{Archive: "/archives/" + pick(c.s.r, "a", "abc")})
	}
}

// repeat sends an accepted job's command anew, or another command under its id.
func (c *clients) repeat() {
	if len(c.sent) == 0 {
		return
	}
	was := c.acked[pick(c.s.r, c.sent...)]
	o := &order{job: was.job, name: was.name, body: was.body, uid: was.uid}
	switch c.s.r.IntN(3) {
	case 0:
		o.clash, o.uid = true, was.uid+1
	case 1:
		o.clash, o.body = true, append([]byte(" "), was.body...)
	}
	c.send(o)
}

func (c *clients) name(prefix string) string {
	c.made++
	return fmt.Sprintf("%s%063x", prefix, c.made)
}

func (c *clients) container() core.ContainerID {
	if len(c.containers) == 0 {
		return core.ContainerID(c.name("f"))
	}
	from := max(0, len(c.containers)-8)
	return c.containers[from+c.s.r.IntN(len(c.containers)-from)]
}

func (c *clients) create() *core.CreateContainer {
	r := c.s.r
	id := core.ContainerID(c.name("c"))
	c.containers = append(c.containers, id)
	k := &core.CreateContainer{
		ID: id, Name: containerName(r.IntN(7)), Image: reference(pick(r, "a", "a", "b", "c", "x")),
		Want: pick(r, core.Running, core.Running, core.Stopped), AutoRemove: r.IntN(3) == 0,
		Spec: core.Spec{Network: core.NetworkSpec{Network: pick(r, "", "", "none", "host", "web", "lan")}},
	}
	c.special(&k.Spec, k.AutoRemove)
	if r.IntN(4) == 0 {
		c.s.secrets[id] = "s3cret-" + string(id)
		k.Spec.Process.Env = []core.Env{{Name: "TOKEN", Value: c.s.secrets[id]}}
	}
	return k
}

// special is what some containers are beyond the ordinary.
func (c *clients) special(sp *core.Spec, remove bool) {
	r := c.s.r
	sp.Security.IPC = pick(r, "", "shareable")
	if r.IntN(3) == 0 {
		sp.Health = &core.Health{Test: []string{"CMD", "true"}}
	}
	if !remove {
		sp.Restart = core.Restart{Policy: pick(r, "", "", "always", "unless-stopped", "on-failure"), Unhealthy: r.IntN(3) == 0}
		if sp.Restart.Policy == "on-failure" {
			sp.Restart.Max = r.IntN(3)
		}
	}
	switch other := "container:" + string(c.container()); r.IntN(14) {
	case 0:
		sp.Network.Network = other
	case 1, 2:
		sp.Security.PID = other
	case 3:
		sp.Security.IPC = other
	case 4, 5:
		if sp.Network.Network != "host" {
			sp.Security.UserNS = "private"
		}
	}
}

// life is what people do with containers that run.
func (c *clients) life() core.Command {
	r := c.s.r
	id := c.running()
	c.made++
	exec := core.ExecID(fmt.Sprintf("a%015x%048x", c.made, 0)) // execs are known by their first 16 digits
	if len(c.execs) > 0 && r.IntN(2) == 0 {
		exec = c.execs[max(0, len(c.execs)-1-r.IntN(4))]
	}
	switch r.IntN(12) {
	case 0, 1, 2:
		x := &core.ExecContainer{ID: id, Exec: exec, Spec: core.ExecSpec{Args: []string{"true"}}}
		if r.IntN(3) == 0 && !slices.Contains(c.execs, exec) {
			c.s.execSecrets[exec] = "s3cret-" + string(exec)
		}
		if secret := c.s.execSecrets[exec]; secret != "" {
			x.Spec.Env = []core.Env{{Name: "EXEC_TOKEN", Value: secret}}
		}
		c.execs = append(c.execs, exec)
		return x
	case 3:
		return &core.KillContainer{ID: id, Exec: exec, Signal: pick(r, 9, 15)}
	case 4, 5:
		return &core.PauseContainer{ID: id}
	case 6, 7:
		return &core.UnpauseContainer{ID: id}
	case 8:
		memory := int64(32 << 20)
		return &core.UpdateContainer{ID: id, Change: core.ResourcesChange{MemoryBytes: &memory}}
	case 9:
		return &core.UpdateContainer{ID: id, Restart: &core.Restart{Policy: pick(r, "no", "always", "on-failure")}}
	case 10:
		return &core.PrepareContainer{ID: id}
	}
	grace := pick(r, 0, time.Second)
	return &core.RestartContainer{ID: id, Timeout: &grace}
}

// running is a container that runs, if there is one.
func (c *clients) running() core.ContainerID {
	var ids []core.ContainerID
	for _, k := range sortedKeys(c.s.machine.procs) {
		if p := c.s.machine.procs[k]; !p.exited && p.exec == "" {
			ids = append(ids, p.container)
		}
	}
	if len(ids) == 0 || c.s.r.IntN(10) == 0 {
		return c.container()
	}
	return pick(c.s.r, ids...)
}

func containerName(n int) string { return fmt.Sprint("name-", n) }

// command is some command or other.
func (c *clients) command() core.Command {
	r := c.s.r
	image := reference(pick(r, "a", "b", "c", "x"))
	switch k := r.IntN(54); {
	case k >= 40:
		return c.life()
	case k < 9:
		return c.create()
	case k < 14:
		return &core.StartContainer{ID: c.container()}
	case k < 18:
		grace := pick(r, 0, time.Second, 20*time.Second, -1)
		return &core.StopContainer{ID: c.container(), Timeout: &grace}
	case k < 20:
		return &core.KillContainer{ID: c.container(), Signal: pick(r, 1, 9, 15)}
	case k < 23:
		return &core.RemoveContainer{ID: c.container(), Force: r.IntN(2) == 0}
	case k < 26:
		return &core.LoadImage{Archive: "/archives/" + pick(r, "a", "b", "ab", "A", "c", "bc")}
	case k < 27:
		return &core.DropImage{Image: image, Force: r.IntN(2) == 0}
	case k < 28:
		return &core.TagImage{Image: image, Name: reference(pick(r, "b", "x", "y"))}
	case k < 31:
		id := core.NetworkID(c.name("e"))
		c.networks = append(c.networks, id)
		return &core.NewNetwork{ID: id, Name: pick(r, "web", "lan")}
	case k < 33 && len(c.networks) > 0:
		return &core.DropNetwork{ID: pick(r, c.networks[max(0, len(c.networks)-4):]...)}
	case k < 36:
		return &core.CancelJob{Target: core.JobID(fmt.Sprintf("01900000-0000-7000-8000-%012x", max(1, c.jobs-r.IntN(4))))}
	case k < 37:
		return &core.RenameContainer{ID: c.container(), Name: containerName(r.IntN(7))}
	case k < 38:
		return &core.SwapDriver{Driver: pick(r, driverNames()...), Path: "/drivers/other"}
	}
	return c.toggle(pick(r, driverNames()...))
}

// toggle disables a driver; one that was is enabled again after a while.
func (c *clients) toggle(driver string) core.Command {
	if c.disabled[driver] {
		delete(c.disabled, driver)
		return &core.EnableDriver{Driver: driver}
	}
	c.disabled[driver] = true
	c.s.after(c.s.between(10*time.Millisecond, 5*time.Second), func() { c.enable(driver) })
	return &core.DisableDriver{Driver: driver}
}

func (c *clients) enable(driver string) {
	if c.disabled[driver] {
		delete(c.disabled, driver)
		c.say(&core.EnableDriver{Driver: driver})
	}
}
