package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gantryd/gantry/core"
)

// What a run has beside its first process: execs, a freezer, a watch over its
// health, the kernel's word on memory.

func usernsKey(id core.ContainerID) string { return "userns " + string(id) }
func frozenKey(id core.ContainerID, run uint64) string {
	return fmt.Sprintf("frozen %s %d", id, run)
}
func watchKey(id core.ContainerID, run uint64) string { return fmt.Sprintf("watch %s %d", id, run) }
func execKey(id core.ContainerID, run uint64, exec core.ExecID) string {
	return fmt.Sprintf("exec %s %d %s", id, run, exec)
}

// still reports whether a process stands still.
func (m *machine) still(p *proc) bool { return m.held[frozenKey(p.container, p.run)] }

// stopped is the process that a step works on and that does not run; "" for none.
func (m *machine) stopped(r *run) string {
	alive := func(id core.ContainerID, run uint64) string {
		k := processKey(id, run)
		if p := m.procs[k]; p == nil || p.exited {
			return k
		}
		return ""
	}
	switch st := r.st.(type) {
	case *core.StartExec:
		if p := m.procs[processKey(st.Container, st.Run)]; p != nil && m.still(p) && !r.stale {
			m.s.fail("step %s joins what stands still", r.step.ID)
		}
		if want := m.s.secrets[st.Container]; want != "" && !slices.ContainsFunc(st.Spec.Env, func(e core.Env) bool { return e.Value == want && !e.Sealed }) {
			m.s.fail("step %s lacks the secret of its container", r.step.ID)
		}
		if want := m.s.execSecrets[st.Exec]; want != "" && !slices.ContainsFunc(st.Spec.Env, func(e core.Env) bool { return e.Value == want && !e.Sealed }) {
			m.s.fail("step %s lacks its own secret", r.step.ID)
		}
		return alive(st.Container, st.Run)
	case *core.Freeze:
		return alive(st.Container, st.Run)
	case *core.UpdateResources:
		return alive(st.Container, st.Run)
	case *core.WatchHealth:
		return alive(st.Container, st.Run)
	case *core.StartProcess:
		for _, k := range []*core.RunKey{st.Shares.PID, st.Shares.IPC, st.Shares.UTS, st.Shares.Network} {
			if k == nil {
				continue
			}
			if gone := alive(k.Container, k.Run); gone != "" {
				return gone // the driver refuses it by name
			}
		}
	}
	return ""
}

// beside has the effect of a step on what a run has beside its first process.
func (m *machine) beside(st core.Step) {
	switch st := st.(type) {
	case *core.StartExec:
		m.startExec(st)
	case *core.Thaw:
		m.s.after(0, func() { m.thawed(st.Container, st.Run) })
	case *core.WatchHealth:
		m.watch(st)
	}
}

func (m *machine) startExec(st *core.StartExec) {
	k := execKey(st.Container, st.Run, st.Exec)
	if m.procs[k] != nil {
		return // asked again: it answers with what is there
	}
	if _, ended := m.ends[k]; ended {
		m.s.fail("exec %.12s of container %.12s is started a second time", st.Exec, st.Container)
	}
	p := &proc{key: k, container: st.Container, run: st.Run, exec: st.Exec, deaf: m.s.r.IntN(3) == 0}
	m.procs[k] = p
	life := m.s.between(0, 20*time.Millisecond)
	if m.s.r.IntN(3) == 0 {
		life = m.s.between(0, 30*time.Second)
	}
	m.live(p, life)
}

// live has a process end by itself. It does not while it stands still, nor when
// all is calm: what runs then runs on.
func (m *machine) live(p *proc, life time.Duration) {
	m.s.after(life, func() {
		switch {
		case p.exited:
		case m.still(p), m.s.calm:
			m.live(p, time.Second)
		default:
			m.exit(p, m.s.r.IntN(4), 0)
		}
	})
}

// thawed delivers what came while processes stood still.
func (m *machine) thawed(id core.ContainerID, run uint64) {
	if m.held[frozenKey(id, run)] {
		return
	}
	for _, k := range sortedKeys(m.procs) {
		if p := m.procs[k]; p.container == id && p.run == run && p.pending != 0 {
			signal := p.pending
			p.pending = 0
			m.signal(p, signal)
		}
	}
}

// endBeside: with a run's first process its execs end, nothing stands still, and
// those end who are in its process namespace.
func (m *machine) endBeside(p *proc) {
	delete(m.held, frozenKey(p.container, p.run))
	for _, k := range sortedKeys(m.procs) {
		q := m.procs[k]
		if q.exec != "" && q.container == p.container && q.run == p.run || q.shares == p.key {
			m.s.after(m.s.between(0, time.Millisecond), func() { m.exit(q, 137, 9) })
		}
	}
}

// watch has a host probe a run: now and then its health changes.
func (m *machine) watch(st *core.WatchHealth) {
	k := watchKey(st.Container, st.Run)
	m.health[k] = st.Status
	m.s.after(m.s.between(time.Millisecond, 10*time.Second), func() { m.probe(k, st) })
}

func (m *machine) probe(k string, st *core.WatchHealth) {
	p := m.procs[processKey(st.Container, st.Run)]
	if !m.held[k] || p == nil || p.exited || m.s.calm {
		return
	}
	status := pick(m.s.r, core.Healthy, core.Unhealthy)
	if m.s.host != nil && !m.still(p) && status != m.health[k] && m.s.host.tell(&core.ReportHealth{
		Container: st.Container, Run: st.Run, Status: status, Probes: []core.HealthProbe{{Output: "probed"}},
	}) {
		m.health[k] = status
	}
	m.s.after(m.s.between(time.Second, 30*time.Second), func() { m.probe(k, st) })
}

// oom is the kernel's killing in a run for want of memory.
func (m *machine) oom(p *proc) {
	if p.exited || m.s.calm {
		return
	}
	p.ooms++
	if m.s.host != nil {
		m.s.host.tell(p.oomReport())
	}
}

func (p *proc) oomReport() core.Command {
	return &core.ReportOOM{Container: p.container, Run: p.run, Count: p.ooms}
}

// forgetWatches: whoever has watched is dead.
func (m *machine) forgetWatches() {
	for _, k := range sortedKeys(m.held) {
		if len(k) > 6 && k[:6] == "watch " {
			delete(m.held, k)
			m.s.spoilt[k] = true
		}
	}
}

// tell reports what the exec driver's instance has seen, if there is one.
func (h *host) tell(c core.Command) bool {
	d := h.drivers["exec/native"]
	if h.dead || d.instance == "" {
		return false
	}
	instance := d.instance
	d.insist("report", "report "+d.id, func() bool { return d.instance == instance }, d.reporter(instance, c), func(error) {})
	return true
}
