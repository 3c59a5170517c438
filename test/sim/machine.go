package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
)

// machine is what drivers work on: what they hold, by key, and processes. It
// checks what no kernel would forgive.
type machine struct {
	s       *sim
	held    map[string]bool
	drivers map[string]string // of networks, by id: the driver that made them
	procs   map[string]*proc  // by key, from the start to the release
	ends    map[string]int    // codes of all ends that were seen on the machine, by key
	lost    map[string]bool   // runs whose end nobody saw
	busy    map[string]*run   // by slot: the step that runs now
	health  map[string]string // by the watch's key: what was found last
}

// proc is one run of a container, or an exec in it.
type proc struct {
	key       string
	container core.ContainerID
	run       uint64
	exec      core.ExecID
	shares    string // key of the run whose process namespace it is in; it ends with it
	ooms      uint64
	pending   int // a signal that came while it stood still
	exited    bool
	code      int
	signal    int
	deaf      bool // to SIGTERM
	kills     int  // so many SIGKILLs are without effect, as in an uninterruptible sleep
}

func newMachine(s *sim) *machine {
	return &machine{
		s: s, held: make(map[string]bool), drivers: make(map[string]string), procs: make(map[string]*proc),
		ends: make(map[string]int), lost: make(map[string]bool), busy: make(map[string]*run), health: make(map[string]string),
	}
}

func rootfsKey(id core.ContainerID) string { return "rootfs " + string(id) }
func logKey(id core.ContainerID) string    { return "log " + string(id) }
func imageKey(id core.ImageID) string      { return "image " + string(id) }
func layerKey(id core.LayerID) string      { return "layer " + string(id) }
func networkKey(id core.NetworkID) string  { return "network " + string(id) }
func processKey(id core.ContainerID, run uint64) string {
	return fmt.Sprintf("process %s %d", id, run)
}
func endpointKey(n core.NetworkID, id core.ContainerID, run uint64) string {
	return fmt.Sprintf("endpoint %s %s %d", n, id, run)
}

// makes, needs and releases say what a step does to the world.
func makes(st core.Step) []string {
	switch st := st.(type) {
	case *core.PrepareRootfs:
		return []string{rootfsKey(st.Container)}
	case *core.AttachNetwork:
		return []string{endpointKey(st.Network, st.Container, st.Run)}
	case *core.StartProcess:
		return []string{processKey(st.Container, st.Run), logKey(st.Container)}
	case *core.StartExec:
		return []string{execKey(st.Container, st.Run, st.Exec)}
	case *core.Freeze:
		return []string{frozenKey(st.Container, st.Run)}
	case *core.WatchHealth:
		return []string{watchKey(st.Container, st.Run)}
	case *core.HoldUserNS:
		return []string{usernsKey(st.Container)}
	case *core.ApplyLayer:
		return []string{layerKey(st.Layer)}
	case *core.CreateNetwork:
		return []string{networkKey(st.Network)}
	}
	return nil
}

func needs(st core.Step) []string {
	switch st := st.(type) {
	case *core.StartProcess:
		if st.Spec.Security.UserNS == "private" {
			return []string{rootfsKey(st.Container), usernsKey(st.Container)}
		}
		return []string{rootfsKey(st.Container)}
	case *core.AttachNetwork:
		if st.UserNS.Path != "" {
			return []string{networkKey(st.Network), st.UserNS.Path} // the user namespace's key, see bring
		}
		return []string{networkKey(st.Network)}
	case *core.PrepareRootfs:
		if st.Layer != "" {
			return []string{layerKey(st.Layer)}
		}
	case *core.ApplyLayer:
		if st.Parent != "" {
			return []string{layerKey(st.Parent)}
		}
	}
	return nil
}

func releases(st core.Step) []string {
	switch st := st.(type) {
	case *core.ReleaseRootfs:
		return []string{rootfsKey(st.Container)}
	case *core.DetachNetwork:
		return []string{endpointKey(st.Network, st.Container, st.Run)}
	case *core.Thaw:
		return []string{frozenKey(st.Container, st.Run)}
	case *core.UnwatchHealth:
		return []string{watchKey(st.Container, st.Run)}
	case *core.ReleaseUserNS:
		return []string{usernsKey(st.Container)}
	case *core.ReleaseProcess:
		if st.Exec != "" {
			return []string{execKey(st.Container, st.Run, st.Exec)}
		}
		if st.RemoveLog {
			return []string{processKey(st.Container, st.Run), logKey(st.Container)}
		}
		return []string{processKey(st.Container, st.Run)}
	case *core.RemoveLog:
		return []string{logKey(st.Container)}
	case *core.RemoveLayer:
		return []string{layerKey(st.Layer)}
	case *core.RemoveNetwork:
		return []string{networkKey(st.Network)}
	case *core.RemoveImage:
		return []string{imageKey(st.Image)}
	case *core.GiveBack:
		switch i := st.Item; i.Kind {
		case "endpoint":
			return []string{endpointKey(core.NetworkID(i.Network), core.ContainerID(i.Key), i.Run)}
		case "process":
			if i.Exec != "" {
				return []string{execKey(core.ContainerID(i.Key), i.Run, core.ExecID(i.Exec))}
			}
			return []string{processKey(core.ContainerID(i.Key), i.Run)}
		default:
			return []string{i.Kind + " " + i.Key}
		}
	}
	return nil
}

// begin notes that a step runs, and checks that it may.
func (m *machine) begin(r *run) {
	slot := core.StepID(r.step.ID).Slot()
	if other := m.busy[slot]; other != nil {
		m.s.fail("step %s runs beside %s of the same slot", r.step.ID, other.step.ID)
	}
	if !r.stale {
		for _, slot := range sortedKeys(m.busy) {
			m.apart(r, m.busy[slot])
		}
	}
	m.busy[slot] = r
}

// apart checks that neither of two steps takes away what the other one works with.
func (m *machine) apart(a, b *run) {
	for _, two := range [2][2]*run{{a, b}, {b, a}} {
		taker, user := two[0], two[1]
		if b.stale {
			continue
		}
		with := append(append(makes(user.st), needs(user.st)...), releases(user.st)...)
		for _, k := range releases(taker.st) {
			if slices.Contains(with, k) && !m.s.taken[k] {
				m.s.fail("step %s runs beside %s: both touch %s", taker.step.ID, user.step.ID, k)
			}
		}
	}
}

func (m *machine) end(r *run) {
	if slot := core.StepID(r.step.ID).Slot(); m.busy[slot] == r {
		delete(m.busy, slot)
	}
}

// lacking is what a step needs and is not there; somebody must have taken it.
func (m *machine) lacking(r *run) string {
	need := needs(r.st)
	if k := m.stopped(r); k != "" {
		return k
	}
	if start, ok := r.st.(*core.StartProcess); ok {
		for k := range m.held {
			f := strings.Fields(k)
			if f[0] == "process" && f[1] == string(start.Container) && k != processKey(start.Container, start.Run) {
				m.s.fail("step %s: %s is there still", r.step.ID, k)
			}
		}
		if len(start.Rootfs) == 0 || start.Endpoint.Namespace.Mode == "" {
			m.s.fail("step %s lacks its root filesystem or its network: %s", r.step.ID, r.step.Body)
		}
		if private := start.Spec.Security.UserNS == "private"; private != (len(start.IDMap.UIDs) == 1) || private && start.UserNS.Path == "" {
			m.s.fail("step %s lacks its user namespace: %s", r.step.ID, r.step.Body)
		}
		if mode := start.Endpoint.Namespace; mode.Mode == "path" && start.Shares.Network == nil {
			need = append(need, mode.Path) // the endpoint's key, see bring
		}
		if want := m.s.secrets[start.Container]; want != "" && !slices.ContainsFunc(start.Spec.Process.Env, func(e core.Env) bool { return e.Value == want && !e.Sealed }) {
			m.s.fail("step %s lacks the secret of its container", r.step.ID)
		}
	}
	for _, k := range need {
		if m.held[k] {
			continue
		}
		if !m.s.taken[k] && !r.stale {
			m.s.fail("step %s runs without %s", r.step.ID, k)
		}
		return k
	}
	return ""
}

// do has a step's effect, and says what it brings.
func (m *machine) do(r *run) core.Result {
	for _, k := range makes(r.st) {
		m.hold(k)
	}
	m.beside(r.st)
	for _, k := range releases(r.st) {
		m.release(k)
	}
	switch st := r.st.(type) {
	case *core.StartProcess:
		m.start(st)
	case *core.SignalProcess:
		k := processKey(st.Container, st.Run)
		if st.Exec != "" {
			k = execKey(st.Container, st.Run, st.Exec)
		}
		m.signal(m.procs[k], st.Signal)
	case *core.CreateNetwork:
		_, m.drivers[string(st.Network)] = st.Driver()
	case *core.AttachNetwork:
		_, m.drivers[string(st.Network)] = st.Driver()
	case *core.LoadArchive:
		for _, i := range archive(st.Archive) {
			m.hold(imageKey(i.ID))
		}
	}
	return bring(r.st)
}

// bring is the result of a step that is done.
func bring(st core.Step) core.Result {
	switch st := st.(type) {
	case *core.PrepareRootfs:
		return core.Result{Mounts: []core.Mount{{Type: "overlay", Source: "overlay", Target: "/"}}}
	case *core.AttachNetwork:
		at := core.Namespace{Mode: "path", Path: endpointKey(st.Network, st.Container, st.Run), Inode: 7}
		return core.Result{Endpoint: &core.Endpoint{Namespace: at, Interface: "eth0"}}
	case *core.StartProcess:
		return core.Result{Started: &core.Started{PID: 100, Log: "/log"}}
	case *core.StartExec:
		return core.Result{Started: &core.Started{PID: 200}}
	case *core.HoldUserNS:
		return core.Result{UserNS: &core.Namespace{Mode: "path", Path: usernsKey(st.Container), Inode: 8}}
	case *core.ApplyLayer:
		return core.Result{Size: 5}
	case *core.LoadArchive:
		return core.Result{Images: archive(st.Archive)}
	}
	return core.Result{}
}

func (m *machine) hold(k string) {
	m.held[k] = true
	delete(m.s.spoilt, k)
	delete(m.s.missed, k)
}

func (m *machine) release(k string) {
	delete(m.held, k)
	if p := m.procs[k]; p != nil {
		p.exited = true // whatever is left of it is killed
		delete(m.procs, k)
		if p.exec == "" {
			m.endBeside(p)
		}
	}
}

func (m *machine) start(st *core.StartProcess) {
	k := processKey(st.Container, st.Run)
	if m.procs[k] != nil {
		return // asked again: it answers with what is there
	}
	if _, ended := m.ends[k]; ended {
		m.s.fail("run %d of container %.12s is started a second time", st.Run, st.Container)
	}
	p := &proc{key: k, container: st.Container, run: st.Run, deaf: m.s.r.IntN(3) == 0}
	if m.s.r.IntN(8) == 0 {
		p.kills = 1 + m.s.r.IntN(2)
	}
	if st.Shares.PID != nil {
		p.shares = processKey(st.Shares.PID.Container, st.Shares.PID.Run)
	}
	m.procs[k] = p
	life := m.s.between(0, 2*time.Minute)
	if m.s.r.IntN(3) == 0 {
		life = m.s.between(0, 20*time.Millisecond)
	}
	m.live(p, life)
	if m.s.r.IntN(6) == 0 {
		m.s.after(m.s.between(0, life), func() { m.oom(p) })
	}
}

func (m *machine) signal(p *proc, signal int) {
	if p == nil || p.exited {
		return
	}
	switch {
	case signal == 9 && p.kills > 0:
		delete(m.held, frozenKey(p.container, p.run))
		p.kills--
		return
	case signal != 9 && m.still(p):
		p.pending = signal
		return
	case signal == 9, signal == 15 && !p.deaf:
		m.s.after(m.s.between(0, 5*time.Millisecond), func() { m.exit(p, 128+signal, signal) })
	}
}

// exit ends a process by itself.
func (m *machine) exit(p *proc, code, signal int) {
	if p.exited || m.procs[p.key] != p {
		return
	}
	p.exited, p.code, p.signal = true, code, signal
	m.ends[p.key] = code
	m.s.trace("%s ends with %d", p.key, code)
	if p.exec == "" {
		m.endBeside(p)
	}
	if m.s.host != nil {
		m.s.host.exited(p)
	}
}

// reboot takes away what lives in memory.
func (m *machine) reboot() {
	for _, k := range sortedKeys(m.held) {
		switch kind, _, _ := strings.Cut(k, " "); kind {
		case "process", "exec", "frozen", "userns", "endpoint", "network":
			if p := m.procs[k]; p != nil {
				p.exited = true
				m.lost[k] = true // also if it had ended: what its shim has written is gone
			}
			delete(m.held, k)
			delete(m.procs, k)
		}
	}
}

// owner is the driver that holds a key; "" for what no inventory lists.
func (m *machine) owner(k string) string {
	f := strings.Fields(k)
	switch f[0] {
	case "layer", "rootfs":
		return "graphdriver/overlay"
	case "image":
		return "image/oci"
	case "process", "exec", "userns":
		return "exec/native"
	case "network", "endpoint":
		if d := m.drivers[f[1]]; d != "" {
			return "net/" + d
		}
		return "net/bridge"
	}
	return ""
}

// inventory is what a driver holds.
func (m *machine) inventory(driver string) []core.Item {
	var items []core.Item
	for _, k := range sortedKeys(m.held) {
		if m.owner(k) != driver {
			continue
		}
		f := strings.Fields(k)
		item := core.Item{Kind: f[0], Key: f[1], State: "held"}
		switch f[0] {
		case "process", "exec":
			item.Kind, item.Run, item.State = "process", number(f[2]), "running"
			if f[0] == "exec" {
				item.Exec = f[3]
			}
			if p := m.procs[k]; p != nil && p.exited {
				item.State = "exited"
			}
		case "endpoint":
			item.Network, item.Key, item.Run = f[1], f[2], number(f[3])
		}
		items = append(items, item)
	}
	return items
}

func number(s string) uint64 {
	var n uint64
	if _, err := fmt.Sscan(s, &n); err != nil {
		panic(err)
	}
	return n
}

// archive is what an archive holds: its images by the letters of its name.
func archive(path string) []core.LoadedImage {
	var images []core.LoadedImage
	for _, c := range strings.TrimPrefix(path, "/archives/") {
		images = append(images, loaded(string(c)))
	}
	return images
}

// loaded is an image with two layers, the lower one shared by all. "A" is another
// image by the name of "a".
func loaded(name string) core.LoadedImage {
	sum := func(s string) string { return fmt.Sprintf("sha256:%064x", s) }
	return core.LoadedImage{
		ID: core.ImageID(sum("cfg" + name)), Manifest: sum("man" + name), Names: []string{reference(strings.ToLower(name))},
		Layers: []core.ImageLayer{
			{ID: core.LayerID(sum("base")), DiffID: sum("d0"), Digest: sum("b0"), MediaType: "tar", Size: 5, Path: "/blobs/base"},
			{ID: core.LayerID(sum("top" + name)), DiffID: sum("d1" + name), Digest: sum("b1" + name), MediaType: "tar", Size: 7, Path: "/blobs/" + name},
		},
		Size: 12, OS: "linux", Architecture: "amd64", Config: core.ImageConfig{Cmd: []string{"sh"}},
	}
}

func reference(name string) string { return "docker.io/library/" + name + ":latest" }
