package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/sparsejson"
	"github.com/gantryd/gantry/internal/stdio"
)

// conversation is a connection to the input and output of a program: of a
// container's run or of an exec in it.
type conversation struct {
	a     *app
	in    query.AttachIn
	hello stdio.Hello
	tty   bool
	keys  []byte // that detach; looked for with a terminal and input only

	// handed gives what came with the command, once: the connection to the shim, or
	// why there is none. Nil: it is asked for.
	handed func(context.Context) (*os.File, error)

	heard    bool // something of the program: more than that its shim is there
	runs     bool // the program runs, or has run; both of converse's goroutine
	detached atomic.Bool
}

// attachAgain is how long one waits for an engine that is gone until it is asked again.
const attachAgain = 100 * time.Millisecond

// connect connects to the shim of the program, as soon as there is one. An
// engine that goes meanwhile is waited for: the next one has the same container.
func (v *conversation) connect(ctx context.Context) (*stdio.Conn, stdio.State, error) {
	end := time.Now().Add(engineWithin)
	for {
		conn, state, err := v.connectOnce(ctx)
		if err == nil || !errdefs.IsUnavailable(err) || time.Now().After(end) {
			return conn, state, err
		}
		select {
		case <-ctx.Done():
			return nil, state, ctx.Err()
		case <-time.After(attachAgain):
		}
	}
}

func (v *conversation) connectOnce(ctx context.Context) (*stdio.Conn, stdio.State, error) {
	file, err := v.open(ctx)
	if err != nil {
		return nil, stdio.State{}, err
	}
	nc, err := net.FileConn(file)
	_ = file.Close() // nc has a descriptor of its own
	if err != nil {
		return nil, stdio.State{}, fmt.Errorf("attach: %w", err)
	}
	conn, state, err := stdio.Attach(ctx, nc, v.hello)
	if err != nil {
		_ = nc.Close() // the first error is the one that matters
		return nil, state, fmt.Errorf("attach: %w", err)
	}
	return conn, state, nil
}

// open gets the connection to the shim, with nothing said yet.
func (v *conversation) open(ctx context.Context) (*os.File, error) {
	if handed := v.handed; handed != nil {
		v.handed = nil
		if file, err := handed(ctx); file != nil || err != nil {
			return file, err
		}
	}
	st, err := v.a.stream(ctx, query.OpAttach, v.in)
	if err != nil {
		return nil, err
	}
	if st.File == nil {
		_ = st.Close() // the first error is the one that matters
		return nil, errclass.Errorf(errdefs.ErrInternal, "attach: the engine has passed no socket")
	}
	return st.File, st.Conn.Close()
}

// attached takes out of a line what it hands over.
func attached(said query.Said, st *bus.Stream) (*os.File, error) {
	if r := said.Refused; r != nil {
		return nil, &errclass.Error{Class: errclass.ByName(r.Class), Sentence: r.Message, Hint: r.Hint}
	}
	file := st.File
	st.File = nil
	if file == nil {
		return nil, errclass.Errorf(errdefs.ErrInternal, "attach: the engine has passed no socket")
	}
	return file, nil
}

// outputError is a failure to write the output on.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

// converse attaches and copies until the trailer. runs is called when the
// program is known to run.
//
// A driver that is killed while it starts the program takes the shim along, and
// the next one makes another. As long as nothing of the program was heard, a
// connection that breaks is made again; whether there is still something to
// attach to, the engine says.
func (v *conversation) converse(ctx context.Context, runs func()) (*stdio.Exit, error) {
	for end := time.Now().Add(engineWithin); ; {
		exit, err := v.converseOnce(ctx, runs)
		if v.heard || v.detached.Load() || !isBroken(err) || errors.As(err, new(outputError)) || time.Now().After(end) {
			return exit, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(attachAgain):
		}
	}
}

// isBroken says that the other side of a connection has gone without a word.
func isBroken(err error) bool {
	return isHangup(err) || errors.Is(err, io.EOF)
}

func (v *conversation) converseOnce(ctx context.Context, runs func()) (*stdio.Exit, error) {
	conn, state, err := v.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // wakes whatever waits
	defer stop()
	if v.tty {
		defer v.followSize(conn)()
	}
	if v.hello.Stdin && v.tty {
		if err := v.a.makeRaw(); err != nil {
			return nil, fmt.Errorf("set the terminal up: %w", err)
		}
	}
	exit, err := v.copyOutput(ctx, conn, func(st stdio.RunState) {
		v.heard = v.heard || st != stdio.StateMade
		if st != stdio.StateRunning || v.runs {
			return
		}
		v.runs = true
		if v.hello.Stdin { // earlier it could be lost with the shim
			go v.copyInput(conn)
		}
		runs()
	}, state.State)
	if err != nil && v.detached.Load() {
		err = detachedError{}
	}
	return exit, err
}

// copyOutput shows what the program says. learn is called with its state, the
// first one and each that follows.
func (v *conversation) copyOutput(ctx context.Context, conn *stdio.Conn, learn func(stdio.RunState), first stdio.RunState) (*stdio.Exit, error) {
	learn(first)
	for {
		f, err := conn.Next()
		if err != nil {
			return nil, fmt.Errorf("read the container's output: %w", err)
		}
		v.heard = v.heard || f.Type != stdio.FrameState
		switch f.Type {
		case stdio.FrameStdout:
			_, err = v.a.Stdout.Write(f.Payload)
		case stdio.FrameStderr:
			_, err = v.a.Stderr.Write(f.Payload)
		case stdio.FrameLost:
			if lost, bad := stdio.ParseLost(f.Payload); bad == nil {
				err = v.fetch(ctx, lost)
			}
		case stdio.FrameState:
			if st, bad := stdio.ParseState(f.Payload); bad == nil {
				learn(st.State)
			}
		case stdio.FrameExit:
			exit, err := stdio.ParseExit(f.Payload)
			if exit.Signal == int(unix.SIGSYS) { // 159 tells that to few
				v.a.complain("the program was ended by SIGSYS: its seccomp profile kills for a system call that it makes", "")
			}
			return &exit, err
		}
		if err != nil {
			return nil, outputError{fmt.Errorf("write the container's output: %w", err)}
		}
	}
}

// copyInput gives our input to the program. The end of ours is that of the
// program's only if it is for one client alone; a terminal's end is not, either.
func (v *conversation) copyInput(conn *stdio.Conn) {
	var to io.Writer = conn
	if v.tty {
		to = &keyWriter{conn, escape{keys: v.keys}}
	}
	_, err := io.Copy(to, v.a.Stdin)
	switch {
	case errors.As(err, &detachedError{}):
		v.detached.Store(true)
		_ = conn.Detach() // the connection is over then, and its reader says so
	case errors.Is(err, os.ErrClosed) || !v.hello.StdinOnce:
	default:
		_ = conn.CloseInput() // the same
	}
}

// keyWriter passes keys on until those that detach come.
type keyWriter struct {
	conn *stdio.Conn
	escape
}

func (w *keyWriter) Write(p []byte) (int, error) {
	on, detached := w.filter(p)
	if len(on) > 0 {
		if _, err := w.conn.Write(on); err != nil {
			return 0, err
		}
	}
	if detached {
		return 0, detachedError{}
	}
	return len(p), nil
}

// followSize tells the program the size of our terminal, now and when it
// changes, until the function that it returns is called.
func (v *conversation) followSize(conn *stdio.Conn) (stop func()) {
	changed := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		for {
			if size := v.a.terminalSize(); size != (stdio.Size{}) {
				_ = conn.Resize(size) // a connection that is over needs none
			}
			select {
			case <-changed:
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(done)
	}
}

// fetch shows from the log what a follower was too slow for: exactly the bytes
// that were left out. What the log has no more is told.
func (v *conversation) fetch(ctx context.Context, lost stdio.Lost) error {
	kind := stdio.FrameStdout
	if lost.Stream == stdio.Stderr {
		kind = stdio.FrameStderr
	}
	to := v.a.Stdout
	if kind == stdio.FrameStderr {
		to = v.a.Stderr
	}
	seen, missing := lost.From, uint64(0) // up to where the log was read; what it lacks
	err := v.a.readOutput(ctx, query.LogsIn{Ref: v.in.Ref, From: lost.From, To: lost.To}, func(f stdio.Frame) error {
		switch f.Type {
		case stdio.FrameStdout, stdio.FrameStderr:
			seen += uint64(len(f.Payload))
		case stdio.FrameLost:
			if gap, bad := stdio.ParseLost(f.Payload); bad == nil {
				seen, missing = gap.To, missing+gap.To-gap.From
			}
		}
		if f.Type != kind {
			return nil
		}
		if _, err := to.Write(f.Payload); err != nil {
			return outputError{err}
		}
		return nil
	})
	if errors.As(err, new(outputError)) {
		return err
	}
	// The log could not be read, or ended before its time: the program goes on.
	if missing += lost.To - min(seen, lost.To); missing > 0 {
		v.a.complain(fmt.Sprintf("output is missing here, at most %d bytes", missing), "")
	}
	return nil
}

// stream opens a stream of the engine's.
func (a *app) stream(ctx context.Context, op string, in any) (*bus.Stream, error) {
	return a.streamWhile(ctx, op, in, nil)
}

// streamWhile is stream, and does something else while the engine answers.
func (a *app) streamWhile(ctx context.Context, op string, in any, meanwhile func()) (*bus.Stream, error) {
	body, err := sparsejson.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", op, err)
	}
	st, err := bus.OpenStream(ctx, a.engine(), bus.StreamRequest{Op: op, Body: body}, meanwhile)
	var said *errclass.Error
	if errors.As(err, &said) {
		return nil, said // the engine's own sentence
	}
	return st, err
}
