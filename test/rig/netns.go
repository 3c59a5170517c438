package rig

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netns is a network namespace. It lives as long as a process is in it or its
// descriptor is open.
type netns struct{ f *os.File }

// newNetns makes one, with its loopback up.
func newNetns() (*netns, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{nil, fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			err = loopbackUp()
		}
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	return &netns{r.f}, nil
}

// loopbackUp sets lo up in the calling thread's namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// start starts the command in the namespace.
func (n *netns) start(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

// output runs a command in the namespace and returns what it says.
func (n *netns) output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	err := n.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, said.String())
	}
	return out.String(), nil
}

func (n *netns) close() error { return n.f.Close() }

// name is what /proc/PID/ns/net of a process in it says.
func (n *netns) name() string {
	var st unix.Stat_t
	if unix.Fstat(int(n.f.Fd()), &st) != nil {
		return ""
	}
	return fmt.Sprintf("net:[%d]", st.Ino)
}
