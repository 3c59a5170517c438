package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// result is what a machine said.
type result struct {
	name     string
	facts    map[string]string
	programs []*program
	over     bool   // all tests have ended
	err      string // why the machine did not come to that
	took     time.Duration
	outcomes []outcome
	verbose  bool   // tell what failed tests said
	quiet    bool   // tell nothing: it was told when it happened
	stream   []byte // the messages as they came
}

// program is what one test program said.
type program struct {
	path    string
	said    bytes.Buffer
	ended   bool
	settled bool
	code    int
	problem string
	left    []string
	hung    []string // the tests that it was ended in
	again   bool     // what failed before, once more
	begun   time.Time
}

// outcome is how a test ended.
type outcome struct {
	pkg, test, action string // action: pass, fail, skip; cut: time was over; second: passed when tried again
	said              []string
	picked            bool // its run left tests out
}

// ofProgram stands for the test where a program ended badly whose tests did not.
const ofProgram = "(program)"

func (o outcome) name() string { return o.pkg + " " + o.test }

// top is the name of the test that it is a part of.
func (o outcome) top() string {
	test, _, _ := strings.Cut(o.test, "/")
	return o.pkg + " " + test
}

// take notes one message.
func (r *result) take(m wire.Message) {
	switch m.Kind {
	case wire.Fact:
		r.facts[m.Name] = m.Text
	case wire.Begin:
		r.programs = append(r.programs, &program{path: m.Package, again: m.Again, begun: time.Now()})
	case wire.Output:
		r.last().said.WriteString(m.Text)
		for line := range strings.Lines(m.Text) {
			if _, end, ok := strings.Cut(line, "--- "); ok && r.verbose && strings.HasPrefix(line, "\x16") {
				r.tell("  %s", strings.TrimSpace(end))
			}
		}
	case wire.End:
		p := r.last()
		p.ended, p.code, p.problem, p.left, p.hung = true, m.Code, m.Text, m.Left, m.Hung
		state := "ok"
		if m.Code != 0 {
			state = "FAIL"
		}
		r.tell("%-4s %-40s %5.1fs", state, p.path, time.Since(p.begun).Seconds())
		r.settle(p)
	case wire.Over:
		r.over = true
	}
}

func (r *result) tell(format string, args ...any) {
	if !r.quiet {
		progress("%s: "+format, append([]any{r.name}, args...)...)
	}
}

// last is the program that speaks; one that speaks unasked is a defect of the
// guest.
func (r *result) last() *program {
	if len(r.programs) == 0 {
		r.programs = append(r.programs, &program{path: "nobody", begun: time.Now()})
	}
	return r.programs[len(r.programs)-1]
}

// event is a line of go tool test2json.
type event struct {
	Action, Test, Output string
}

// settle turns what a program said into outcomes, and tells what failed at
// once: the machine may take minutes more.
func (r *result) settle(p *program) {
	events, err := test2json(p.said.Bytes())
	if err != nil {
		p.problem = err.Error()
	}
	p.settled = true
	for _, o := range outcomes(p, events) {
		if !r.note(o, p.again) {
			continue
		}
		if o.action != "fail" && o.action != "cut" {
			continue
		}
		r.tell("%s %s", strings.ToUpper(o.action), o.name())
		if r.verbose && !r.quiet {
			fmt.Print("     ", strings.Join(o.said, "     "))
		}
	}
}

// note takes an outcome beside those of the same package's earlier runs on this
// machine, and says whether it is news. What failed and passes when it is tried
// again is neither passed nor failed; what was cut off stays so, and so does a
// test that has run whole but for that part.
func (r *result) note(o outcome, again bool) bool {
	i := slices.IndexFunc(r.outcomes, func(have outcome) bool { return have.name() == o.name() })
	switch {
	case i < 0 && !again:
		r.outcomes = append(r.outcomes, o)
	case i < 0:
		return false
	case again && o.action == "pass" && r.outcomes[i].action == "fail":
		r.outcomes[i].action = "second"
	case !again && r.outcomes[i].action == "cut" && o.action == "fail":
		r.outcomes[i] = o
	default:
		return false
	}
	return true
}

// settleRest does so for a program whose machine ended first.
func (r *result) settleRest() {
	for _, p := range r.programs {
		if !p.settled {
			r.settle(p)
		}
	}
}

func test2json(said []byte) ([]event, error) {
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin = bytes.NewReader(said)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("test2json: %w", err)
	}
	var all []event
	for line := range bytes.Lines(out) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("test2json: %w", err)
		}
		all = append(all, e)
	}
	return all, nil
}

// outcomes are those of one program. A test that was running when its program
// ended has failed, and so has a program that fails outside of its tests.
func outcomes(p *program, events []event) []outcome {
	var all []outcome
	said := map[string][]string{}
	running := map[string]bool{}
	failed := false
	for _, e := range events {
		switch e.Action {
		case "run":
			running[e.Test] = true
		case "output":
			said[e.Test] = append(said[e.Test], e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				continue // the program itself
			}
			delete(running, e.Test)
			failed = failed || e.Action == "fail"
			all = append(all, outcome{pkg: p.path, test: e.Test, action: e.Action, said: said[e.Test]})
			delete(said, e.Test)
		}
	}
	for test := range running {
		failed = true
		if len(p.hung) > 0 && !p.hangs(test) {
			continue // it only waited, and follows
		}
		all = append(all, outcome{pkg: p.path, test: test, action: p.unended(), said: append(said[test], "did not end: "+p.end()+"\n")})
	}
	if !failed && (p.code != 0 || !p.ended) {
		all = append(all, outcome{pkg: p.path, test: ofProgram, action: p.unended(),
			said: append(said[""], fmt.Sprintf("exit code %d %s\n", p.code, p.problem))})
	}
	slices.SortStableFunc(all, func(a, b outcome) int { return strings.Compare(a.test, b.test) })
	return all
}

// end says how a program ended that did not end its tests.
func (p *program) end() string {
	switch {
	case !p.ended:
		return "the machine ended first"
	case len(p.hung) > 0:
		return "it went on for too long"
	}
	return fmt.Sprintf("exit code %d %s", p.code, p.problem)
}

// unended is what became of a test that has no end: whoever broke it off, or
// itself. It is not passed either way.
func (p *program) unended() string {
	if !p.ended || len(p.hung) > 0 {
		return "cut"
	}
	return "fail"
}

// hangs says whether the program was ended in this test or one below it.
func (p *program) hangs(test string) bool {
	return slices.ContainsFunc(p.hung, func(h string) bool { return h == test || strings.HasPrefix(h, test+"/") })
}

// count says how many tests ended so.
func (r *result) count(action string) int {
	n := 0
	for _, o := range r.outcomes {
		if o.action == action {
			n++
		}
	}
	return n
}

// line sums a machine up.
func (r *result) line() string {
	s := fmt.Sprintf("%s: %d passed, %d of them when tried again, %d failed, %d cut off, %d skipped, %v", r.name,
		r.count("pass")+r.count("second"), r.count("second"), r.count("fail"), r.count("cut"), r.count("skip"),
		r.took.Round(time.Second))
	if r.err != "" {
		first, _, _ := strings.Cut(r.err, "\n")
		s += ": " + first
	}
	return s
}

// reason is why a test was skipped: the last line that it said and that is its own.
func reason(said []string) string {
	for _, line := range slices.Backward(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

// complaint is why a test failed: the first line that names a place in a test. What
// follows it may be all that an engine has said.
func complaint(said []string) string {
	for _, line := range said {
		line = strings.TrimSpace(line)
		if file, _, ok := strings.Cut(line, "_test.go:"); ok && !strings.ContainsAny(file, " \t") {
			return line
		}
	}
	return reason(said)
}
