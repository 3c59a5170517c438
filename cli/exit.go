package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// The exit codes that Docker's users know.
const (
	exitFailure     = 1
	exitEngine      = 125 // of run: the engine refused; of all: the command line is wrong
	exitNoExec      = 126 // the program cannot be executed
	exitNoProgram   = 127 // the program is not there
	exitInterrupted = 130
)

// statusError ends the command with a code; a text is printed unless empty.
type statusError struct {
	code int
	text string
	hint string
}

func (e *statusError) Error() string { return e.text }

// exitCode prints what went wrong and says with which code to end.
func (a *app) exitCode(err error) int {
	if err == nil {
		return 0
	}
	var status *statusError
	if errors.As(err, &status) {
		if status.text != "" {
			a.complain(status.text, status.hint)
		}
		return status.code
	}
	var usage *usageError
	if errors.As(err, &usage) {
		hint := errclass.Hint(err)
		if hint == "" {
			hint = "see '" + usage.command + " --help'"
		}
		a.complain(usage.Error(), hint)
		return exitEngine
	}
	a.complain(err.Error(), errclass.Hint(err))
	return exitFailure
}

// complain writes to stderr what went wrong and, if there is something, what to
// do about it.
func (a *app) complain(text, hint string) {
	end := "\n"
	if a.raw() {
		end = "\r\n"
	}
	fmt.Fprint(a.Stderr, "gantry: ", strings.TrimSuffix(inFlags(text), "."), end)
	if hint != "" {
		fmt.Fprint(a.Stderr, "hint: ", hint, end)
	}
}

// asEngine makes err one that ends the command with 125.
func asEngine(err error) error {
	var status *statusError
	var usage *usageError
	if err == nil || errors.As(err, &status) || errors.As(err, &usage) {
		return err
	}
	return &statusError{code: exitEngine, text: err.Error(), hint: errclass.Hint(err)}
}

// faultCode is the code that run ends with when a start failed: 127 and 126 are
// for the program itself only.
func faultCode(f *core.Fault) int {
	if f != nil && f.Step.Noun().Kind == core.KindContainer && f.Step.Verb() == "start" {
		switch class := errclass.ByName(f.Class); {
		case errdefs.IsNotFound(class):
			return exitNoProgram
		case errdefs.IsPermissionDenied(class):
			return exitNoExec
		}
	}
	return exitEngine
}

// faultError is what a failed start says, with the code that run ends with.
func faultError(f *core.Fault) error {
	if f == nil {
		return &statusError{code: exitEngine, text: "the job failed"}
	}
	return &statusError{code: faultCode(f), text: f.Message}
}

// goneAlready says that what was to go by force is not there: it is told, and the
// command goes on as if it had gone by it.
type goneAlready struct{ error }

func (e goneAlready) Unwrap() error { return e.error }

// each does something for every argument and goes on when one fails. What went
// wrong is said at once; the command ends with 1.
func (a *app) each(args []string, do func(arg string) error) error {
	failed := false
	for _, arg := range args {
		if err := do(arg); err != nil {
			a.complain(err.Error(), errclass.Hint(err))
			failed = failed || !errors.As(err, &goneAlready{})
		}
	}
	if failed {
		return &statusError{code: exitFailure}
	}
	return nil
}

// together is each for what takes a while: all arguments at once, a bounded
// number, results in the order of the arguments.
func (a *app) together(args []string, do func(arg string) error) error {
	const most = 16
	errs := make([]chan error, len(args))
	slots := make(chan struct{}, most)
	for i, arg := range args {
		errs[i] = make(chan error, 1)
		go func() {
			slots <- struct{}{}
			errs[i] <- do(arg)
			<-slots
		}()
	}
	i := 0
	return a.each(args, func(arg string) error {
		err := <-errs[i]
		i++
		if err == nil {
			fmt.Fprintln(a.Stdout, arg)
		}
		return err
	})
}
