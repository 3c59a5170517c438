package plan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sendMagic = 0x4d485347 // "GSHM"
	sendFiles = 1
	sendPlan  = 2
	sendGo    = 3 // monitor: Continue
	sendAbort = 4 // monitor: Abort
	sendEarly = 5
	// sendStandby: see Warm.Standby.
	sendStandby = 6
	sendHeader  = 16
	// maxPiece bounds the plan's bytes in one message, below any sane
	// net.core.wmem_default.
	maxPiece = 32 << 10
	// maxPassed is the kernel's SCM_MAX_FD.
	maxPassed = 253
)

// Conn is the driver's end of a shim's control socket, or, without a monitor,
// of the init's. It is for one goroutine at a time.
type Conn struct {
	c      *net.UnixConn
	leaver *leaver  // of the leaving mode
	shim   *os.File // pidfd of a monitor that stood by; nil if it did not, or was taken
}

// Warm is a shim that was executed and waits for its plan. It is nobody's yet:
// it leaves when its socket closes, thus also with the driver.
type Warm struct {
	conn   *Conn
	helper *os.Process // nil once it was reaped: the monitor stands by
	child  bool        // an init of the leaving mode was made early
}

// ErrLost says that a shim died before it had taken its plan. Nothing was done:
// another one can be asked.
var ErrLost = errors.New("the shim was lost before it took the plan")

// Spawn executes the shim (a path, or /proc/self/fd/N). It is to be started or
// closed.
func Spawn(program string) (*Warm, error) { return SpawnInto(program, nil) }

// SpawnInto is Spawn into a version 2 cgroup, whose directory is given: a shim
// that joins namespaces may no longer be able to reach it afterwards.
func SpawnInto(program string, group *os.File) (*Warm, error) {
	var sys *syscall.SysProcAttr
	if group != nil {
		sys = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	conn := &Conn{c: c.(*net.UnixConn)}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	// Between fork and exec descriptors are moved about, to numbers that may be
	// the program's: it is named by this process's own table.
	if fd, ok := strings.CutPrefix(program, "/proc/self/fd/"); ok {
		program = fmt.Sprintf("/proc/%d/fd/%s", os.Getpid(), fd)
	}
	helper, err := os.StartProcess(program, []string{"gantry-shim"}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, theirs}, Sys: sys,
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("execute shim: %w", err)
	}
	return &Warm{conn: conn, helper: helper}, nil
}

// Close lets the shim leave.
func (w *Warm) Close() error {
	if w.child {
		w.conn.c.CloseWrite()
		init, _ := w.lastWord()
		w.reap(init)
	}
	monitor := w.conn.TakeShim() // else it is let go of with the connection
	err := w.conn.Close()
	if w.helper == nil {
		awaitMonitor(monitor)
		return err
	}
	_, waitErr := w.helper.Wait()
	return errors.Join(err, waitErr)
}

// Start sends an encoded plan with its files, whose order is that of the FDs.
// The files stay the caller's and can be closed when Start has returned. The
// shim's helper process is reaped before Start returns; what follows are
// reports.
func (w *Warm) Start(ctx context.Context, plan []byte, files []*os.File) (*Conn, error) {
	if d, ok := ctx.Deadline(); ok {
		w.conn.c.SetWriteDeadline(d)
	}
	sent := w.conn.send(plan, files)
	w.conn.c.SetWriteDeadline(time.Time{}) // a word to give up is sent after it
	if sent != nil {
		sent = w.refused(sent)
	}
	if w.helper != nil {
		if _, err := w.helper.Wait(); err != nil && sent == nil {
			sent = fmt.Errorf("helper: %w", err)
		}
	}
	if sent != nil {
		w.conn.letGoShim()
		w.conn.Close()
		return nil, fmt.Errorf("hand over plan: %w", sent)
	}
	return w.conn, nil
}

// refused looks why a plan could not be sent: a shim that refused it has left
// and said why.
func (w *Warm) refused(sent error) error {
	w.conn.c.CloseWrite() // one that still waits for the rest leaves, too
	init, said := w.lastWord()
	if said != nil {
		sent = said
	} else if errors.Is(sent, unix.EPIPE) || errors.Is(sent, unix.ECONNRESET) {
		sent = fmt.Errorf("%w: %w", ErrLost, sent)
	}
	if w.helper != nil {
		w.helper.Kill()
	}
	w.reap(init)
	return sent
}

// lastWordPatience bounds a shim's leaving, which takes no time on a machine that has
// some.
const lastWordPatience = 5 * time.Second

// lastWord reads what a shim has said that is leaving: an error, and the pid of
// an init that it had made early.
func (w *Warm) lastWord() (init int, said error) {
	w.conn.c.SetReadDeadline(time.Now().Add(lastWordPatience))
	for {
		r, err := w.conn.read()
		switch {
		case err != nil || said != nil:
			return init, said
		case r.Kind == ReportInit:
			init = r.PID
		default:
			said = r.Err()
		}
	}
}

// reap waits for an early init of the leaving mode, which ends with its maker.
func (w *Warm) reap(init int) {
	if w.child && init > 0 {
		_, _ = unix.Wait4(init, nil, 0, nil)
	}
}

// Start is Spawn and Warm.Start in one.
func Start(ctx context.Context, program string, plan []byte, files []*os.File) (*Conn, error) {
	w, err := Spawn(program)
	if err != nil {
		return nil, err
	}
	return w.Start(ctx, plan, files)
}

func (c *Conn) send(plan []byte, files []*os.File) error {
	for first := 0; first < len(files); first += maxPassed {
		part := files[first:min(first+maxPassed, len(files))]
		fds := make([]int, len(part))
		for i, f := range part {
			fds[i] = int(f.Fd())
		}
		if err := c.message(sendFiles, uint32(first), uint32(len(part)), nil, fds); err != nil {
			return err
		}
	}
	for at := 0; at < len(plan); at += maxPiece {
		piece := plan[at:min(at+maxPiece, len(plan))]
		if err := c.message(sendPlan, uint32(at), uint32(len(plan)), piece, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) message(kind uint16, a, b uint32, data []byte, fds []int) error {
	m := make([]byte, sendHeader, sendHeader+len(data))
	binary.LittleEndian.PutUint32(m, sendMagic)
	binary.LittleEndian.PutUint16(m[4:], kind)
	binary.LittleEndian.PutUint32(m[8:], a)
	binary.LittleEndian.PutUint32(m[12:], b)
	m = append(m, data...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.c.WriteMsgUnix(m, oob, nil)
	return err
}

// Next waits for the next report. io.EOF: the shim has left or was killed. It
// ends early with the context's error; the connection stays usable.
func (c *Conn) Next(ctx context.Context) (Report, error) {
	for {
		if ctx.Done() != nil {
			c.c.SetReadDeadline(time.Time{})
		}
		stop := context.AfterFunc(ctx, func() { c.c.SetReadDeadline(time.Unix(1, 0)) })
		r, err := c.ordered()
		stop()
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return Report{}, ctx.Err()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return Report{}, err
		}
		c.c.SetReadDeadline(time.Time{}) // an earlier call's context has ended after it
	}
}

func (c *Conn) read() (Report, error) {
	var b [reportBytes + 1]byte
	var oob [oobBytes]byte
	var passed int
	n, err := untilItsEnd(func() (n int, err error) {
		n, passed, _, _, err = c.c.ReadMsgUnix(b[:], oob[:])
		return n, err
	})
	if err != nil {
		return Report{}, err
	}
	file, err := passedFile(oob[:passed])
	if err != nil {
		return Report{}, err
	}
	r, err := decodeReport(b[:n])
	if r.File = file; err != nil && file != nil {
		file.Close()
	}
	return r, err
}

// untilItsEnd reads a message from a socket of packets, or io.EOF when all was read.
// The kernel may tell the end too early: a peer that has not read all of ours is
// told first and once, as ECONNRESET; and where a read finds no message, then the
// peer sends its last one and closes, and then that read looks for the peer, it
// gives the end (unix_dgram_recvmsg, net/unix/af_unix.c). The message is there by
// the next read.
func untilItsEnd(read func() (int, error)) (int, error) {
	var n int
	var err error
	for range 3 {
		n, err = read()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			return 0, err
		}
		if err == nil && n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// oobBytes is room for one descriptor as the kernel lays it out.
const oobBytes = 24

// passedFile is the descriptor that came with a message, or nil.
func passedFile(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("descriptor from the shim: %w", errors.Join(err, errShort))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("descriptor from the shim: %w", errors.Join(err, errShort))
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "pty"), nil
}

// Continue lets an init go on that waits at a Sync point.
func (c *Conn) Continue(point uint32) error { return c.message(sendGo, point, 0, nil, nil) }

// Abort ends a start that is not yet Running: the init is killed, and the
// shim reports Error with ECANCELED. A running program is not touched.
func (c *Conn) Abort() error { return c.message(sendAbort, 0, 0, nil, nil) }

// FD can be read from when there is a report, or the shim has left; -1 once it was
// closed.
func (c *Conn) FD() int { return Descriptor(c.c) }

// Descriptor is a connection's; -1 for none. It stays the connection's.
func Descriptor(c net.Conn) int {
	fd := -1
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			_ = raw.Control(func(n uintptr) { fd = int(n) }) // closed: there is none
		}
	}
	return fd
}

// Close lets go of the shim, which lives on. A start that waits at a Sync point
// is given up.
func (c *Conn) Close() error {
	c.letGo()
	c.letGoShim()
	return c.c.Close()
}
