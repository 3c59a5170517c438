package stdio

import (
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
	"time"
)

// FrameType says what a frame is.
type FrameType uint8

// The types of frames. See the package's comment.
const (
	FrameHello    FrameType = 1
	FrameStdin    FrameType = 2
	FrameStdinEOF FrameType = 3
	FrameResize   FrameType = 4
	FrameDetach   FrameType = 5
	FrameStdout   FrameType = 16
	FrameStderr   FrameType = 17
	FrameLost     FrameType = 18
	FrameExit     FrameType = 19
	FrameState    FrameType = 20
	FrameEnd      FrameType = 21
)

// Protocol is the version of the frames.
const Protocol = 1

// MaxFrame is the largest payload of a frame in bytes, in both directions.
const MaxFrame = 64 << 10

const frameHeader = 4

// Frame is one frame. Payload is valid until the buffer is used again.
type Frame struct {
	Type    FrameType
	Payload []byte
}

// ReadFrame reads a frame into buf, which is grown at most once, to no more
// than MaxFrame. io.EOF: the stream ended between two frames.
func ReadFrame(r io.Reader, buf []byte) (Frame, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	n := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if n > MaxFrame {
		return Frame{}, fmt.Errorf("frame of %d bytes: at most %d", n, MaxFrame)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Type: FrameType(head[0]), Payload: buf[:n]}, nil
}

// WriteFrame writes a frame with one Write. A payload above MaxFrame is an
// error; split it (WriteStdin does).
func WriteFrame(w io.Writer, f Frame) error {
	if len(f.Payload) > MaxFrame {
		return fmt.Errorf("frame of %d bytes: at most %d", len(f.Payload), MaxFrame)
	}
	n := len(f.Payload)
	b := make([]byte, 0, frameHeader+n)
	b = append(b, byte(f.Type), byte(n>>16), byte(n>>8), byte(n))
	_, err := w.Write(append(b, f.Payload...))
	return err
}

// WriteStdin sends input in as many frames as it takes.
func WriteStdin(w io.Writer, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), MaxFrame)
		if err := WriteFrame(w, Frame{FrameStdin, p[:n]}); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Hello is a client's first frame: what it wants.
type Hello struct {
	Stdout, Stderr bool
	Stdin          bool
	StdinOnce      bool // the client's end is the end of the program's input
	Lossless       bool // hold the program up rather than leave bytes out
	Control        bool // state and exit only; does not open the gate
}

// Frame encodes the hello.
func (h Hello) Frame() Frame {
	var flags uint16
	for i, on := range []bool{h.Stdout, h.Stderr, h.Stdin, h.StdinOnce, h.Lossless, h.Control} {
		if on {
			flags |= 1 << i
		}
	}
	return Frame{FrameHello, []byte{Protocol, 0, byte(flags >> 8), byte(flags)}}
}

// ParseHello decodes a hello's payload.
func ParseHello(p []byte) (Hello, error) {
	if len(p) != 4 || p[0] != Protocol {
		return Hello{}, fmt.Errorf("hello %x: not of protocol %d", p, Protocol)
	}
	f := binary.BigEndian.Uint16(p[2:])
	return Hello{
		Stdout: f&1 != 0, Stderr: f&2 != 0, Stdin: f&4 != 0,
		StdinOnce: f&8 != 0, Lossless: f&16 != 0, Control: f&32 != 0,
	}, nil
}

// Size is a terminal's, in characters.
type Size struct{ Rows, Cols uint16 }

// Frame encodes a resize.
func (s Size) Frame() Frame {
	b := binary.BigEndian.AppendUint16(nil, s.Rows)
	return Frame{FrameResize, binary.BigEndian.AppendUint16(b, s.Cols)}
}

// ParseSize decodes a resize's payload.
func ParseSize(p []byte) (Size, error) {
	if len(p) != 4 {
		return Size{}, fmt.Errorf("resize of %d bytes", len(p))
	}
	return Size{binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])}, nil
}

// Lost tells a follower what it was not sent: the bytes of one stream whose
// offsets in the log lie in From ≤ n < To. Without a log they are gone.
type Lost struct {
	Stream   Stream
	From, To uint64
}

// Frame encodes the loss.
func (l Lost) Frame() Frame {
	b := binary.BigEndian.AppendUint64(nil, uint64(l.Stream)<<32)
	b = binary.BigEndian.AppendUint64(b, l.From)
	return Frame{FrameLost, binary.BigEndian.AppendUint64(b, l.To)}
}

// ParseLost decodes a lost frame's payload.
func ParseLost(p []byte) (Lost, error) {
	if len(p) != 24 {
		return Lost{}, fmt.Errorf("lost frame of %d bytes", len(p))
	}
	be := binary.BigEndian
	l := Lost{Stream(be.Uint32(p)), be.Uint64(p[8:]), be.Uint64(p[16:])}
	if l.To < l.From {
		return Lost{}, fmt.Errorf("lost frame from %d to %d", l.From, l.To)
	}
	return l, nil
}

// RunState says how far a run has come; the numbers are plan.RecordState's.
type RunState uint16

// The states of a run.
const (
	StateMade    RunState = 1 // its program is not yet executed
	StateRunning RunState = 2
	StateExited  RunState = 3
	StateFailed  RunState = 4 // the start failed
)

// State answers a hello and tells each change.
type State struct {
	Version uint16
	State   RunState
	PID     int    // of the program, as the host sees it; 0 before there is one
	ShimPID int    // the same of the shim
	Offset  uint64 // of the next byte in the log: what comes live begins here
}

// Frame encodes the state.
func (s State) Frame() Frame {
	b := binary.BigEndian.AppendUint16(nil, s.Version)
	b = binary.BigEndian.AppendUint16(b, uint16(s.State))
	b = binary.BigEndian.AppendUint32(b, uint32(s.PID))
	b = binary.BigEndian.AppendUint64(b, uint64(uint32(s.ShimPID))<<32)
	return Frame{FrameState, binary.BigEndian.AppendUint64(b, s.Offset)}
}

// ParseState decodes a state's payload.
func ParseState(p []byte) (State, error) {
	if len(p) != 24 {
		return State{}, fmt.Errorf("state of %d bytes", len(p))
	}
	be := binary.BigEndian
	return State{
		Version: be.Uint16(p),
		State:   RunState(be.Uint16(p[2:])),
		PID:     int(int32(be.Uint32(p[4:]))),
		ShimPID: int(int32(be.Uint32(p[8:]))),
		Offset:  be.Uint64(p[16:]),
	}, nil
}

const (
	exitOOM     = 1
	exitFailed  = 2
	exitTimeout = 4
	exitGuessed = 8
)

// Exit is the trailer: the last frame, after the last byte of output.
type Exit struct {
	Code    int // 128+n when ended by signal n
	Signal  int // or 0
	OOM     bool
	Failed  bool // the start failed: Code is 125, 126 or 127, and the rest says where
	Timeout bool // killed at the deadline of its plan
	Guessed bool // the shim was lost; Code is what is likely
	Time    time.Time
	Stage   uint16 // of a failed start: numbers of package plan
	Op      uint16
	Index   uint32
	Errno   syscall.Errno
}

// Frame encodes the exit.
func (e Exit) Frame() Frame {
	var flags uint32
	if e.OOM {
		flags |= exitOOM
	}
	if e.Failed {
		flags |= exitFailed
	}
	if e.Timeout {
		flags |= exitTimeout
	}
	if e.Guessed {
		flags |= exitGuessed
	}
	be := binary.BigEndian
	b := be.AppendUint32(nil, uint32(e.Code))
	b = be.AppendUint32(b, uint32(e.Signal))
	b = be.AppendUint64(b, uint64(flags)<<32)
	b = be.AppendUint64(b, uint64(e.Time.UnixNano()))
	b = be.AppendUint16(b, e.Stage)
	b = be.AppendUint16(b, e.Op)
	b = be.AppendUint32(b, e.Index)
	return Frame{FrameExit, be.AppendUint64(b, uint64(uint32(e.Errno))<<32)}
}

// ParseExit decodes an exit's payload.
func ParseExit(p []byte) (Exit, error) {
	if len(p) != 40 {
		return Exit{}, fmt.Errorf("exit of %d bytes", len(p))
	}
	be := binary.BigEndian
	flags := be.Uint32(p[8:])
	return Exit{
		Code:    int(int32(be.Uint32(p))),
		Signal:  int(int32(be.Uint32(p[4:]))),
		OOM:     flags&exitOOM != 0,
		Failed:  flags&exitFailed != 0,
		Timeout: flags&exitTimeout != 0,
		Guessed: flags&exitGuessed != 0,
		Time:    time.Unix(0, int64(be.Uint64(p[16:]))),
		Stage:   be.Uint16(p[24:]),
		Op:      be.Uint16(p[26:]),
		Index:   be.Uint32(p[28:]),
		Errno:   syscall.Errno(be.Uint32(p[32:])),
	}, nil
}
