package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/internal/query"
)

func TestListing(t *testing.T) {
	rows := []row{{"ID": "0123456789ab", "Names": "web", "Secret": "x"}, {"ID": "ba9876543210", "Names": "ä-long-name", "Secret": "y"}}
	for _, c := range []struct {
		name, format string
		quiet        bool
		want         string
	}{
		{"table", "", false, "NAMES         CONTAINER ID\nweb           0123456789ab\nä-long-name   ba9876543210\n"},
		{"quiet", "", true, "0123456789ab\nba9876543210\n"},
		{"template", "{{.Names}}:{{.ID | upper}}", false, "web:0123456789AB\nä-long-name:BA9876543210\n"},
		{"table template", `table {{.Secret}}\t{{.ID}}`, false, "SECRET   CONTAINER ID\nx        0123456789ab\ny        ba9876543210\n"},
		{"functions", `{{truncate .Names 2}}{{pad "|" 1 1}}{{json .ID}}`, false, "we | \"0123456789ab\"\nä- | \"ba9876543210\"\n"},
		{"json", "json", false, `{"ID":"0123456789ab","Names":"web","Secret":"x"}` + "\n" + `{"ID":"ba9876543210","Names":"ä-long-name","Secret":"y"}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listing{id: "ID", columns: []column{{"NAMES", "Names"}, {"CONTAINER ID", "ID"}}, more: []column{{"SECRET", "Secret"}}, quiet: c.quiet, format: c.format}
			var out bytes.Buffer
			if err := l.write(&out, rows); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", out.String(), c.want)
			}
		})
	}
	for _, bad := range []string{"{{.Nope}}", "{{", "{{nofunc .ID}}", "table {{.Nope}}"} {
		l := listing{columns: []column{{"NAMES", "Names"}}, format: bad}
		if err := l.write(&bytes.Buffer{}, rows); err == nil || !strings.HasPrefix(err.Error(), "format: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestHumanTime(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", 61 * time.Second: "About a minute",
		2 * time.Minute: "2 minutes", 61 * time.Minute: "About an hour", 100 * time.Minute: "2 hours", 47 * time.Hour: "47 hours", 3 * day: "3 days",
		20 * day: "2 weeks", 90 * day: "3 months", 800 * day: "2 years",
	} {
		if got := humanTime(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := ago(time.Time{}, time.Now()); got != "N/A" {
		t.Errorf("a time that is not known: %q", got)
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1360: "1.36kB", 4_260_000: "4.26MB", 999_400: "999kB", 999_500: "1MB", 999_999_999: "1GB", 120_000_000: "120MB", 1_500_000_000: "1.5GB"} {
		if got := humanSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := binarySize(64 << 20); got != "64MiB" {
		t.Errorf("64 MiB: %q", got)
	}
	for d, want := range map[time.Duration]string{1234567: "1.23ms", 123456789: "123ms", 1500 * time.Millisecond: "1.50s", 90 * time.Second: "1m30s"} {
		if got := took(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
	if clip("äöü", 3) != "äöü" || clip("äöüx", 3) != "äö…" {
		t.Error("clip does not count characters")
	}
}

// TestHostileProcess: what a container calls its processes steers no terminal.
func TestHostileProcess(t *testing.T) {
	columns, err := psColumns([]string{"-o", "pid,comm,user,args"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	task := query.Task{PID: 7, Name: "a\x1b[2Jb", User: "x\u009b2Jy", Args: []string{"one\ntwo", "ä"}}
	if err := writeTop(&out, columns, []query.Task{task}, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(out.String(), "\n")
	if got, want := strings.Join(strings.Fields(line), " "), "7 a?[2Jb x?2Jy one?two ä"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStamper(t *testing.T) {
	var out bytes.Buffer
	s := &stamper{w: &out, on: true, fresh: true}
	at := []byte{0, 0, 0, 0, 0, 0, 0, 1}
	for _, p := range []string{"one\ntw", "o\n", "\nthree"} {
		if err := s.write(append(append([]byte(nil), at...), p...)); err != nil {
			t.Fatal(err)
		}
	}
	const stamp = "1970-01-01T00:00:00.000000001Z "
	if want := stamp + "one\n" + stamp + "two\n" + stamp + "\n" + stamp + "three"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if err := s.write([]byte("short")); err == nil {
		t.Error("a payload without its time is taken")
	}
}

// TestLines: events are told in a few words, also those that a later release adds.
func TestLines(t *testing.T) {
	const head = `"time":"2026-01-02T03:04:05Z","noun":"container","id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"`
	for line, want := range map[string]string{
		`{"seq":1,"event":"container.exited",` + head + `,"exit":{"run":1,"code":137,"signal":9,"oom_killed":true}}`:                               "code=137 signal=SIGKILL out of memory",
		`{"seq":2,"event":"container.start-failed",` + head + `,"fault":{"class":"internal","message":"no luck"}}`:                                 `fault="no luck"`,
		`{"seq":3,"event":"container.stop-wanted",` + head + `,"signal":15,"grace_ns":10000000000}`:                                                "grace=10s signal=SIGTERM",
		`{"seq":4,"event":"container.painted",` + head + `,"color":"deep red","coats":[1,2]}`:                                                      `coats=1,2 color="deep red"`,
		`{"seq":5,"event":"container.created",` + head + `,"name":"web","image_ref":"x:1","job":"018f0000-0000-7000-8000-000000000001"}`:           "name=web image_ref=x:1  [job 018f0000-0000-7000]",
		`{"seq":6,"event":"container.network-attached",` + head + `,"network":"fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"}`: "network=fedcba987654",
	} {
		e, err := readLogged([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if got := e.tail(); got != want {
			t.Errorf("%s: %q, want %q", e.Name, got, want)
		}
	}
	if _, err := readLogged([]byte("{")); err == nil {
		t.Error("half a line is taken")
	}
}
