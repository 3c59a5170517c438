package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
)

// leastContainers is how many containers every story has.
const leastContainers = 5

// patience is how long the world may take to come to rest, and maxSteps in how
// many steps of the scheduler.
const (
	patience = 2 * time.Hour
	maxSteps = 2_000_000
)

// ending lets everything settle, checks it, has everything removed, and checks
// that nothing is left.
func (s *sim) ending() {
	s.calm = true
	s.plan = crashPlan{}
	s.disk.calm()
	s.settleWith(func(*core.State) bool { return true })
	for _, d := range driverNames() { // one may have been disabled late
		s.clients.say(&core.EnableDriver{Driver: d})
	}
	state := s.settle()
	s.compare(state, false)
	// What was taken, put or left over is seen by inventories alone.
	for _, d := range driverNames() {
		s.renew(d)
	}
	state = s.settle()
	s.compare(state, true)
	s.removeAll(state)
	s.retire(true)
	s.settle()
	s.retire(false)
	s.settle()
	for _, d := range driverNames() {
		s.renew(d)
	}
	state = s.settle()
	s.empty(state)
	s.history()
}

// renew has a driver's instance end and another one say what is there.
func (s *sim) renew(id string) {
	d := s.host.drivers[id]
	if d.instance == "" {
		d.serve(func(error) {})
		return
	}
	d.crash()
}

// settle lets everything go on until nothing moves and nothing is owed.
func (s *sim) settle() *core.State { return s.settleWith(s.rests) }

// settleWith waits until nothing moves and enough says so.
func (s *sim) settleWith(enough func(*core.State) bool) *core.State {
	latest := s.now + patience
	for steps := 0; ; steps++ {
		if s.quiet() {
			if state := s.fold(); enough(state) {
				return state
			}
		}
		if s.now > latest || steps > maxSteps {
			s.restless()
		}
		s.step()
	}
}

// quiet reports whether nothing is on its way.
func (s *sim) quiet() bool {
	if s.e == nil || s.host == nil || s.flying > 0 || s.clients.open > 0 || s.host.telling > 0 || s.e.Queued() > 0 || s.e.Busy() > 0 {
		return false
	}
	for _, d := range s.host.drivers {
		if d.changing || len(d.running) > 0 {
			return false
		}
	}
	return true
}

// fold is the state after the log's last event. It goes on where it was the last
// time; what was durable then has not changed.
func (s *sim) fold() *core.State {
	err := s.log.Read(s.folded.Seq+1, func(r eventlog.Record) error {
		if r.First <= s.folded.Seq {
			return nil
		}
		return r.Lines(func(_ uint64, line []byte) error {
			event, err := core.DecodeEvent(line)
			if err == nil {
				s.folded.Apply(event)
			}
			return err
		})
	})
	if err != nil {
		s.fail("fold the log: %v", err)
	}
	return s.folded
}

// rests reports whether nothing is owed. Who waits for a process to end by itself
// is helped.
func (s *sim) rests(state *core.State) bool {
	rest := true
	for _, st := range state.Owed() {
		w, wait := st.(core.Wait)
		if wait && strings.Contains(string(st.ID()), "/backoff/") && w.Length >= time.Minute {
			// It is tried again for ever: what it needs does not come.
			s.clients.say(&core.StopContainer{ID: core.ContainerID(st.ID().Noun().ID)})
		}
		if wait && w.Length > time.Hour {
			id := core.ContainerID(st.ID().Noun().ID)
			if p := s.machine.procs[processKey(id, state.Containers[id].Process.Run)]; p != nil {
				s.machine.exit(p, 0, 0)
			}
		}
		rest = false
	}
	return rest
}

func (s *sim) restless() {
	state := s.fold()
	var owed []string
	for _, st := range state.Owed() {
		owed = append(owed, string(st.ID()))
	}
	s.fail("the world does not come to rest: flying %d, open commands %d, told %d, queued %d, busy %d, owed %q",
		s.flying, s.clients.open, s.host.telling, s.e.Queued(), s.e.Busy(), owed)
}

// compare checks the state at rest against the engine's folds and the world.
// Unless all drivers have just said what they hold, what somebody took or put, and
// what a reading that failed has left in the image store, is left out.
func (s *sim) compare(state *core.State, told bool) {
	head, durable := s.e.Folds()
	if log := state.Hash(); head != durable || durable != log {
		s.fail("at rest the folds differ: head %.12s, durable %.12s, log %.12s", head, durable, log)
	}
	for _, id := range sortedKeys(state.Jobs) {
		if j := state.Jobs[id]; j.Open() {
			s.fail("job %s (%s of %s) is open although nothing is owed", id, j.Command, j.Noun)
		}
	}
	s.unique(state)
	want, sure := heldBy(state)
	for _, k := range sortedKeys(want) {
		switch {
		case s.machine.held[k] || !sure[k] || strings.HasPrefix(k, "log "):
		case !told && (s.spoilt[k] || strings.HasPrefix(k, "image ")):
		case s.spoilt[k] && strings.HasPrefix(k, "endpoint "): // not asked for while the process runs
		default:
			s.fail("the log says that %s is held, and it is not", k)
		}
	}
	for _, k := range sortedKeys(s.machine.held) {
		switch {
		case want[k]:
		case !told && (slices.Contains(s.strays, k) || s.taken[k] || strings.HasPrefix(k, "image ")):
		case s.quarantined(state, k):
		default:
			s.fail("%s is held, and the log does not say so", k)
		}
	}
	s.ends(state)
}

func (s *sim) quarantined(state *core.State, k string) bool {
	f := strings.Fields(k)
	for _, i := range state.Strays {
		if i.Kind == f[0] && i.Key == f[1] {
			return true
		}
	}
	return false
}

// unique checks that no name and no address is given twice.
func (s *sim) unique(state *core.State) {
	names, addresses := make(map[string]core.ContainerID), make(map[string]core.ContainerID)
	ids := make(map[uint32]core.ContainerID)
	for _, id := range sortedKeys(state.Containers) {
		c := state.Containers[id]
		if other, ok := names[c.Name]; ok && c.Want != core.Removed {
			s.fail("containers %.12s and %.12s are both named %s", other, id, c.Name)
		}
		names[c.Name] = id
		if c.IDMap != nil {
			host := c.IDMap.UIDs[0].Host
			if other, ok := ids[host]; ok {
				s.fail("containers %.12s and %.12s both have ids from %d", other, id, host)
			}
			ids[host] = id
		}
		for _, n := range c.Nets {
			if !n.Address.IP.IsValid() {
				continue
			}
			a := string(n.Network) + n.Address.IP.String()
			if other, ok := addresses[a]; ok {
				s.fail("containers %.12s and %.12s both have address %s", other, id, n.Address.IP)
			}
			addresses[a] = id
		}
	}
}

// ends checks that what runs is known to run, and how the rest ended.
func (s *sim) ends(state *core.State) {
	for _, id := range sortedKeys(state.Containers) {
		c := state.Containers[id]
		s.execEnds(c)
		p := s.machine.procs[processKey(id, c.Process.Run)]
		if alive := p != nil && !p.exited; alive != c.Running() {
			s.fail("container %.12s run %d: alive %v, the log says %v", id, c.Process.Run, alive, c.Running())
		}
		if alive := p != nil && !p.exited; alive && p.ooms != c.OOMKills {
			s.fail("container %.12s run %d: the kernel has killed %d times, the log says %d", id, c.Process.Run, p.ooms, c.OOMKills)
		}
		if health := s.machine.health[watchKey(id, c.Process.Run)]; c.Running() && c.Watch.State == core.Held && health != c.Health.Status {
			s.fail("container %.12s run %d is %s, the log says %s", id, c.Process.Run, health, c.Health.Status)
		}
		if c.Exit != nil {
			s.end(processKey(id, c.Exit.Run), c.Exit)
		}
	}
}

// end checks one end that the log tells.
func (s *sim) end(k string, exit *core.Exit) {
	code, seen := s.machine.ends[k]
	switch {
	case exit.Lost && !s.machine.lost[k]:
		s.fail("%s ended with %d, and the log says that nobody knows: %+v", k, code, exit)
	case !exit.Lost && (!seen || code != exit.Code):
		s.fail("%s ended with %d (seen %v), the log says %+v", k, code, seen, exit)
	}
}

// execEnds checks a container's execs.
func (s *sim) execEnds(c *core.Container) {
	for i := range c.Execs {
		x := &c.Execs[i]
		k := execKey(c.ID, x.Run, x.ID)
		p := s.machine.procs[k]
		if alive, open := p != nil && !p.exited, x.State == core.Held && !x.Exited; alive != open {
			s.fail("%s: alive %v, the log says %v", k, alive, open)
		}
		if x.Exit != nil {
			s.end(k, x.Exit)
		}
	}
}

// heldBy is what the state says may be held, and what surely is.
func heldBy(state *core.State) (may, sure map[string]bool) {
	may, sure = make(map[string]bool), make(map[string]bool)
	note := func(slot core.SlotState, k string) {
		may[k] = slot != core.Absent
		sure[k] = slot == core.Held
	}
	for id, c := range state.Containers {
		note(c.Rootfs.State, rootfsKey(id))
		note(c.Process.State, processKey(id, c.Process.Run))
		note(c.Log.State, logKey(id))
		note(c.UserNS.State, usernsKey(id))
		note(c.Paused.State, frozenKey(id, c.Process.Run))
		note(c.Watch.State, watchKey(id, c.Watch.Run))
		for i := range c.Execs {
			note(c.Execs[i].State, execKey(id, c.Execs[i].Run, c.Execs[i].ID))
		}
		for _, n := range c.Nets {
			note(n.State, endpointKey(n.Network, id, n.Run))
		}
	}
	for id, l := range state.Layers {
		note(l.Slot.State, layerKey(id))
	}
	for id, i := range state.Images {
		note(i.Store.State, imageKey(id))
	}
	for id, n := range state.Networks {
		note(n.Slot.State, networkKey(id))
	}
	return may, sure
}

// removeAll has everything removed.
func (s *sim) removeAll(state *core.State) {
	for _, id := range sortedKeys(state.Containers) {
		s.clients.say(&core.RemoveContainer{ID: id, Force: true})
	}
	state = s.settle()
	for _, id := range sortedKeys(state.Containers) {
		s.fail("container %.12s is still there: %+v", id, state.Containers[id])
	}
	for _, id := range sortedKeys(state.Images) {
		s.clients.say(&core.DropImage{Image: string(id), Force: true})
	}
	for _, id := range sortedKeys(state.Networks) {
		if !state.Networks[id].Builtin {
			s.clients.say(&core.DropNetwork{ID: id})
		}
	}
	s.settle()
}

// empty checks that nothing is left of all, but what the engine may not touch.
func (s *sim) empty(state *core.State) {
	s.compare(state, true)
	if again, err := engine.Fold(s.log); err != nil || again.Hash() != state.Hash() {
		s.fail("the log folds to another state: %v", err)
	}
	if n := len(state.Containers) + len(state.Images) + len(state.Layers); n > 0 {
		s.fail("%d containers, %d images and %d layers are left in the log", len(state.Containers), len(state.Images), len(state.Layers))
	}
	for _, k := range sortedKeys(s.machine.held) {
		if !s.quarantined(state, k) {
			s.fail("%s is left after everything was removed", k)
		}
	}
	if len(s.keys.kept) > 0 {
		s.fail("keys of containers that are gone are left: %v", sortedKeys(s.keys.kept))
	}
}

// history reads the whole log: it verifies, every job is accepted once, nothing
// secret is in it.
func (s *sim) history() {
	sum, err := eventlog.VerifyFS(context.Background(), s.disk.files, func(f eventlog.Finding) { s.fail("the log is damaged: %s", f) })
	if err != nil || sum.Torn || sum.Head != s.log.Head() {
		s.fail("verify the log: %+v, %v", sum, err)
	}
	accepted := make(map[string]uint64)
	err = s.log.Read(1, func(r eventlog.Record) error {
		if bytes.Contains(r.Payload, []byte("s3cret-")) {
			return fmt.Errorf("record %d holds a secret in clear", r.First)
		}
		if bytes.Contains(r.Payload, []byte(`"class":"deadline-exceeded"`)) {
			s.cover.see("class", "deadline-exceeded")
		}
		return r.Lines(func(seq uint64, line []byte) error { return s.line(accepted, seq, line) })
	})
	if err != nil {
		s.fail("read the log: %v", err)
	}
	if s.created < leastContainers {
		s.fail("only %d containers were made", s.created)
	}
	for _, job := range s.clients.sent {
		if seq := s.clients.acked[job].seq; accepted[job] != seq {
			s.fail("job %s was acknowledged as %d, the log has it at %d", job, seq, accepted[job])
		}
	}
}

// counted checks that one end, or one start of the engine, has brought one
// restart at most.
func (s *sim) counted(h core.Header) error {
	switch h.Name {
	case "engine.started":
		s.ended["engine"] = h.Seq
	case "container.restart-planned":
		if max(s.ended[h.ID], s.ended["engine"]) < s.planned[h.ID] {
			return fmt.Errorf("event %d: container %.12s is started again twice", h.Seq, h.ID)
		}
		s.planned[h.ID] = h.Seq
	default:
		s.ended[h.ID] = h.Seq
	}
	return nil
}

func (s *sim) line(accepted map[string]uint64, seq uint64, line []byte) error {
	_, rest, _ := bytes.Cut(line, []byte(`"event":"`))
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	s.cover.see("event", string(name))
	if bytes.Contains(line, []byte(missing)) {
		return fmt.Errorf("event %d blames a container for what its driver had told the engine: %s", seq, line)
	}
	switch string(name) {
	case "container.grace-ended":
		s.cover.see("step", "container.wait") // it is the engine's own, and has no driver
		return nil
	case "container.created":
		s.created++
		return nil
	case "job.accepted", "engine.started", "container.exited", "container.start-failed", "container.restart-planned":
	default:
		return nil
	}
	var h core.Header
	if err := json.Unmarshal(line, &h); err != nil {
		return err
	}
	if h.Name != "job.accepted" {
		return s.counted(h)
	}
	if was := accepted[h.ID]; was != 0 {
		return fmt.Errorf("job %s is accepted at %d and at %d", h.ID, was, seq)
	}
	accepted[h.ID] = seq
	return nil
}
