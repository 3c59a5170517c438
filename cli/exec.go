package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// execFlags are exec as it is asked for.
type execFlags struct {
	stdin, tty, detach, privileged bool
	user, workdir, keys            string
	variables                      variableFlags
}

func (a *app) execCmd() *cobra.Command {
	var f execFlags
	c := &cobra.Command{
		Use: "exec [flags] CONTAINER COMMAND [ARG...]", Short: "Run a further program in a running container", Args: minArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := f.spec(a, args[1:])
			if err == nil {
				_, err = parseDetachKeys(f.keys)
			}
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			return a.exec(c.Context(), args[0], &f, spec)
		},
	}
	p := c.Flags()
	p.SetInterspersed(false) // what follows the container is the program's
	p.BoolVarP(&f.stdin, "interactive", "i", false, "give it standard input")
	p.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	p.BoolVarP(&f.detach, "detach", "d", false, "run it in the background")
	p.BoolVar(&f.privileged, "privileged", false, "give it every right that the engine has")
	p.StringVarP(&f.user, "user", "u", "", "user: name|uid[:group|gid]")
	p.StringVarP(&f.workdir, "workdir", "w", "", "working directory inside")
	f.variables.register(p)
	registerDetachKeys(p, &f.keys)
	return c
}

func (f *execFlags) spec(a *app, args []string) (core.ExecSpec, error) {
	sp := core.ExecSpec{
		Args: args, Cwd: f.workdir, User: f.user, TTY: f.tty, OpenStdin: f.stdin && !f.detach, Privileged: f.privileged,
	}
	if f.tty {
		size := a.terminalSize()
		sp.Rows, sp.Columns = int(size.Rows), int(size.Cols)
	}
	var err error
	sp.Env, err = f.variables.read(a)
	return sp, err
}

func (a *app) exec(ctx context.Context, ref string, f *execFlags, spec core.ExecSpec) error {
	if !f.detach {
		if err := a.checkTTY(f.tty, f.stdin); err != nil {
			return err
		}
	}
	cmd := &core.ExecContainer{ID: core.ContainerID(ref), Exec: core.ExecID(newID()), Spec: spec, Attach: !f.detach}
	if f.detach {
		accepted, err := a.carry(ctx, cmd, told{wait: true})
		if err != nil {
			return err
		}
		return a.execStarted(ctx, accepted)
	}
	x := &execSession{a: a, cmd: cmd, signals: make(chan os.Signal, 4)}
	x.talk = conversation{
		a: a, in: query.AttachIn{Ref: ref, Exec: cmd.Exec}, tty: f.tty, handed: x.handed,
		hello: stdio.Hello{Stdout: true, Stderr: true, Stdin: f.stdin, StdinOnce: f.stdin && !f.tty, Lossless: true},
	}
	var err error
	if x.talk.keys, err = parseDetachKeys(f.keys); err != nil {
		return err
	}
	return x.run(ctx)
}

// execStarted waits until the program is executed, or says why it is not.
func (a *app) execStarted(ctx context.Context, accepted sent) error {
	end, err := a.jobEnd(ctx, accepted)
	if err != nil || end.Outcome == core.JobDone {
		return err
	}
	if end.Fault == nil {
		return jobError(accepted.job, end.Outcome, end.By, end.Fault)
	}
	return &statusError{code: execCode(end.Fault), text: end.Fault.Message}
}

// execCode is the code that a failed exec ends with.
func execCode(f *core.Fault) int {
	switch class := errclass.ByName(f.Class); {
	case errdefs.IsNotFound(class):
		return exitNoProgram
	case errdefs.IsPermissionDenied(class), errdefs.IsInvalidArgument(class), errdefs.IsResourceExhausted(class):
		return exitNoExec
	}
	return exitFailure
}

// execSession is one exec that is stayed with.
type execSession struct {
	a       *app
	cmd     *core.ExecContainer
	talk    conversation
	signals chan os.Signal
	sent    sent
}

// run sends the command and copies until the program's end. It asks for no
// events: the trailer of the output tells all, unless something goes wrong.
func (x *execSession) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if x.sent, err = x.a.carry(ctx, x.cmd, told{attach: true, meanwhile: x.takeSignals}); err != nil {
		return err
	}
	output := make(chan outputEnd, 1)
	moved := make(chan struct{}, 4)
	go func() {
		exit, err := x.talk.converse(ctx, func() { moved <- struct{}{} })
		output <- outputEnd{exit, err}
	}()
	runs := false
	for {
		select {
		case <-moved:
			runs = true
		case end := <-output:
			return x.ended(ctx, end)
		case sig := <-x.signals:
			if !runs {
				_, _ = x.a.send(ctx, &core.CancelJob{Target: x.sent.job}) // it may run by now: then it goes on
			}
			return &statusError{code: 128 + int(sig.(unix.Signal))}
		}
	}
}

// takeSignals: from here on none ends the command by itself.
func (x *execSession) takeSignals() {
	signal.Notify(x.signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	notifyHangUp(x.signals)
}

// handed is the connection that came with the command.
func (x *execSession) handed(context.Context) (*os.File, error) {
	said, err := x.sent.next()
	if err != nil {
		return nil, nil // the engine went meanwhile: the next one is asked
	}
	return attached(said, x.sent.stream)
}

// ended says with which code the command ends.
func (x *execSession) ended(ctx context.Context, end outputEnd) error {
	switch {
	case end.exit != nil && !end.exit.Failed:
		return exitStatus(end.exit.Code)
	case end.exit == nil && (errors.As(end.err, new(outputError)) || errors.As(end.err, &detachedError{})):
		return end.err
	}
	if err := x.a.execStarted(ctx, sent{job: x.sent.job, seq: x.sent.seq}); err != nil {
		return err
	}
	// It was executed, and its output broke off.
	for until := time.Now().Add(recordWithin); ; {
		var d query.ExecDetail
		err := x.a.query(ctx, query.ContainerExec, query.RefIn{Ref: string(x.cmd.Exec)}, &d)
		if err == nil && d.Exec.Exit != nil {
			x.a.complain("the connection to the program's output was lost", "")
			return exitStatus(d.Exec.Exit.Code)
		}
		if time.Now().After(until) {
			return fmt.Errorf("the connection to the program was lost: %w", end.err)
		}
		time.Sleep(attachAgain)
	}
}

// exitStatus ends the command as a program has ended.
func exitStatus(code int) error {
	if code == 0 {
		return nil
	}
	return &statusError{code: code}
}
