package cli

import (
	"errors"
	"io"

	"golang.org/x/term"

	"github.com/gantryd/gantry/internal/stdio"
)

// isTerminal says whether a stream of ours is a terminal.
func isTerminal(stream any) bool {
	f := fileOf(stream)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// checkTTY refuses a terminal for the program whose input would come from none.
func (a *app) checkTTY(tty, stdin bool) error {
	if tty && stdin && !isTerminal(a.Stdin) {
		return &statusError{code: exitFailure, text: "the input device is not a TTY"}
	}
	return nil
}

// makeRaw hands each key on as it is typed, until restore.
func (a *app) makeRaw() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cooked != nil || !isTerminal(a.Stdin) {
		return nil
	}
	state, err := term.MakeRaw(int(a.Stdin.Fd()))
	if err != nil {
		return err
	}
	a.cooked = state
	return nil
}

// restore puts the terminal back to how it was found.
func (a *app) restore() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cooked != nil {
		_ = term.Restore(int(a.Stdin.Fd()), a.cooked) // it is gone, or it works
		a.cooked = nil
	}
}

// raw says whether a line needs a carriage return to begin at the left.
func (a *app) raw() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cooked != nil
}

// terminalSize is the size of the terminal that output goes to; zero for none.
func (a *app) terminalSize() stdio.Size {
	for _, stream := range []any{a.Stdout, a.Stdin} {
		if !isTerminal(stream) {
			continue
		}
		if w, h, err := term.GetSize(int(fileOf(stream).Fd())); err == nil {
			return stdio.Size{Rows: uint16(h), Cols: uint16(w)}
		}
	}
	return stdio.Size{}
}

// toTerminal refuses to pour bytes on a terminal.
func toTerminal(w io.Writer, hint string) error {
	if isTerminal(w) {
		return errors.New("refusing to write an archive to a terminal: " + hint)
	}
	return nil
}
