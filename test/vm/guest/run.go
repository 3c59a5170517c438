package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// results writes messages, one a line.
type results struct {
	mu  sync.Mutex // guards out: lines stay whole
	out io.Writer
}

func (r *results) send(m wire.Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.out.Write(append(b, '\n'))
	return err
}

// run runs what the manifest names. In a machine of its own, it ends that.
func run(manifest string, here bool) error {
	out := os.Stdout
	if !here {
		port, err := openPort(wire.Port)
		if err != nil {
			return err
		}
		defer port.Close()
		out = port
	}
	b, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	var m wire.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%s: %w", manifest, err)
	}
	base := filepath.Dir(manifest)
	if !here {
		if err := (mount{base + "/tree", m.Root, "", unix.MS_BIND, ""}).do(); err != nil {
			return err
		}
		// Version 2's list of descriptors that may be open is the machine's, not ours.
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
			return err
		}
	}
	r := &results{out: out}
	for _, f := range facts() {
		if err := r.send(wire.Message{Kind: wire.Fact, Name: f[0], Text: f[1]}); err != nil {
			return err
		}
	}
	if m.Run+m.Skip != "" {
		if err := r.send(wire.Message{Kind: wire.Fact, Name: "tests", Text: fmt.Sprintf("run %q, skip %q", m.Run, m.Skip)}); err != nil {
			return err
		}
	}
	for _, p := range m.Packages {
		if !here && leaves(p.Path) {
			continue
		}
		if err := (&program{r: r, m: m, p: p, base: base, here: here}).run(); err != nil {
			return err
		}
	}
	return r.send(wire.Message{Kind: wire.Over})
}

// leaves says whether this machine leaves a package to others.
func leaves(path string) bool {
	return slices.ContainsFunc(strings.Split(parameter("vm.leave"), ","), func(l string) bool {
		return path == l || l != "" && strings.HasPrefix(path, l+"/")
	})
}

// openPort finds the virtio port of that name.
func openPort(name string) (*os.File, error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, p := range ports {
			b, err := os.ReadFile(p)
			if err == nil && strings.TrimSpace(string(b)) == name {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(p)), os.O_WRONLY, 0)
			}
		}
	}
	return nil, fmt.Errorf("no virtio port %s", name)
}

// program is a compiled test program on this machine.
type program struct {
	r    *results
	m    wire.Manifest
	p    wire.Package
	base string // directory of the manifest
	here bool
}

// run runs the tests of a package: all of them, anew without those that ended
// whenever one hangs, and at last those once more that failed. On a machine that
// is translated or stopped for others a minute may be missing in a test: what
// only then fails passes the second time, and is told as such.
func (p *program) run() error {
	w := newWatch()
	skip := p.m.Skip
	for {
		hung, err := p.once(w, p.m.Run, skip, false)
		if err != nil {
			return err
		}
		if len(hung) == 0 {
			break
		}
		skip = strings.Trim(p.m.Skip+"|"+pattern(w.ended()), "|")
		w.restart()
	}
	if names := w.failed(); len(names) > 0 {
		_, err := p.once(newWatch(), pattern(names), p.m.Skip, true)
		return err
	}
	return nil
}

// once runs the program to its end, or until a test hangs; those that hung it
// returns.
func (p *program) once(w *watch, which, skip string, again bool) ([]string, error) {
	if err := p.r.send(wire.Message{Kind: wire.Begin, Package: p.p.Path, Again: again}); err != nil {
		return nil, err
	}
	before := seen(p.here)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := p.command(ctx, which, skip)
	out := &said{r: p.r, pkg: p.p.Path}
	both := io.MultiWriter(out, w)
	cmd.Stdout, cmd.Stderr = both, both
	end := wire.Message{Kind: wire.End, Package: p.p.Path}
	err := cmd.Start()
	if err == nil {
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if err = p.await(w, cmd.Process.Pid, ended); errors.Is(err, errHangs) {
			cancel()
			<-ended
			end.Hung = w.give()
			if len(end.Hung) == 0 {
				end.Text = "it hangs outside of its tests"
			}
		}
	}
	out.flush()
	end.Left = left(before, p.here)
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		end.Code = exit.ExitCode()
	default:
		end.Code, end.Text = -1, strings.TrimSpace(end.Text+" "+err.Error())
	}
	return end.Hung, p.r.send(end)
}

// errHangs is that of a program in which no test ends any more.
var errHangs = errors.New("no test went on for too long")

// await waits for the program's end. One that hangs has to say first where.
func (p *program) await(w *watch, pid int, ended <-chan error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		if w.still() > p.m.Each {
			_ = unix.Kill(pid, unix.SIGQUIT) // the go runtime writes all stacks
			time.Sleep(5 * time.Second)
			return errHangs
		}
	}
}

func (p *program) command(ctx context.Context, which, skip string) *exec.Cmd {
	args := []string{"-test.v=test2json", "-test.timeout=0", "-test.count=1"}
	if p.m.Short && !p.here {
		// What waits for something for a second needs the machine for itself.
		args = append(args, "-test.short", "-test.parallel=1")
	}
	if which != "" {
		args = append(args, "-test.run="+which)
	}
	if skip != "" {
		args = append(args, "-test.skip="+skip)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.base, p.p.Binary), args...)
	cmd.Dir = p.p.Dir
	cmd.Env = append(os.Environ(), "GANTRY_BIN="+filepath.Join(p.m.Root, "bin"), "GANTRY_WEAK_BIN="+filepath.Join(p.base, wire.Weak))
	if !p.here {
		cmd.Env = append(cmd.Env, "HOME=/root", "LANG=C.UTF-8")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	// Whoever was left behind may hold the output open.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// said sends what a program writes, by whole lines. exec writes from one
// goroutine at a time, as stdout and stderr are the same.
type said struct {
	r    *results
	pkg  string
	rest []byte
}

// maxSaid bounds a line that does not end.
const maxSaid = 64 << 10

func (s *said) Write(b []byte) (int, error) {
	s.rest = append(s.rest, b...)
	if i := strings.LastIndexByte(string(s.rest), '\n'); i >= 0 {
		s.send(s.rest[:i+1])
		s.rest = append(s.rest[:0], s.rest[i+1:]...)
	}
	if len(s.rest) > maxSaid {
		s.flush()
	}
	return len(b), nil
}

func (s *said) flush() {
	if len(s.rest) > 0 {
		s.send(s.rest)
		s.rest = nil
	}
}

func (s *said) send(b []byte) {
	if err := s.r.send(wire.Message{Kind: wire.Output, Package: s.pkg, Text: string(b)}); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
}
