package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// command is one of the CLI's, with its flags: long names, each with its letter,
// which may be none.
type command struct {
	words []string
	flags map[string]string
}

// commands asks the CLI's help for all commands that have no others below them.
func commands(t *testing.T, gantry string, words ...string) []command {
	t.Helper()
	out, err := exec.Command(gantry, append(words, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	help := string(out)
	var all []command
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+)  +[A-Z]`).FindAllStringSubmatch(help, -1) {
		if m[1] != "help" && m[1] != "completion" {
			all = append(all, commands(t, gantry, append(words[:len(words):len(words)], m[1])...)...)
		}
	}
	if all != nil {
		return all
	}
	c := command{words, map[string]string{}}
	own, _, _ := strings.Cut(help, "Global Flags:")
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-(\w), )?--([a-z0-9-]+)`).FindAllStringSubmatch(own, -1) {
		c.flags[m[2]] = m[1]
	}
	delete(c.flags, "help")
	return []command{c}
}

// TestEveryFlagIsTold holds each flag of each command to a story that uses it on
// the real kernel. The groups container and image repeat commands from above.
func TestEveryFlagIsTold(t *testing.T) {
	bin, err := rig.Bin()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	stories, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range append(stories, "script_test.go", "bytes_test.go") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(text), "\n")...)
	}
	top := map[string]command{}
	for _, c := range commands(t, filepath.Join(bin, "gantry")) {
		top[strings.Join(c.words, " ")] = c
	}
	if len(top) < 40 {
		t.Fatalf("the help names %d commands only", len(top))
	}
	for name, c := range top {
		if len(c.words) == 2 && (c.words[0] == "container" || c.words[0] == "image") {
			continue
		}
		spelling := regexp.QuoteMeta(name)
		if name == "create" { // run's flags, by the same code
			spelling = "(run|create)"
		}
		uses := regexp.MustCompile(`gantry ` + spelling + `\b`)
		for long, short := range c.flags {
			flag := `--` + long + `(\s|=|$)`
			if short != "" {
				flag = `(` + flag + `|-[a-zA-Z]*` + short + `)`
			}
			used := regexp.MustCompile(`\s` + flag)
			found := false
			for _, l := range lines {
				found = found || uses.MatchString(l) && used.MatchString(l)
			}
			if !found {
				t.Errorf("gantry %s --%s: no story uses it", name, long)
			}
		}
	}
}
