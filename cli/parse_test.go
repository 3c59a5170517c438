package cli

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "42": 42, "42b": 42, "1k": 1024, "1K": 1024, "64m": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20, "1.5g": 3 << 29,
		"2t": 2 << 40, "1p": 1 << 50, "9223372036854775807": math.MaxInt64, " 8 m": 8 << 20,
	} {
		if got, err := parseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "m", "-1", "-1m", "1x", "1mm", "0x10", "1e3", ".", "1.2.3m", "b", "ib", "9223372036854775808", "99999999p"} {
		if got, err := parseBytes(in); err == nil {
			t.Errorf("%q is taken as %d", in, got)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for in, want := range map[string]int64{"1": 1e9, "1.5": 15e8, "0.25": 25e7, ".5": 5e8, "0.000000001": 1, "2.": 2e9} {
		if got, err := parseCPUs(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".", "-1", "1,5", "x", "0.0000000001", "99999999999", "1e3"} {
		if got, err := parseCPUs(in); err == nil {
			t.Errorf("%q is taken as %d", in, got)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]int{
		"9": 9, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "hup": 1, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63,
	} {
		if got, err := parseSignal(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "NOPE", "RTMIN+31", "RTMAX+1", "RTMINx", "SIG"} {
		if got, err := parseSignal(in); err == nil {
			t.Errorf("%q is taken as %d", in, got)
		}
	}
	if got := signalName(15) + " " + signalName(40); got != "SIGTERM signal 40" {
		t.Errorf("names: %s", got)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "0s": now, "0": time.Unix(0, 0), "1700000000": time.Unix(1700000000, 0), "1700000000.5": time.Unix(1700000000, 5e8),
		"2026-03-04T11:00:00Z": now.Add(-time.Hour), "2026-03-04T11:00:00": now.Add(-time.Hour), "2026-03-04": now.Add(-12 * time.Hour),
		"11:30:00": now.Add(-30 * time.Minute), "2026-03-04T12:00:00+01:00": now.Add(-time.Hour),
	} {
		if got, err := parseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "1.2.3", "2026-13-01", "25:00:00"} {
		if got, err := parseTime(in, now); err == nil {
			t.Errorf("%q is taken as %v", in, got)
		}
	}
}

// references are what FuzzReference begins with.
func references() []string {
	return []string{
		"busybox", "busybox:1.36", "library/busybox", "user/app", "docker.io/busybox", "index.docker.io/busybox", "docker.io/user/app:v1",
		"localhost/app", "localhost:5000/app:x", "example.org/a/b/c:tag", "Example.org/a", "EXAMPLE/a", "[::1]:5000/a", "[::1]/a", "1.2.3.4:80/a",
		"a__b", "a___b", "a.b", "a..b", "a-b", "a---b", "-a", "a-", "a_", "Busybox", "a/B", "", ":", "a:", ":a", "a@", "a@sha256:" + strings.Repeat("a", 64),
		"a:t@sha256:" + strings.Repeat("0", 64), "a@sha256:" + strings.Repeat("A", 64), "a@sha256:abc", strings.Repeat("a", 64), strings.Repeat("a", 63),
		strings.Repeat("a/", 127) + "b", strings.Repeat("a/", 128) + "b", "a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 129), "a:.t", "a:_t", "a:-t",
		"a//b", "/a", "a/", "a b", "ä", "a\n", "docker.io/", "foo.bar/", "host.x:port/a", "host.x:/a", "-host.x/a", "h_st.x/a", "a.b/library/x", "docker.io/library/x",
		"index.docker.io/library/x", "localhost", "localhost:5000", "x:5000/y/z:1@sha256:" + strings.Repeat("1", 64), "Foo/bar", "fooBar/baz", "a:t:u", "a@b@c", "library/",
	}
}

// isTheirs compares with the library that everybody uses. Other digests than
// sha256 are no part of what we take.
func isTheirs(t *testing.T, in string) {
	t.Helper()
	if strings.Contains(in, "@") && !strings.Contains(in, "@sha256:") {
		return
	}
	want := ""
	named, theirs := reference.ParseNormalizedNamed(in)
	if theirs == nil && reference.Domain(named) == "" {
		return // what stands for a host is none, and passes there for a part of the path
	}
	if theirs == nil {
		want = reference.TagNameOnly(named).String()
	}
	got, ours := normalReference(in)
	if (ours == nil) != (theirs == nil) || got != want {
		t.Errorf("%q: %q, %v; theirs %q, %v", in, got, ours, want, theirs)
	}
	if theirs == nil && withTag(got) != reference.FamiliarString(reference.TagNameOnly(named)) {
		t.Errorf("%q: familiar %q, theirs %q", in, withTag(got), reference.FamiliarString(reference.TagNameOnly(named)))
	}
}

func TestReference(t *testing.T) {
	for _, in := range references() {
		isTheirs(t, in)
	}
}

func FuzzReference(f *testing.F) {
	for _, in := range references() {
		f.Add(in)
	}
	f.Fuzz(isTheirs)
}

func TestSplitTag(t *testing.T) {
	for in, want := range map[string][2]string{
		"docker.io/library/busybox:latest": {"busybox", "latest"}, "localhost:5000/a:1": {"localhost:5000/a", "1"},
		"example.org/a@sha256:" + strings.Repeat("0", 64): {"example.org/a", "<none>"},
		"localhost:5000/a": {"localhost:5000/a", "<none>"},
	} {
		if repository, tag := splitTag(in); repository != want[0] || tag != want[1] {
			t.Errorf("%s: %s %s", in, repository, tag)
		}
	}
}

func TestRandomNames(t *testing.T) {
	seen := make(map[string]bool)
	for range 200 {
		n := randomName()
		if len(n) < 5 || len(n) > 20 || strings.Count(n, "-") != 1 {
			t.Errorf("a name %q", n)
		}
		seen[n] = true
	}
	if len(seen) < 150 {
		t.Errorf("only %d names in 200", len(seen))
	}
}

// TestLaterFlags: nothing that we have is said to be not supported.
func TestLaterFlags(t *testing.T) {
	a := &app{}
	for _, c := range []string{"run", "create"} {
		cmd := a.runCmd()
		if c == "create" {
			cmd = a.createCmd()
		}
		for _, f := range laterFlags("run") {
			long, short, _ := strings.Cut(f, ",")
			if cmd.Flags().Lookup(long) != nil || short != "" && cmd.Flags().ShorthandLookup(short) != nil {
				t.Errorf("%s has --%s (-%s), which is said to come later", c, long, short)
			}
			if later("run", long) != "--"+long || short != "" && later("run", short) != "--"+long {
				t.Errorf("%s is not found", f)
			}
		}
	}
	if later("run", "") != "" || later("run", "nonsense") != "" {
		t.Error("nonsense is to come later")
	}
}
