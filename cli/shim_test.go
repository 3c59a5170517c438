package cli_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/stdio"
)

func (h *fakeHost) socket(id core.ContainerID, run uint64, x core.ExecID) string {
	return h.w.path("run", fmt.Sprintf("%.12s-%d-%.12s", id, run, x))
}

func (h *fakeHost) logPath(id core.ContainerID) string { return h.w.path("root", string(id)+".log") }

// launch says what is to run: a container's run, or an exec in it.
type launch struct {
	step      string
	container core.ContainerID
	run       uint64
	exec      core.ExecID
	args      []string
	attach    bool
}

// fakeShim plays a program: a few are known, by the first word of the command line.
type fakeShim struct {
	launch
	cancel  context.CancelFunc
	signals chan int
	log     *os.File // nil for an exec
	offset  uint64
	end     uint64 // of its output, where the log does not reach it

	mu      sync.Mutex // guards client and what is written
	client  net.Conn
	runs    bool // its program
	clients chan net.Conn
	input   chan []byte // closed at its end
	sizes   chan stdio.Size
}

func (r *fakeShim) kill(sig int) {
	select {
	case r.signals <- sig:
	default: // it has plenty
	}
}

// start starts a program; with attach it waits for the first client before.
func (h *fakeHost) start(l launch) (core.Result, error) {
	switch l.args[0] {
	case "nosuch":
		return core.Result{}, errclass.Errorf(errdefs.ErrNotFound, `exec: "nosuch": executable file not found in $PATH`)
	case "noexec":
		return core.Result{}, errclass.Errorf(errdefs.ErrPermissionDenied, `exec: "noexec": permission denied`)
	case "broken":
		return core.Result{}, errclass.Errorf(errdefs.ErrInternal, "the driver has a fault")
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &fakeShim{
		launch: l, cancel: cancel, signals: make(chan int, 16), clients: make(chan net.Conn, 1), input: make(chan []byte),
		sizes: make(chan stdio.Size, 16),
	}
	h.mu.Lock()
	h.runs[string(l.container)+string(l.exec)] = r
	if h.ending {
		r.kill(9)
		cancel()
	}
	h.mu.Unlock()
	if l.args[0] == "gated" { // its start takes until it is taken back
		<-ctx.Done()
		return core.Result{}, errclass.Errorf(errdefs.ErrAborted, "taken back")
	}
	listener, err := net.Listen("unix", h.socket(l.container, l.run, l.exec))
	if err != nil {
		return core.Result{}, err
	}
	h.wg.Go(func() { r.accept(listener) })
	if l.exec == "" {
		if err := r.openLog(h.logPath(l.container)); err != nil {
			return core.Result{}, err
		}
	}
	if l.attach && l.args[0] == "halfmade" { // it is lost with the driver that starts it, and made again
		for range 2 {
			select {
			case c := <-r.clients:
				_ = c.Close() // without a word
			case <-ctx.Done():
			}
		}
	}
	if l.attach && l.args[0] != "unattended" {
		select {
		case <-r.clients:
		case <-ctx.Done():
			return core.Result{}, listener.Close()
		}
	}
	r.mu.Lock()
	r.runs = true
	r.mu.Unlock()
	if l.args[0] != "unheard" {
		r.frame(stdio.State{State: stdio.StateRunning, PID: 42}.Frame())
	}
	h.wg.Go(func() { h.live(r, listener) })
	if l.args[0] == "hasty" { // the engine hears of it later than its client
		time.Sleep(300 * time.Millisecond)
	}
	started := &core.Started{PID: 42}
	if l.exec == "" {
		started.Log = h.logPath(l.container)
	}
	return core.Result{Started: started}, nil
}

// live plays a program to its end and tells it.
func (h *fakeHost) live(r *fakeShim, listener net.Listener) {
	code, sig := r.play()
	r.frame(stdio.Exit{Code: code, Signal: sig, Time: time.Now()}.Frame())
	_ = listener.Close() // and its file
	h.report("exec", "native", "container.report-exit",
		core.ReportExit{Container: r.container, Run: r.run, Exec: r.exec, Code: code, Signal: sig, LogEnd: r.end})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		_ = r.client.Close() // it has everything
	}
}

func (r *fakeShim) openLog(path string) error {
	var err error
	if r.log, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	if info, err := r.log.Stat(); err == nil {
		r.offset = uint64(info.Size()) // no true offset, but a growing one
	}
	return nil
}

// accept takes one client after the other and reads its input.
func (r *fakeShim) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, stdio.MaxFrame)
		if f, err := stdio.ReadFrame(c, buf); err != nil || f.Type != stdio.FrameHello {
			continue
		}
		r.mu.Lock()
		r.client = c
		state := stdio.State{State: stdio.StateMade}
		if r.runs {
			state = stdio.State{State: stdio.StateRunning, PID: 42}
		}
		_ = stdio.WriteFrame(c, state.Frame()) // a client that is gone misses it
		r.mu.Unlock()
		select {
		case r.clients <- c:
		default:
		}
		go func() {
			for {
				f, err := stdio.ReadFrame(c, buf)
				switch {
				case err != nil:
					return
				case f.Type == stdio.FrameStdin:
					r.input <- bytes.Clone(f.Payload)
				case f.Type == stdio.FrameStdinEOF:
					close(r.input)
				case f.Type == stdio.FrameDetach:
					r.leave(c)
				case f.Type == stdio.FrameResize:
					if size, err := stdio.ParseSize(f.Payload); err == nil {
						r.sizes <- size
					}
				}
			}
		}()
	}
}

// leave lets a client go that has detached.
func (r *fakeShim) leave(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == c {
		r.client = nil
	}
	_ = c.Close() // it wants no more
}

func (r *fakeShim) frame(f stdio.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		_ = stdio.WriteFrame(r.client, f) // a client that is gone misses it
	}
}

// write is the program's output: to the client and into the log.
func (r *fakeShim) write(stream stdio.Stream, s string) {
	kind := stdio.FrameStdout
	if stream == stdio.Stderr {
		kind = stdio.FrameStderr
	}
	for chunk := range slices.Chunk([]byte(s), stdio.MaxFrame) {
		r.frame(stdio.Frame{Type: kind, Payload: chunk})
		if r.log != nil {
			r.record(stream, chunk)
			r.offset += uint64(len(chunk))
		}
	}
}

// record puts a record of package stdio's into the log.
func (r *fakeShim) record(stream stdio.Stream, payload []byte) {
	b := make([]byte, 28, 32+len(payload))
	le := binary.LittleEndian
	copy(b, "GLR1")
	le.PutUint32(b, 0x31524c47)
	le.PutUint32(b[4:], uint32(len(payload)))
	le.PutUint64(b[8:], uint64(time.Now().UnixNano()))
	le.PutUint64(b[16:], r.offset)
	b[24] = byte(stream)
	b = le.AppendUint32(b, crc32.ChecksumIEEE(b))
	_, _ = r.log.Write(append(b, payload...)) // seen by the scripts
}

// lag writes what only the log has, and of that not all: the client was too slow,
// and so was the log's disk.
func (r *fakeShim) lag(kept string, lost uint64) {
	from := r.offset
	r.record(stdio.Stdout, []byte(kept))
	r.offset += uint64(len(kept))
	r.record(stdio.Gap, binary.LittleEndian.AppendUint64(nil, lost))
	r.offset += lost
	r.frame(stdio.Lost{Stream: stdio.Stdout, From: from, To: r.offset}.Frame())
}

// play is what the program does; it ends with a code, or by a signal.
func (r *fakeShim) play() (code, sig int) {
	rest := strings.Join(r.args[1:], " ")
	switch r.args[0] {
	case "echo", "unattended":
		r.write(stdio.Stdout, rest+"\n")
	case "both":
		r.write(stdio.Stdout, "to stdout\n")
		r.write(stdio.Stderr, "to stderr\n")
	case "exit":
		code, _ = strconv.Atoi(rest)
	case "die":
		sig, _ = strconv.Atoi(rest)
		return 128 + sig, sig
	case "cat", "halfmade":
		for p := range r.input {
			r.write(stdio.Stdout, string(p))
		}
	case "keys": // what is typed comes back in capitals, q ends
		for {
			select {
			case p := <-r.input:
				r.write(stdio.Stdout, strings.ToUpper(string(p)))
				if strings.Contains(string(p), "q") {
					return 5, 0
				}
			case size := <-r.sizes:
				r.write(stdio.Stdout, fmt.Sprintf("<%dx%d>", size.Rows, size.Cols))
			case s := <-r.signals:
				return 128 + s, s
			}
		}
	case "fail-twice": // its restart policy has it run three times
		if r.run < 3 {
			code = 1
		}
	case "stall": // the log's disk takes the first line and no more
		r.write(stdio.Stdout, "kept\n")
		r.end = r.offset + 1000
	case "lag":
		r.lag("in the log only\n", 1000)
		r.write(stdio.Stdout, "after\n")
	case "spew":
		n, _ := strconv.Atoi(rest)
		r.write(stdio.Stdout, strings.Repeat("0123456789abcde\n", n/16))
	case "sleep":
		r.write(stdio.Stdout, "sleeping\n")
		s := <-r.signals
		return 128 + s, s
	case "trap", "hasty", "unheard": // of the last the client is not told that it runs
		if r.args[0] != "unheard" {
			r.write(stdio.Stdout, "ready\n")
		}
		for s := range r.signals {
			r.write(stdio.Stdout, fmt.Sprintf("got signal %d\n", s))
			if s == 15 || s == 9 {
				return 7, 0
			}
		}
	default:
		r.write(stdio.Stdout, filepath.Base(r.args[0])+"\n")
	}
	return code, 0
}
