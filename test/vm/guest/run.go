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
		if err := runPackage(r, m, base, p, here); err != nil {
			return err
		}
	}
	return r.send(wire.Message{Kind: wire.Over})
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

// runPackage runs one test program to its end, or to the end of its time.
func runPackage(r *results, m wire.Manifest, base string, p wire.Package, here bool) error {
	if err := r.send(wire.Message{Kind: wire.Begin, Package: p.Path}); err != nil {
		return err
	}
	before := seen(here)
	// The tests say first where they hang; then they are killed.
	ctx, cancel := context.WithTimeout(context.Background(), m.Each+20*time.Second)
	defer cancel()
	args := []string{"-test.v=test2json", "-test.timeout=" + m.Each.String(), "-test.count=1"}
	if m.Run != "" {
		args = append(args, "-test.run="+m.Run)
	}
	if m.Skip != "" {
		args = append(args, "-test.skip="+m.Skip)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(base, p.Binary), args...)
	cmd.Dir = p.Dir
	cmd.Env = append(os.Environ(), "GANTRY_BIN="+filepath.Join(m.Root, "bin"))
	if !here {
		cmd.Env = append(cmd.Env, "HOME=/root", "LANG=C.UTF-8")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	// Whoever was left behind may hold the output open.
	cmd.WaitDelay = 5 * time.Second
	w := &said{r: r, pkg: p.Path}
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Run()
	w.flush()
	end := wire.Message{Kind: wire.End, Package: p.Path, Left: left(before, here)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		end.Code = exit.ExitCode()
	default:
		end.Code, end.Text = -1, err.Error()
	}
	return r.send(end)
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
