package core

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the scripts' expected output")

// TestScripts plays the stories of testdata/scripts: each paragraph is a
// command, a line of dashes, and what follows from it: events, then the steps
// that are owed. Run with -update and read the diff.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newScript(t).play(string(data))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(data) {
				t.Errorf("%s tells another story (run with -update and read the diff):\n%s", file, firstDifference(string(data), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "", ""
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\nwant: %s\ngot:  %s", i+1, a, b)
		}
	}
	return ""
}

// script plays one story; names stand for ids.
type script struct {
	*engine
	out   strings.Builder
	names map[string]string // id → name
	last  JobID
}

func newScript(t testing.TB) *script {
	s := &script{names: map[string]string{}}
	s.engine = newEngine(t)
	for _, n := range []string{"bridge", "host", "none"} {
		s.names[string(netID(n))] = n
	}
	s.onEvent = s.print
	return s
}

func (s *script) play(text string) string {
	var file strings.Builder
	for _, part := range strings.Split(text, "\n\n") {
		command, _, _ := strings.Cut(strings.TrimSpace(part), "\n----")
		if command == "" {
			continue
		}
		s.out.Reset()
		for _, line := range strings.Split(command, "\n") {
			if !strings.HasPrefix(line, "#") {
				s.command(strings.Fields(line))
			}
		}
		for _, st := range s.s.Owed() {
			fmt.Fprintf(&s.out, "  owed %s\n", s.short(string(st.ID())))
		}
		fmt.Fprintf(&file, "%s\n----\n%s\n", command, s.out.String())
	}
	return file.String()
}

// short puts names in the place of ids.
func (s *script) short(text string) string {
	ids := slices.SortedFunc(maps.Keys(s.names), func(a, b string) int { return len(b) - len(a) }) // the whole before its beginning
	for _, id := range ids {
		name := s.names[id]
		text = strings.ReplaceAll(text, id, name)
		if len(id) >= 12 {
			text = strings.ReplaceAll(text, "net-"+id[:12], "net-"+name)
		}
	}
	return text
}

func (s *script) print(ev Event) {
	h := ev.Head()
	line := fmt.Sprintf("  %d %s %s", h.Seq, h.Name, s.short(h.ID))
	if h.Job != "" {
		line += fmt.Sprintf(" job=%d", jobNumber(h.Job))
	}
	if h.Cause != 0 {
		line += fmt.Sprintf(" cause=%d", h.Cause)
	}
	switch ev := ev.(type) {
	case *JobAccepted:
		line = fmt.Sprintf("  %d job.accepted %d %s", h.Seq, jobNumber(h.Job), ev.Command)
	case *JobEnded:
		line = fmt.Sprintf("  %d job.ended %d %s", h.Seq, jobNumber(JobID(h.ID)), ev.Outcome)
	case *ContainerStartWanted:
		for _, a := range ev.Addresses {
			if a.IP.IsValid() {
				line += " " + a.IP.String()
			}
		}
	case *ProcessExited:
		line += fmt.Sprintf(" code=%d", ev.Exit.Code)
		if ev.Exit.Lost {
			line += " lost"
		}
		if ev.Again {
			line += " again"
		}
	case *ContainerSignaled:
		line += fmt.Sprintf(" signal=%d", ev.Signal)
	default:
		line += s.detail(ev)
	}
	fmt.Fprintln(&s.out, line)
}

func jobNumber(id JobID) int64 {
	n, _ := strconv.ParseInt(string(id[len(id)-12:]), 16, 64)
	return n
}

// wish sends a command as a job and tells a refusal.
func (s *script) wish(c Command) {
	id, err := s.job(c)
	if err != nil {
		fmt.Fprintf(&s.out, "  refused: %s\n", s.short(err.Error()))
		return
	}
	s.last = id
}

func (s *script) container(name string) ContainerID {
	id := ctrID(name)
	s.names[string(id)] = name
	return id
}

func (s *script) command(f []string) {
	s.t.Helper()
	has := func(w string) bool { return strings.Contains(" "+strings.Join(f, " ")+" ", " "+w+" ") }
	switch f[0] {
	case "load":
		s.images = nil
		for _, n := range f[1:] {
			i := loaded(n)
			s.images = append(s.images, i)
			s.names[string(i.ID)] = n
			s.names[string(i.Layers[0].ID)], s.names[string(i.Layers[1].ID)] = "base", "top-"+n
		}
		s.wish(&LoadImage{Archive: "/archive"})
		s.names[string(s.last)] = fmt.Sprint("job", jobNumber(s.last))
	case "create":
		c := &CreateContainer{ID: s.container(f[1]), Name: f[1], Image: "docker.io/library/" + f[2] + ":latest", Want: Stopped}
		if has("running") {
			c.Want = Running
		}
		c.AutoRemove = has("rm")
		for _, w := range f {
			if n, ok := strings.CutPrefix(w, "net="); ok {
				c.Spec.Network.Network = n
			}
			if n, ok := strings.CutPrefix(w, "name="); ok {
				c.Name = n
			}
			s.option(&c.Spec, w)
		}
		s.wish(c)
	case "start":
		s.wish(&StartContainer{ID: s.container(f[1])})
	case "stop":
		grace := time.Second
		if has("now") {
			grace = 0
		}
		s.wish(&StopContainer{ID: s.container(f[1]), Timeout: &grace})
	case "kill":
		n, _ := strconv.Atoi(f[2])
		s.wish(&KillContainer{ID: s.container(f[1]), Signal: n})
	case "rm":
		s.wish(&RemoveContainer{ID: s.container(f[1]), Force: has("force")})
	case "rename":
		s.wish(&RenameContainer{ID: s.container(f[1]), Name: f[2]})
	default:
		if !s.life(f) {
			s.other(f)
		}
	}
}

func (s *script) other(f []string) {
	s.t.Helper()
	switch f[0] {
	case "tag":
		s.wish(&TagImage{Image: "docker.io/library/" + f[1] + ":latest", Name: "docker.io/library/" + f[2] + ":latest"})
	case "rmi":
		s.wish(&DropImage{Image: "docker.io/library/" + f[1] + ":latest"})
	case "network":
		n := &NewNetwork{ID: netID(f[1]), Name: f[1]}
		if len(f) > 2 {
			if err := n.Subnet.UnmarshalText([]byte(f[2])); err != nil {
				s.t.Fatal(err)
			}
		}
		s.names[string(n.ID)] = f[1]
		s.wish(n)
	case "network-rm":
		s.wish(&DropNetwork{ID: netID(f[1])})
	case "disable":
		s.wish(&DisableDriver{f[1]})
	case "enable":
		s.wish(&EnableDriver{f[1]})
	case "replace":
		s.wish(&SwapDriver{f[1], f[2]})
	case "cancel":
		s.wish(&CancelJob{Target: s.last})
	case "stubborn":
		s.stubborn[s.container(f[1])] = true
	case "exit":
		n, _ := strconv.Atoi(f[2])
		s.deliver(&ReportExit{Container: s.container(f[1]), Run: s.s.Containers[s.container(f[1])].Process.Run, Code: n, OOMKilled: len(f) > 3, Time: s.clock})
	case "step":
		s.finish(s.owing(f[1]))
	case "fail":
		s.deliver(&FinishStep{Step: s.owing(f[1]).ID(), Fault: &Fault{Class: f[2], Message: "it broke"}})
	case "lose":
		s.do(s.owing(f[1]))
	case "restart":
		if _, err := s.send(startEngine(f[1])); err != nil {
			s.t.Fatal(err)
		}
	case "stop-engine":
		if _, err := s.send(&StopEngine{}); err != nil {
			s.t.Fatal(err)
		}
	case "inventory":
		s.inventory(f[1])
	case "hold", "lack":
		key := s.worldKey(f[1:])
		if s.held[key] = true; f[0] == "lack" {
			delete(s.held, key)
		}
	case "driver":
		s.deliver(&ReportDriver{Driver: f[1], Instance: "i1", PID: 7, Version: "0.1", Ended: f[2] == "ended"})
	case "forget":
		s.clock = s.clock.Add(2 * JobsKeptFor)
		s.deliver(&ForgetJobs{})
	case "settle":
		s.settle()
	default:
		s.t.Fatalf("no such command in a script: %q", f)
	}
}

// worldKey puts ids in the place of names: "endpoint bridge c9 3".
func (s *script) worldKey(f []string) string {
	var key []string
	for i, w := range f {
		switch {
		case i == 0:
		case f[0] == "exec" && i == 3:
			w = string(s.execID(w))
		case w[0] == 'c' && len(w) == 2:
			w = string(s.container(w))
		case f[0] == "network" || f[0] == "endpoint" && i == 1:
			s.names[string(netID(w))] = w
			w = string(netID(w))
		}
		key = append(key, w)
	}
	return strings.Join(key, " ")
}

// owing is the one owed step whose id, with names for ids, contains part.
func (s *script) owing(part string) Step {
	s.t.Helper()
	for _, st := range s.s.Owed() {
		if strings.Contains(s.short(string(st.ID())), part) {
			return st
		}
	}
	s.t.Fatalf("no step %q is owed", part)
	return nil
}
