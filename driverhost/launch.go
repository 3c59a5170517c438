package driverhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
)

// launch is a driver's program as a process: go-plugin's runner.Runner. It stands
// in the place of go-plugin's own, which would give the driver this process's
// stdin, fork without regard to the thread, kill one pid only, and never end if a
// descendant of the driver keeps a pipe open.
type launch struct {
	cmd    *exec.Cmd
	enter  func() error // run on the thread that forks, which is spent on it
	cage   *cage
	name   string // of its cgroup
	fence  time.Duration
	said   *said
	stdout *os.File

	ended  chan struct{} // closed when its main process is gone
	gone   chan struct{} // closed when all of its processes are gone, or do not go
	status string        // how the main process ended; set before ended is closed
}

var _ runner.Runner = (*launch)(nil)

// Start forks. The thread that does so has the driver's capabilities alone
// (capabilities(7): they are a thread's own) and is not used again.
func (l *launch) Start(context.Context) error {
	out, outWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	complaints, errWrite, err := os.Pipe()
	if err != nil {
		return errors.Join(err, out.Close(), outWrite.Close())
	}
	l.cmd.Stdout, l.cmd.Stderr = outWrite, errWrite
	err = onOwnThread(func() error {
		if err := l.enter(); err != nil {
			return err
		}
		return l.cmd.Start()
	})
	_, _ = outWrite.Close(), errWrite.Close()
	if err != nil {
		return errors.Join(err, out.Close(), complaints.Close())
	}
	l.stdout = out
	go func() {
		l.said.read(complaints)
		_ = complaints.Close()
	}()
	go l.wait(complaints)
	return nil
}

// onOwnThread runs f on a thread that ends with it. The process's first thread
// does not end and stands for the process in /proc: it is kept busy meanwhile, if
// it is offered.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			done <- f() // never unlocked: the thread ends with the goroutine
			return
		}
		defer runtime.UnlockOSThread()
		done <- onOwnThread(f)
	}()
	return <-done
}

// drip is how long what is left in a dead driver's pipes may take to be read, if
// somebody else keeps them open.
const drip = 200 * time.Millisecond

// wait reaps the process and sees to it that nothing is left of the instance.
func (l *launch) wait(complaints *os.File) {
	err := l.cmd.Wait()
	l.status = "exit status 0"
	if err != nil {
		l.status = err.Error()
	}
	for _, f := range []*os.File{l.stdout, complaints} {
		_ = f.SetReadDeadline(time.Now().Add(drip)) // fails if it was read to its end
	}
	close(l.ended)
	l.cage.end(l.name, l.fence) // what does not end is told by name when its lock is asked for
	close(l.gone)
	time.Sleep(drip) // until go-plugin has read it to its end, which it does not tell
	_ = l.stdout.Close()
}

// how says how the process ended, and its last word.
func (l *launch) how() string {
	select {
	case <-l.said.over:
	case <-time.After(2 * drip):
	}
	if word := l.said.lastWord(); word != "" {
		return fmt.Sprintf("%s; it said: %s", l.status, word)
	}
	return l.status
}

// Kill ends the instance: all of it. Of one that is gone nothing is left to be ended: the
// name of its cgroup may be another one's by now.
func (l *launch) Kill(context.Context) error {
	if l.cmd.Process == nil {
		return nil
	}
	select {
	case <-l.gone:
		return nil
	default:
	}
	l.cage.kill(l.name)
	_ = l.cmd.Process.Kill() // it may be gone, which is what is wanted
	return nil
}

// Wait waits for the main process.
func (l *launch) Wait(context.Context) error {
	<-l.ended
	return nil
}

// ID is the pid, or empty if there is no process.
func (l *launch) ID() string {
	if l.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(l.cmd.Process.Pid)
}

// Stdout carries the handshake.
func (l *launch) Stdout() io.ReadCloser { return l.stdout }

// Stderr has nothing for go-plugin: said reads it.
func (l *launch) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name is the program.
func (l *launch) Name() string { return l.cmd.Path }

// Diagnose adds nothing: the sentence is made by refusal.
func (l *launch) Diagnose(context.Context) string { return "" }

// PluginToHost leaves the address as it is.
func (l *launch) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin leaves the address as it is.
func (l *launch) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// refusal puts what go-plugin says of a failed start into a short sentence.
func (l *launch) refusal(err error) error {
	if l.cmd.Process == nil {
		return err // it could not be executed
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	line, unread := strings.CutPrefix(first, "Unrecognized remote plugin message: ")
	switch {
	case unread && line != "":
		return fmt.Errorf("it does not speak the drivers' protocol: its first line is %q", line[:min(len(line), longestWord)])
	case unread || strings.HasPrefix(first, "plugin exited"):
		select {
		case <-l.ended:
			return fmt.Errorf("it ended before it was ready: %s", l.how())
		case <-time.After(dying):
			first = "it closed its output before it was ready"
		}
	case strings.HasPrefix(first, "timeout"):
		first = "it does not shake hands in time"
	}
	if word := l.said.lastWord(); word != "" {
		first += "; it said: " + word
	}
	return errors.New(first)
}

// client makes go-plugin's side of the launch; config is that of sdk/driver.
func (l *launch) client(config *plugin.ClientConfig, temp string, start time.Duration) *plugin.Client {
	own := l.cmd.Env
	config.Cmd, config.StartTimeout = nil, start
	config.UnixSocketConfig = &plugin.UnixSocketConfig{TempDir: temp}
	config.RunnerFunc = func(_ hclogger, theirs *exec.Cmd, _ string) (runner.Runner, error) {
		l.cmd.Env = append(theirs.Env, own...) // of a name that is there twice, the last counts
		return l, nil
	}
	return plugin.NewClient(config)
}
