package report

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// insideVariable says that the tests run in a network namespace of their own.
const insideVariable = "GANTRY_TEST_INSIDE"

// TestMain moves the tests into a network namespace made for them: net drivers
// make links.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), insideVariable+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := again.Run(); err != nil {
		os.Exit(1)
	}
}

// conformTo runs the program and returns its report.
func conformTo(t *testing.T, want int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := Main(args, &stdout, &stderr); got != want {
		t.Errorf("gantry-conform %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, want, &stdout, &stderr)
	}
	return stdout.String() + stderr.String()
}

// build builds a program of this module.
func build(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

func TestGoExample(t *testing.T) {
	got := conformTo(t, 0, build(t, "../../../examples/gantry-graphdriver-copy"))
	if !strings.Contains(got, "the driver keeps its contract") {
		t.Error(got)
	}
}

// The Python example needs python3-grpcio, python3-protobuf and iproute2 of
// Debian.
func TestPythonExample(t *testing.T) {
	program, err := filepath.Abs("../../../examples/gantry-net-island/gantry-net-island")
	if err != nil {
		t.Fatal(err)
	}
	got := conformTo(t, 0, program)
	if !strings.Contains(got, "the driver keeps its contract") {
		t.Error(got)
	}
}

func TestBrokenDriver(t *testing.T) {
	program := build(t, "./testdata/gantry-net-broken")
	got := conformTo(t, 1, program)
	for _, want := range []string{
		"ok    start ",
		"FAIL  program-name ", `Info tells the name "perfect", the program's name "broken"`,
		"FAIL  create-network ", "List lacks {network ", "CreateNetwork repeated: network net-",
		"FAIL  unknown-option ", "got success (<nil>), want invalid-argument",
		"FAIL  remove-network ", "RemoveNetwork of a network that is not held: no such network",
		"FAIL  attach ", "panic: attach is not written yet",
		"to see it again: gantry-conform -v --kind net --check attach " + program,
		"checks hold; these do not: program-name, create-network",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	// What the report says to run shows the same fault, and only that.
	got = conformTo(t, 1, "-v", "--kind", "net", "--check", "remove-network", program)
	if !strings.Contains(got, "FAIL  remove-network") || strings.Contains(got, "create-network") {
		t.Error(got)
	}
}

func TestNotADriver(t *testing.T) {
	got := conformTo(t, 1, "--kind", "image", "/bin/true")
	if !strings.Contains(got, "FAIL  start ") || strings.Count(got, "FAIL") != 1 {
		t.Error(got)
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "want one program"},
		{[]string{"/bin/true"}, `"true" does not name a driver`},
		{[]string{"--kind", "odd", "/bin/true"}, `the kind "odd" is not known`},
		{[]string{"/no/such/gantry-net-x"}, "no such file"},
	} {
		if got := conformTo(t, 2, c.args...); !strings.Contains(got, c.says) {
			t.Errorf("%q: %s", c.args, got)
		}
	}
	if got := conformTo(t, 0, "--list", "--kind", "exec"); !strings.Contains(got, "exits-until-released") {
		t.Error(got)
	}
}
