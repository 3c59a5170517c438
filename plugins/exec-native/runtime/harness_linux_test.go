package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// binEnv names a directory with built programs, for machines without a Go
// toolchain.
const binEnv = "GANTRY_BIN"

// built is the directory with gantry-oci and the shim, made once.
var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(binEnv); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "gantry-oci")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/gantry-oci", "github.com/gantryd/gantry/cmd/gantry-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build gantry-oci: %w\n%s", err, out)
	}
	// The Makefile is the one place that knows how the shim is compiled.
	shim := exec.Command("make", "-s", "-C", "../../..", "BIN="+dir, dir+"/gantry-shim")
	if out, err := shim.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build shim: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := built(); err == nil && os.Getenv(binEnv) == "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// box is a bundle with a root of its own and a runtime with state of its own.
type box struct {
	t      *testing.T
	bin    string
	root   string
	bundle string
	spec   *specs.Spec
	id     string
}

// newBox makes a bundle that runs a shell script, and cleans up after it; what is
// left then is an error.
func newBox(t *testing.T, script string) *box {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests need root")
	}
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("/dev/shm", "gantry-oci-test")
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, bin: bin + "/gantry-oci", root: run + "/state", bundle: t.TempDir(), id: fmt.Sprintf("t%d-%d", os.Getpid(), time.Now().UnixNano())}
	b.fill()
	b.spec = exampleSpec()
	b.spec.Process.Terminal, b.spec.Process.Args = false, []string{"/bin/sh", "-c", script}
	b.spec.Root.Readonly = false
	t.Cleanup(func() {
		b.do("delete", "--force", b.id)
		if left, _ := os.ReadDir(b.root); len(left) > 1 || len(left) == 1 && left[0].Name() != filtersDir {
			t.Errorf("state left: %v", left)
		}
		if out, _ := exec.Command("find", "/sys/fs/cgroup", "-name", b.id).Output(); len(out) > 0 {
			t.Errorf("cgroups left: %s", out)
		}
		os.RemoveAll(run)
	})
	return b
}

// fill makes a root filesystem of busybox.
func (b *box) fill() {
	b.t.Helper()
	root := b.bundle + "/rootfs"
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		b.t.Fatalf("install the package busybox-static: %v", err)
	}
	err = errors.Join(os.WriteFile(root+"/bin/busybox", busybox, 0o755), os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	for _, n := range strings.Fields("sh cat id hostname mount ls sleep true echo grep touch env pwd stat stty tty nice cut mkdir uname nproc taskset ip readlink wc") {
		err = errors.Join(err, os.Symlink("busybox", root+"/bin/"+n))
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// outcome is what a command has said and how it ended.
type outcome struct {
	out, err string
	code     int
}

// command prepares a command of the runtime.
func (b *box) command(args ...string) *exec.Cmd {
	return exec.Command(b.bin, append([]string{"--root", b.root}, args...)...)
}

// do runs a command of the runtime. Its output goes through files: a pipe would
// be held open by a container that stays.
func (b *box) do(args ...string) outcome {
	b.t.Helper()
	cmd := b.command(args...)
	dir := b.t.TempDir()
	out, err1 := os.Create(dir + "/out")
	said, err2 := os.Create(dir + "/err")
	if err := errors.Join(err1, err2); err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	defer said.Close()
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	text, _ := os.ReadFile(dir + "/out")
	words, _ := os.ReadFile(dir + "/err")
	return outcome{string(text), string(words), cmd.ProcessState.ExitCode()}
}

// must is do for what has to succeed.
func (b *box) must(args ...string) string {
	b.t.Helper()
	o := b.do(args...)
	if o.code != 0 {
		b.t.Fatalf("%v: code %d, %s%s", args, o.code, o.out, o.err)
	}
	return o.out
}

// write writes config.json.
func (b *box) write() {
	b.t.Helper()
	text, err := json.MarshalIndent(b.spec, "", " ")
	if err == nil {
		err = os.WriteFile(b.bundle+"/config.json", text, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// run runs the container to its end.
func (b *box) run(flags ...string) outcome {
	b.t.Helper()
	b.write()
	return b.do(append(append([]string{"run", "--bundle", b.bundle}, flags...), b.id)...)
}

// start creates and starts the container, whose output goes to the file it
// returns.
func (b *box) start() string {
	b.t.Helper()
	b.write()
	path := filepath.Join(b.t.TempDir(), "output")
	f, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	cmd := b.command("create", "--bundle", b.bundle, b.id)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(path)
		b.t.Fatalf("create: %v\n%s", err, text)
	}
	b.must("start", b.id)
	return path
}

// state is what the runtime says of the container.
func (b *box) state() shown {
	b.t.Helper()
	var s shown
	if err := json.Unmarshal([]byte(b.must("state", b.id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// awaitStatus waits for a status.
func (b *box) awaitStatus(want specs.ContainerState) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); b.state().Status != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("status stays %s, want %s", b.state().Status, want)
		}
	}
}

// subreaper makes this process the parent of what the runtime leaves, for the
// time of a test.
func subreaper(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
}
