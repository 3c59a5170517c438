package runtime

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// runRun is the command run: create and start in one, without a gate. In the
// foreground it stays until the program has ended, and ends as that did.
func runRun(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("run")
	var o createOptions
	o.define(fs)
	both(fs, "detach", "d", func(n string) { fs.BoolVar(&o.detach, n, false, "come back when the program runs") })
	fs.BoolVar(&o.keep, "keep", false, "keep the container when the program has ended")
	ids, err := parse(fs, g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	if code, entered, err := enterUser(g, o); entered {
		return code, err
	}
	signals := catchSignals(o.detach)
	c, err := create(ctx, g, ids[0], o)
	if err != nil {
		return exitFailed, err
	}
	if err := c.poststart(ctx, g, c.b); err != nil {
		return exitFailed, err
	}
	if o.detach {
		c.release()
		return 0, nil
	}
	code, err := attend(c.pidfd, c.Init.PID, c.master, signals)
	c.release()
	if err != nil {
		return exitFailed, err
	}
	if !o.keep {
		if err := c.destroy(ctx, g); err != nil {
			return exitFailed, err
		}
	}
	return code, nil
}

// catchSignals takes the signals that are passed on to a program in the
// foreground, from before it exists; nil for none.
func catchSignals(detached bool) chan os.Signal {
	if detached {
		return nil
	}
	signals := make(chan os.Signal, 128)
	signal.Notify(signals, passedSignals()...)
	signal.Ignore(syscall.SIGPIPE) // the program's output is not ours
	return signals
}

// passedSignals are those that somebody may mean for the program. Each costs two
// system calls, so that all 65 would be felt.
func passedSignals() []os.Signal {
	return []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPWR, syscall.SIGIO,
	}
}

// attend stays with a child until it has ended: passes signals on, relays its
// terminal, and gives its exit code.
func attend(pidfd *os.File, pid int, master *os.File, signals chan os.Signal) (int, error) {
	if master != nil {
		r, err := startRelay(master)
		if err != nil {
			return 0, err
		}
		defer r.close()
	}
	go passSignals(pidfd, signals)
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("wait", err)
		}
		break
	}
	signal.Stop(signals)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// passSignals hands signals on.
func passSignals(pidfd *os.File, signals chan os.Signal) {
	for s := range signals {
		if sig, ok := s.(syscall.Signal); ok {
			_, _ = sendSignal(pidfd, sig)
		}
	}
}
