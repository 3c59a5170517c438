package runtime

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// longFlags are the names of the long flags in a help text.
func longFlags(text, dashes string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^ +`+dashes+`([a-z0-9][a-z0-9-]+)`).FindAllStringSubmatch(text, -1) {
		if m[1] != "help" {
			out = append(out, m[1])
		}
	}
	return out
}

// TestFlagsAreRuncs: a caller of runc finds all of its flags here.
func TestFlagsAreRuncs(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc to compare with: install the package runc")
	}
	b := newBox(t, "true")
	compare := func(name string, theirs, ours []string) {
		if len(theirs) == 0 && name != "start" && name != "state" && name != "pause" && name != "resume" {
			t.Errorf("%s: runc tells of no flags: %v", name, theirs)
		}
		for _, f := range theirs {
			if !slices.Contains(ours, f) {
				t.Errorf("%s: no flag --%s: %v", name, f, ours)
			}
		}
	}
	for _, c := range commands() {
		if c.name == "checkpoint" || c.name == "restore" || c.name == "features" { // refused by name; not runc 1.1's
			continue
		}
		out, err := exec.Command(runc, c.name, "--help").Output()
		if err != nil {
			t.Fatalf("runc %s: %v", c.name, err)
		}
		compare(c.name, longFlags(string(out), "--"), longFlags(b.do(c.name, "--help").out, "-"))
	}
	out, err := exec.Command(runc, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	o := b.do("--help")
	theirs := slices.DeleteFunc(longFlags(string(out), "--"), func(f string) bool { return f == "criu" }) // of checkpoint
	compare("", theirs, longFlags(o.out+o.err, "-"))
	if !strings.Contains(o.out+o.err, "Commands:") {
		t.Errorf("%+v", o)
	}
}
