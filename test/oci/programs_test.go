package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	module  = "github.com/opencontainers/runtime-tools"
	sources = "testdata/programs"
	// howMany there are: one that got lost would not be missed otherwise.
	howMany = 58
)

// programs is where the validation programs are, built.
type programs struct {
	dir   string // bin/NAME, runtimetest, the root filesystem
	names []string
}

// goCommand runs the go command in the module that pins the programs.
func goCommand(args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = sources
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	return out, nil
}

// havePrograms builds the programs, or finds them where they were built before,
// by the same Go from the same sources.
func havePrograms(t *testing.T) programs {
	t.Helper()
	if out, err := goCommand("mod", "download"); err != nil {
		t.Skipf("the programs' sources cannot be had: %v %s", err, out)
	}
	at, err := goCommand("list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		t.Fatal(err)
	}
	tools := strings.TrimSpace(string(at))
	rootfs, err := os.ReadFile(filepath.Join(tools, "rootfs-"+runtime.GOARCH+".tar.gz"))
	if err != nil {
		t.Skipf("the programs have no root filesystem for this architecture: %v", err)
	}
	p := programs{dir: cacheDir(t)}
	if _, err := os.Stat(p.dir + "/bin"); err != nil {
		if err := build(p.dir, rootfs); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(p.dir + "/bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		p.names = append(p.names, e.Name())
	}
	if len(p.names) != howMany {
		t.Fatalf("%d programs, want %d", len(p.names), howMany)
	}
	return p
}

// cacheDir is where built programs stay; its name tells what they were built of.
func cacheDir(t *testing.T) string {
	t.Helper()
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version())
	for _, f := range []string{"go.mod", "go.sum", "programs.go"} {
		text, err := os.ReadFile(sources + "/" + f)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(text)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s/gantry/oci-validation-%x", base, sum.Sum(nil)[:6])
}

// build builds the programs into a directory that is there whole, or not at all.
func build(dir string, rootfs []byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "building")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	overlay, err := oldLimits(temp)
	if err == nil {
		err = os.Mkdir(temp+"/bin", 0o755)
	}
	if err == nil {
		_, err = goCommand("build", "-ldflags", "-s -w", "-o", temp+"/bin/", module+"/validation/...")
	}
	if err == nil {
		_, err = goCommand("build", "-ldflags", "-s -w", "-overlay", overlay, "-o", temp+"/runtimetest", module+"/cmd/runtimetest")
	}
	if err == nil {
		err = os.WriteFile(temp+"/rootfs-"+runtime.GOARCH+".tar.gz", rootfs, 0o644)
	}
	if err == nil {
		err = os.Chmod(temp, 0o755)
	}
	if err != nil {
		return err
	}
	return os.Rename(temp, dir)
}

// oldLimits writes a build overlay in which Go does not raise its own soft limit
// of open files, which it does since 1.19: the program that looks from inside is
// from before, and would take what Go did for the runtime's doing.
func oldLimits(dir string) (string, error) {
	goroot, err := goCommand("env", "GOROOT")
	if err != nil {
		return "", err
	}
	original := strings.TrimSpace(string(goroot)) + "/src/syscall/rlimit.go"
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const raising = "if err := Getrlimit(RLIMIT_NOFILE, &lim); err == nil &&"
	if bytes.Count(text, []byte(raising)) != 1 {
		return "", fmt.Errorf("%s: want %q once", original, raising)
	}
	changed := dir + "/rlimit.go"
	err = os.WriteFile(changed, bytes.Replace(text, []byte(raising), []byte(raising+" lim.Max == 0 &&"), 1), 0o644)
	overlay, jsonErr := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	return dir + "/overlay.json", errors.Join(err, jsonErr, os.WriteFile(dir+"/overlay.json", overlay, 0o644))
}

// outcome is what a program said.
type outcome struct {
	ok, skipped int
	fails       []string // the assertions that do not hold
	says        string   // of errors, in no assertion
	code        int
}

// runProgram runs one, with the controllers of version 1 that it needs and that
// are not mounted mounted for it alone.
func runProgram(t *testing.T, p programs, runtimeProgram, name string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := []string{p.dir + "/bin/" + name}
	if strings.HasSuffix(name, "_network") {
		args = withControllers("net_cls", "net_prio", args[0])
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "RUNTIME="+runtimeProgram, "TMPDIR="+t.TempDir())
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	o := outcome{code: cmd.ProcessState.ExitCode(), says: said.String()}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "ok ") && strings.Contains(line, "# SKIP"):
			o.skipped++
		case strings.HasPrefix(line, "ok "):
			o.ok++
		case strings.HasPrefix(line, "not ok "):
			_, text, _ := strings.Cut(line, " - ")
			o.fails = append(o.fails, text)
		}
	}
	// Programs with no assertion tell of errors in what goes with them.
	if len(o.fails) == 0 && o.ok == 0 && strings.Contains(out.String(), `"error"`) {
		o.says += out.String()
	}
	return o
}

// withControllers runs a program in a mount namespace in which two more
// controllers are mounted, as a host would have them.
func withControllers(one, other, program string) []string {
	script := `set -e
mkdir "$TMPDIR/cg"; mount --rbind /sys/fs/cgroup "$TMPDIR/cg"
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for c in "$TMPDIR"/cg/*; do
	[ -L "$c" ] && { cp -a "$c" /sys/fs/cgroup/; continue; }
	mkdir "/sys/fs/cgroup/${c##*/}"; mount --bind "$c" "/sys/fs/cgroup/${c##*/}"
done
for c in "$1" "$2"; do
	[ -d "/sys/fs/cgroup/$c" ] || { mkdir "/sys/fs/cgroup/$c"; mount -t cgroup -o "$c" cgroup "/sys/fs/cgroup/$c"; }
done
set +e; "$3"; code=$?
for c in "$1" "$2"; do # a hierarchy with a group in it would outlive its mount
	find "/sys/fs/cgroup/$c" -mindepth 1 -depth -type d \( -name cgrouptest -o -name testdir \) -exec rmdir {} \;
	for i in 1 2 3 4 5 6 7 8 9 10; do
		grep -q "^$c	[0-9]*	1	" /proc/cgroups && break
		sleep 0.3
	done
	umount "/sys/fs/cgroup/$c"
done
exit $code`
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", one, other, program}
}

// same reports whether an outcome is the expected one; a program that is not
// expected to fail must not.
func (o outcome) same(e expectation) bool {
	if len(e.fails) == 0 && e.says == "" {
		return len(o.fails) == 0 && o.code == 0 && o.says == "" || o.passesByRefusal()
	}
	fails := e.fails
	if e.some { // those that a quick end of the program makes hold are left out
		fails = slices.DeleteFunc(slices.Clone(fails), func(want string) bool {
			return !slices.ContainsFunc(o.fails, func(got string) bool { return strings.HasPrefix(got, want) })
		})
	}
	return slices.EqualFunc(o.fails, fails, strings.HasPrefix) && strings.Contains(o.says, e.says)
}

// passesByRefusal: two programs want the creation to be refused, and pass on what
// the runtime says of it.
func (o outcome) passesByRefusal() bool {
	return len(o.fails) == 0 && o.code == 0 && strings.HasPrefix(o.says, "failed to create the container")
}
