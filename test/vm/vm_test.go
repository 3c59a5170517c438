package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// said is what a test program with -test.v=test2json writes.
func said(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		if strings.HasPrefix(l, "=== ") || strings.HasPrefix(l, "--- ") || l == "FAIL" || l == "PASS" {
			b.WriteByte(0x16) // marks a line of the test program's own
		}
		b.WriteString(l + "\n")
	}
	return b.String()
}

func follower(text string, end *wire.Message) *result {
	r := &result{name: "m", facts: map[string]string{}}
	r.take(wire.Message{Kind: wire.Begin, Package: "p"})
	r.take(wire.Message{Kind: wire.Output, Package: "p", Text: text})
	if end != nil {
		r.take(*end)
	}
	r.settleRest()
	return r
}

func TestOutcomes(t *testing.T) {
	text := said("=== RUN   TestA", "--- PASS: TestA (0.00s)", "=== RUN   TestB", "    b_test.go:3: no such hierarchy",
		"--- SKIP: TestB (0.00s)", "=== RUN   TestC", "    c_test.go:9: wrong", "--- FAIL: TestC (0.00s)", "FAIL")
	r := follower(text, &wire.Message{Kind: wire.End, Package: "p", Code: 1})
	if r.count("pass") != 1 || r.count("skip") != 1 || r.count("fail") != 1 {
		t.Fatalf("%+v", r.outcomes)
	}
	rep := &report{stage: &staged{tests: map[string][]string{"p": {"TestA", "TestB", "TestC", "TestNeverMet"}}}, results: []*result{r}}
	text = rep.markdown()
	for _, want := range []string{
		"| m | 1 | 0 | 1 | 0 | 1 |",
		"- `p TestC` (m): c_test.go:9: wrong",
		"- `p TestB` (m): b_test.go:3: no such hierarchy",
		"## Ran nowhere\n\n- `p TestB`: b_test.go:3: no such hierarchy\n- `p TestNeverMet`: begun on no machine\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not told: %q in\n%s", want, text)
		}
	}
}

// TestEndsThatAreNoEnd: what a machine or a program does not come to is not passed.
func TestEndsThatAreNoEnd(t *testing.T) {
	begun := said("=== RUN   TestA", "--- PASS: TestA (0.00s)", "=== RUN   TestB")
	if r := follower(begun, nil); r.count("cut") != 1 || r.count("pass") != 1 {
		t.Errorf("a machine that ends in a test: %+v", r.outcomes)
	}
	crashed := begun + "panic: boom\n"
	if r := follower(crashed, &wire.Message{Kind: wire.End, Code: 2}); r.count("fail") != 1 || r.count("pass") != 1 {
		t.Errorf("a test that ends its program: %+v", r.outcomes)
	}
	if r := follower("prepare: no compiler\n", &wire.Message{Kind: wire.End, Code: 1}); r.count("fail") != 1 {
		t.Errorf("a program that fails before its tests: %+v", r.outcomes)
	}
	if r := follower(said("PASS"), nil); r.count("cut") != 1 {
		t.Errorf("a machine that ends before its program: %+v", r.outcomes)
	}
}

// TestTriedAgain: a test that hangs is cut off and the others count; what failed
// and passes alone afterwards is told as such.
func TestTriedAgain(t *testing.T) {
	r := &result{name: "m", facts: map[string]string{}, quiet: true}
	for _, run := range []struct {
		text string
		end  wire.Message
	}{
		{said("=== RUN   TestA", "--- PASS: TestA (0.00s)", "=== RUN   TestB", "=== RUN   TestB/hangs", "SIGQUIT: quit"),
			wire.Message{Kind: wire.End, Code: 2, Hung: []string{"TestB/hangs"}}},
		{said("=== RUN   TestB", "=== RUN   TestB/well", "--- PASS: TestB/well (0.00s)", "--- PASS: TestB (0.00s)", "=== RUN   TestC", "--- FAIL: TestC (0.00s)",
			"=== RUN   TestD", "--- FAIL: TestD (0.00s)", "FAIL"), wire.Message{Kind: wire.End, Code: 1}},
	} {
		r.take(wire.Message{Kind: wire.Begin, Package: "p"})
		r.take(wire.Message{Kind: wire.Output, Text: run.text})
		r.take(run.end)
	}
	r.take(wire.Message{Kind: wire.Begin, Package: "p", Again: true})
	r.take(wire.Message{Kind: wire.Output, Text: said("=== RUN   TestC", "--- PASS: TestC (0.00s)", "=== RUN   TestD", "--- FAIL: TestD (0.00s)", "FAIL")})
	r.take(wire.Message{Kind: wire.End, Code: 1})
	got := map[string]string{}
	for _, o := range r.outcomes {
		got[o.test] += o.action
	}
	want := map[string]string{"TestA": "pass", "TestB": "cut", "TestB/hangs": "cut", "TestB/well": "pass", "TestC": "second", "TestD": "fail"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestRunsOfOneMachine: of each test what was said last counts, and no failure
// is covered by an older pass.
func TestRunsOfOneMachine(t *testing.T) {
	cache := t.TempDir()
	for i, text := range []string{
		said("=== RUN   TestA", "--- FAIL: TestA (0.00s)", "=== RUN   TestB", "--- PASS: TestB (0.00s)", "=== RUN   TestC", "--- PASS: TestC (0.00s)", "FAIL"),
		said("=== RUN   TestA", "--- PASS: TestA (0.00s)", "=== RUN   TestB", "--- FAIL: TestB (0.00s)", "FAIL"),
		said("=== RUN   TestB"),
	} {
		res := &result{name: "m", quiet: true, facts: map[string]string{"tree": string(rune('a' + i))}}
		for _, m := range []wire.Message{{Kind: wire.Begin, Package: "p"}, {Kind: wire.Output, Package: "p", Text: text}} {
			res.take(m)
			line, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			res.stream = append(res.stream, append(line, '\n')...)
		}
		rep := &report{begun: time.Unix(int64(i), 0), results: []*result{res}}
		if err := rep.keep(cache); err != nil {
			t.Fatal(err)
		}
	}
	rep := &report{}
	if err := rep.addKept(cache); err != nil {
		t.Fatal(err)
	}
	if len(rep.results) != 1 {
		t.Fatalf("%d machines", len(rep.results))
	}
	got := map[string]string{}
	for _, o := range rep.results[0].outcomes {
		got[o.test] += o.action
	}
	want := map[string]string{"TestA": "pass", "TestB": "fail", "TestC": "pass"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if tree := rep.results[0].facts["tree"]; tree != "c, and of an older run, tree b: 2 of p, and of an older run, tree a: 1 of p" {
		t.Error(tree)
	}
}

// TestPartOfAnOlderRun: what a run left out is of an older one still, but not what a
// whole run has no more, nor how the program ended that has run again.
func TestPartOfAnOlderRun(t *testing.T) {
	older := func() *result {
		return &result{facts: map[string]string{"tree": "a"}, programs: []*program{{path: "p"}}, outcomes: []outcome{
			{pkg: "p", test: "TestA", action: "pass"}, {pkg: "p", test: "TestA/x", action: "fail"}, {pkg: "p", test: "TestA/y", action: "pass"},
			{pkg: "p", test: ofProgram, action: "cut"},
		}}
	}
	for picked, want := range map[bool]string{false: "TestA pass, TestA/x pass", true: "TestA pass, TestA/x pass, TestA/y pass"} {
		newer := &result{facts: map[string]string{"tree": "b"}, programs: []*program{{path: "p"}}, outcomes: []outcome{
			{pkg: "p", test: "TestA", action: "pass", picked: picked}, {pkg: "p", test: "TestA/x", action: "pass", picked: picked},
		}}
		newer.addOlder(older())
		var got []string
		for _, o := range newer.outcomes {
			got = append(got, o.test+" "+o.action)
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("picked %t: %s, want %s", picked, s, want)
		}
	}
}

func TestMachines(t *testing.T) {
	ks := []kernel{{version: "6.1"}, {version: "6.12"}, {version: "7.2"}}
	names := func(o options, fast bool) string {
		var all []string
		for _, m := range machines(o, ks, fast) {
			all = append(all, m.kernel.version+" "+m.init)
		}
		return strings.Join(all, ", ")
	}
	o := options{cgroups: []string{"v2"}}
	if got := names(o, false); got != "6.1 tiny, 6.1 systemd, 6.12 tiny, 7.2 systemd" {
		t.Error(got)
	}
	// Whatever one machine leaves out another runs.
	all := machines(options{cgroups: []string{"v2", "v1"}}, ks, false)
	if len(all) != 5 || all[2].cgroup != "v1" {
		t.Errorf("%d machines, %v", len(all), all)
	}
	for _, p := range all[4].leave {
		if slices.Contains(all[0].leave, p) && slices.Contains(all[1].leave, p) {
			t.Errorf("nobody runs %s", p)
		}
	}
	if got := len(machines(o, ks, true)); got != 6 {
		t.Errorf("%d machines", got)
	}
	o.inits = []string{"tiny"}
	if got := names(o, false); got != "6.1 tiny, 6.12 tiny, 7.2 tiny" {
		t.Error(got)
	}
}

func TestWanted(t *testing.T) {
	for _, c := range []struct {
		prefix, version string
		want            bool
	}{
		{"6.1", "6.1.0-56-amd64", true}, {"6.1", "6.12.95+deb12-amd64", false}, {"6.12", "6.12.95+deb12-amd64", true}, {"7", "6.1.0", false},
	} {
		if got := wanted([]string{c.prefix}, c.version); got != c.want {
			t.Errorf("%s of %s: %v", c.prefix, c.version, got)
		}
	}
}

// TestCpio reads the archive as the kernel does: all at multiples of four.
func TestCpio(t *testing.T) {
	var c cpio
	c.add("init", 0o100755, []byte("12345"))
	c.add("dev", 0o040755, nil)
	c.add("TRAILER!!!", 0, nil)
	b := c.out.Bytes()
	for _, want := range []string{"init\x00", "dev\x00", "TRAILER!!!\x00"} {
		if !bytes.HasPrefix(b, []byte("070701")) || !bytes.HasPrefix(b[110:], []byte(want)) {
			t.Fatalf("no header of %q: %.130q", want, b)
		}
		size := 0
		if want == "init\x00" {
			size = 5
		}
		next := (110 + len(want) + 3) &^ 3
		next = (next + size + 3) &^ 3
		b = b[next:]
	}
	if len(b) != 0 {
		t.Errorf("left: %q", b)
	}
}

// TestWhy: a test that was skipped says so last, one that failed says it first.
func TestWhy(t *testing.T) {
	said := []string{"=== RUN   TestX\n", "    world_test.go:36: gone\n", "    world_test.go:40: gantryd said:\n", "        much\n", "--- FAIL: TestX\n"}
	if got := complaint(said); got != "world_test.go:36: gone" {
		t.Errorf("%q", got)
	}
	if got := reason(said); got != "much" {
		t.Errorf("%q", got)
	}
	if got := complaint([]string{"    FAIL: testdata/a.txtar:2: no\n"}); got != "FAIL: testdata/a.txtar:2: no" {
		t.Errorf("%q", got)
	}
}
