package catalogue

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the list into docs/events.md")

const page = "../../docs/events.md"

// TestEventsPage fails when the page does not list the events as they are.
func TestEventsPage(t *testing.T) {
	list, err := Markdown("../../core")
	if err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	is, err := Put(string(was), list)
	if err != nil {
		t.Fatal(err)
	}
	if is == string(was) {
		return
	}
	if !*update {
		t.Fatal("docs/events.md is stale: go test ./test/catalogue -update, and read the diff")
	}
	if err := os.WriteFile(page, []byte(is), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The list has every event and every field of the core's own catalogue.
func TestNoneIsLeftOut(t *testing.T) {
	list, err := Markdown("../../core")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../../core/testdata/catalogue.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(list) {
		if m := regexp.MustCompile("^\\| `([a-z.-]+)`").FindStringSubmatch(line); m != nil {
			rows[m[1]] = line
		}
	}
	event, seen := "", 0
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if !strings.HasPrefix(line, " ") {
			event = ""
			if f[0] == "event" {
				event = f[1]
				seen++
				if rows[event] == "" {
					t.Errorf("%s is left out", event)
				}
			}
		} else if event != "" && !strings.Contains(rows[event], "`"+f[0]+"`") {
			t.Errorf("field %s of %s is left out: %s", f[0], event, rows[event])
		}
	}
	if seen == 0 || seen != len(rows) {
		t.Errorf("%d events in the catalogue, %d in the list", seen, len(rows))
	}
}

func TestRefused(t *testing.T) {
	if _, err := Put("a page without the lines", ""); err == nil {
		t.Error("no error")
	}
	if _, err := Markdown("."); err == nil {
		t.Error("a folder without the core: no error")
	}
	if _, err := meaning("X", " "); err == nil {
		t.Error("no doc comment: no error")
	}
}
