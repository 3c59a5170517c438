// Package escape tries the known ways out of a container against our own
// runtime: each class twice, as everybody runs it, where it must fail, and with
// just the one protection off, where it must succeed. All attacks are against
// containers of the test; what stands for the host's files is a mark in its
// scratch directory.
package escape

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/gantryd/gantry/test/rig"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// patience bounds one command and one wait.
const patience = time.Minute

// secret is what the mark holds.
const secret = "only-the-host-knows"

// weakEnv names a directory with the programs that have switches, for machines
// without the Go toolchain, and with shims, whose names say their switches.
const weakEnv = "GANTRY_WEAK_BIN"

// works is where the programs are built, and what they are built from.
type works struct {
	dir    string
	module string
	built  map[string]string // directory of a variant
}

var shop works

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	err := rig.Build()
	if err == nil {
		shop.module, err = rig.Module()
	}
	if err == nil {
		shop.dir, err = os.MkdirTemp("", "escape")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(shop.dir)
	shop.built = map[string]string{}
	return m.Run()
}

// command runs a builder.
func (s *works) command(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = s.module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// variant is a directory with gantry-oci and its shim. defines are of the shim;
// weakened is the build of gantry-oci that has switches.
func (s *works) variant(t *testing.T, weakened bool, defines ...string) string {
	t.Helper()
	return s.once(t, fmt.Sprint("oci ", weakened, defines), func(bin, dir string) {
		s.program(t, weakened, "gantry-oci", bin, dir)
		s.shim(t, bin, dir, defines)
	})
}

// engine is the same with all that an engine needs. What is off is told its
// drivers by a file.
func (s *works) engine(t *testing.T, off []weak.Protection, defines ...string) string {
	t.Helper()
	return s.once(t, fmt.Sprint("engine ", off, defines), func(bin, dir string) {
		all, err := os.ReadDir(bin)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			name := f.Name()
			switch {
			case !strings.HasPrefix(name, "gantry") || name == "gantry-shim" || name == "gantry-drivers":
			case f.Type()&os.ModeSymlink != 0:
				err = os.Symlink("gantry-drivers", filepath.Join(dir, name))
			default:
				copyFile(t, filepath.Join(bin, name), filepath.Join(dir, name))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s.program(t, len(off) > 0, "gantry-drivers", bin, dir)
		s.shim(t, bin, dir, defines)
		if len(off) > 0 {
			if err := os.WriteFile(filepath.Join(dir, "weaken"), []byte(list(off)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func list(off []weak.Protection) string {
	var names []string
	for _, p := range off {
		names = append(names, string(p))
	}
	return strings.Join(names, ",")
}

// once makes the directory of a variant.
func (s *works) once(t *testing.T, key string, fill func(bin, dir string)) string {
	t.Helper()
	bin, err := rig.Bin()
	if err != nil {
		t.Fatal(err)
	}
	if dir := s.built[key]; dir != "" {
		return dir
	}
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	fill(bin, dir)
	s.built[key] = dir
	return dir
}

// program puts a program into a directory, as it is or with switches.
func (s *works) program(t *testing.T, weakened bool, name, bin, dir string) {
	t.Helper()
	from := filepath.Join(bin, name)
	if weakened {
		from = filepath.Join(s.dir, name)
		if dir := os.Getenv(weakEnv); dir != "" {
			from = filepath.Join(dir, name)
		} else if s.built[name] == "" {
			s.command(t, "go", "build", "-tags", "weakened", "-o", from, "./cmd/"+name)
			s.built[name] = from
		}
	}
	copyFile(t, from, filepath.Join(dir, name))
}

// shim puts the shim into a directory, as it is or compiled with switches.
func (s *works) shim(t *testing.T, bin, dir string, defines []string) {
	t.Helper()
	if len(defines) == 0 {
		copyFile(t, filepath.Join(bin, "gantry-shim"), filepath.Join(dir, "gantry-shim"))
		return
	}
	if made := os.Getenv(weakEnv); made != "" {
		made = filepath.Join(made, "gantry-shim-"+strings.Join(defines, "-"))
		if _, err := os.Stat(made); err == nil {
			copyFile(t, made, filepath.Join(dir, "gantry-shim"))
			return
		}
	}
	s.command(t, "make", "-s", "BIN="+dir, "SHIM_EXTRA=-D"+strings.Join(defines, " -D"), dir+"/gantry-shim")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// world is what one attack is made in.
type world struct {
	t    *testing.T
	dir  string // of the test
	bin  string
	off  string // GANTRY_WEAKEN
	mark string // a file of the host's, which only root may read
	ids  int
	// engine is what some attacks are made against; nil for gantry-oci.
	engine *rig.Engine
}

// newWorld makes one for a build.
func newWorld(t *testing.T, bin string, off ...weak.Protection) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), bin: bin, off: list(off)}
	w.mark = filepath.Join(w.path("host"), "mark")
	w.write(w.mark, secret)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// path is a directory of the world, which is made.
func (w *world) path(name string) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	w.must(os.MkdirAll(p, 0o755))
	return p
}

func (w *world) write(name, text string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(name), 0o755))
	w.must(os.WriteFile(name, []byte(text), 0o600))
}

// has reports whether a file holds a text.
func (w *world) has(name, text string) bool {
	b, err := os.ReadFile(name)
	return err == nil && strings.Contains(string(b), text)
}

// await waits until something is so.
func (w *world) await(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// result is how a command of gantry-oci ended.
type result struct {
	out  string // both streams, its own and the container's
	code int
	peak int64 // kB of memory at most
	late bool  // it had to be killed
}

// oci runs gantry-oci. files are its descriptors from 3 on.
func (w *world) oci(files []*os.File, args ...string) result {
	w.t.Helper()
	return w.within(patience, files, args...)
}

func (w *world) within(limit time.Duration, files []*os.File, args ...string) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := os.CreateTemp(w.dir, "out")
	w.must(err)
	defer out.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "gantry-oci"), append([]string{"--root", w.path("state")}, args...)...)
	cmd.Env = append(os.Environ(), "GANTRY_WEAKEN="+w.off)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, files
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	w.must(err)
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return result{string(text), cmd.ProcessState.ExitCode(), usage.Maxrss, ctx.Err() != nil}
}

// ok runs gantry-oci, which must not fail.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	r := w.oci(nil, args...)
	if r.code != 0 {
		w.t.Fatalf("gantry-oci %v: %d: %s", args, r.code, r.out)
	}
	return r.out
}

// bundle is a container to be.
type bundle struct {
	*specs.Spec
	w       *world
	id, dir string
	root    string
	pidFile string
}

// bundle makes one that runs words in busybox.
func (w *world) bundle(words ...string) *bundle {
	w.t.Helper()
	w.ids++
	id := fmt.Sprintf("escape-%d-%s-%d", os.Getpid(), filepath.Base(w.dir)+strconv.Itoa(os.Getpid()%97), w.ids)
	b := &bundle{Spec: plainSpec(words...), w: w, id: id, dir: w.path("bundle-" + strconv.Itoa(w.ids))}
	b.root = filepath.Join(b.dir, "rootfs")
	b.pidFile = filepath.Join(b.dir, "pid")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		w.must(os.MkdirAll(filepath.Join(b.root, d), 0o755))
	}
	w.must(exec.Command("cp", "/bin/busybox", filepath.Join(b.root, "bin/busybox")).Run())
	for _, name := range strings.Fields("sh cat ls sleep id echo mkdir rm grep readlink true test touch head pwd env") {
		w.must(os.Symlink("busybox", filepath.Join(b.root, "bin", name)))
	}
	w.t.Cleanup(func() { w.oci(nil, "delete", "--force", id) })
	return b
}

// defaultCaps are those that containers usually have.
func defaultCaps() []string {
	return []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}
}

// plainSpec is a container as usual.
func plainSpec(words ...string) *specs.Spec {
	s := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: words, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.MountNamespace, specs.UTSNamespace, specs.IPCNamespace, specs.NetworkNamespace, specs.CgroupNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
	}
	setCaps(s, defaultCaps()...)
	return s
}

func setCaps(s *specs.Spec, caps ...string) {
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// mount adds one at the end, or in the place of one with the same target.
func (b *bundle) mount(m specs.Mount) {
	for i := range b.Mounts {
		if b.Mounts[i].Destination == m.Destination {
			b.Mounts[i] = m
			return
		}
	}
	b.Mounts = append(b.Mounts, m)
}

// drop leaves mounts out.
func (b *bundle) drop(targets ...string) {
	for _, t := range targets {
		for i := range b.Mounts {
			if b.Mounts[i].Destination == t {
				b.Mounts = append(b.Mounts[:i], b.Mounts[i+1:]...)
				break
			}
		}
	}
}

// join takes a namespace of another container.
func (b *bundle) join(t specs.LinuxNamespaceType, path string) {
	for i := range b.Linux.Namespaces {
		if b.Linux.Namespaces[i].Type == t {
			b.Linux.Namespaces[i].Path = path
			return
		}
	}
	b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
}

// save writes config.json.
func (b *bundle) save() {
	text, err := json.Marshal(b.Spec)
	b.w.must(err)
	b.w.must(os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o600))
}

// args are those of a command that makes the container.
func (b *bundle) args(verb string, more ...string) []string {
	return append(append([]string{verb, "--bundle", b.dir, "--pid-file", b.pidFile}, more...), b.id)
}

// make runs create or "run --detach".
func (b *bundle) make(verb string, more ...string) result {
	b.w.t.Helper()
	b.save()
	return b.w.oci(nil, b.args(verb, more...)...)
}

// begin has the program run.
func (b *bundle) begin() *bundle {
	b.w.t.Helper()
	if r := b.make("run", "--detach"); r.code != 0 {
		b.w.t.Fatalf("run: %s", r.out)
	}
	return b
}

// pid is the host's number of the first process.
func (b *bundle) pid() string {
	b.w.t.Helper()
	text, err := os.ReadFile(b.pidFile)
	b.w.must(err)
	return string(bytes.TrimSpace(text))
}

// exec runs a shell's words in the container.
func (b *bundle) exec(script string) result {
	b.w.t.Helper()
	return b.w.oci(nil, "exec", b.id, "sh", "-c", script)
}

// sane makes sure that the build still runs containers.
func (w *world) sane() {
	w.t.Helper()
	if w.engine != nil {
		if out := w.gantry("run", "--rm", "busybox", "echo", "fine"); !strings.Contains(out, "fine") {
			w.t.Errorf("an ordinary container afterwards: %s", out)
		}
		return
	}
	b := w.bundle("sh", "-c", "echo fine; cat /proc/self/status | head -1")
	if r := b.make("run"); r.code != 0 || !strings.Contains(r.out, "fine") {
		w.t.Errorf("an ordinary container afterwards: %d: %s", r.code, r.out)
	}
}
