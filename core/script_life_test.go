package core

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The words of scripts for a container's whole life.

// option reads one option of create.
func (s *script) option(sp *Spec, w string) {
	key, value, _ := strings.Cut(w, "=")
	if id, ok := strings.CutPrefix(value, "container:"); ok {
		value = "container:" + string(s.container(id))
	}
	switch key {
	case "net":
		sp.Network.Network = value
	case "pid":
		sp.Security.PID = value
	case "ipc":
		sp.Security.IPC = value
	case "userns":
		sp.Security.UserNS = value
	case "mem":
		sp.Resources.MemoryBytes, _ = strconv.ParseInt(value, 10, 64)
	case "restart":
		policy, most, _ := strings.Cut(value, ":")
		sp.Restart.Policy = policy
		sp.Restart.Max, _ = strconv.Atoi(most)
	case "health":
		sp.Health = &Health{Test: []string{"CMD", value}}
	case "unhealthy":
		sp.Restart.Unhealthy = true
	}
}

// detail is what the line of an event tells besides its head.
func (s *script) detail(ev Event) string {
	exec := func(id ExecID) string { return " exec=" + s.short(string(id)) }
	switch ev := ev.(type) {
	case *ExecWanted:
		return exec(ev.Exec)
	case *ExecStarted:
		return exec(ev.Exec)
	case *ExecFailed:
		return exec(ev.Exec) + " " + ev.Fault.Class
	case *ExecExited:
		if ev.Exit.Lost {
			return exec(ev.Exec) + fmt.Sprintf(" code=%d lost", ev.Exit.Code)
		}
		return exec(ev.Exec) + fmt.Sprintf(" code=%d", ev.Exit.Code)
	case *ExecReleased:
		return exec(ev.Exec)
	case *ContainerRestartPlanned:
		if ev.ByHand {
			return " by hand"
		}
		return fmt.Sprintf(" count=%d delay=%v", ev.Count, ev.Delay)
	case *ContainerUpdated:
		return fmt.Sprintf(" mem=%d", ev.Resources.MemoryBytes)
	case *HealthChanged:
		return fmt.Sprintf(" %s probes=%d", ev.Status, len(ev.Probes))
	case *OOMKilled:
		return fmt.Sprintf(" kills=%d new=%d", ev.Kills, ev.New)
	case *StartFailed:
		return " " + ev.Fault.Class
	}
	return ""
}

func (s *script) execID(name string) ExecID {
	s.names[string(execID(name))] = name
	s.names[string(execID(name))[:16]] = name
	return execID(name)
}

// life carries out a command of a container's life, if it is one.
func (s *script) life(f []string) bool {
	s.t.Helper()
	var id ContainerID
	run := uint64(0)
	if len(f) > 1 && f[1][0] == 'c' {
		id = s.container(f[1])
		if c := s.s.Containers[id]; c != nil {
			run = c.Process.Run
		}
	}
	switch f[0] {
	case "exec":
		s.wish(&ExecContainer{ID: id, Exec: s.execID(f[2]), Spec: ExecSpec{Args: []string{"true"}}})
	case "exec-exit":
		n, _ := strconv.Atoi(f[3])
		s.deliver(&ReportExit{Container: id, Run: run, Exec: s.execID(f[2]), Code: n, Time: s.clock})
	case "exec-kill":
		n, _ := strconv.Atoi(f[3])
		s.wish(&KillContainer{ID: id, Exec: s.execID(f[2]), Signal: n})
	case "pause":
		s.wish(&PauseContainer{ID: id})
	case "unpause":
		s.wish(&UnpauseContainer{ID: id})
	case "update":
		s.wish(s.update(id, f[2]))
	case "again":
		grace := time.Second
		s.wish(&RestartContainer{ID: id, Timeout: &grace})
	case "prepare":
		s.wish(&PrepareContainer{ID: id})
	case "health":
		s.deliver(&ReportHealth{Container: id, Run: run, Status: f[2], Streak: 3, Probes: []HealthProbe{{Code: 1, Output: "no"}}})
	case "oom":
		n, _ := strconv.ParseUint(f[2], 10, 64)
		s.deliver(&ReportOOM{Container: id, Run: run, Count: n, Time: s.clock})
	case "status":
		fmt.Fprintf(&s.out, "  %s is %s\n", f[1], s.s.Containers[id].Status())
	case "ids":
		if m := s.s.Containers[id].IDMap; m != nil {
			fmt.Fprintf(&s.out, "  %s has ids from %d\n", f[1], m.UIDs[0].Host)
		} else {
			fmt.Fprintf(&s.out, "  %s has no ids\n", f[1])
		}
	case "pass":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.clock = s.clock.Add(d)
	default:
		return false
	}
	return true
}

func (s *script) update(id ContainerID, change string) *UpdateContainer {
	u := &UpdateContainer{ID: id}
	key, value, _ := strings.Cut(change, "=")
	switch key {
	case "mem":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		u.Change.MemoryBytes = &n
	case "restart":
		u.Restart = &Restart{Policy: value}
	}
	return u
}
