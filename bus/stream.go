package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/sparsejson"
	"golang.org/x/sys/unix"
)

// Bytes are not events: stdio, logs and archives go over sockets of their own,
// streams.sock beside gantry.sock. The protocol: the client sends one line, a
// StreamRequest as JSON, and may pass one descriptor with it; the server
// answers with one line, an Answer as JSON, and may pass one descriptor with
// that. After an answer without an error the connection carries raw bytes, in
// whatever way the operation says. A request has at most MaxStreamLine bytes, an
// answer MaxStreamAnswer: some answers are lists.

// The names of the sockets in the engine's run directory.
const (
	ControlSocket    = "gantry.sock"
	ReadSocket       = "read.sock"
	StreamSocket     = "streams.sock"      // of those who may control
	ReadStreamSocket = "read-streams.sock" // of those who may read
)

// MaxStreamLine bounds the line that opens a stream, MaxStreamAnswer the one that
// answers it, in bytes, with their newline.
const (
	MaxStreamLine   = 64 << 10
	MaxStreamAnswer = 16 << 20
)

// StreamRequest opens a stream.
type StreamRequest struct {
	Op   string          `json:"op"` // e.g. "attach", "logs", "upload"
	Body json.RawMessage `json:"body,omitempty"`
}

// Stream is an open stream. Whoever has it closes it.
type Stream struct {
	Conn *net.UnixConn   // raw bytes go here; read them from the Stream
	Body json.RawMessage // of the request or answer that opened it
	File *os.File        // passed with that; nil if none was

	early []byte // bytes that came together with the line
}

// Read reads raw bytes.
func (s *Stream) Read(b []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(b, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	return s.Conn.Read(b)
}

// Write writes raw bytes.
func (s *Stream) Write(b []byte) (int, error) { return s.Conn.Write(b) }

// WriteTo copies the raw bytes to w, within the kernel where it can.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	early, err := w.Write(s.early)
	s.early = s.early[early:]
	if err != nil {
		return int64(early), err
	}
	n, err := io.Copy(w, s.Conn)
	return n + int64(early), err
}

// Say sends v as a line of JSON, and passes the file if it is not nil.
func (s *Stream) Say(v any, file *os.File) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return SendLine(s.Conn, append(line, '\n'), file)
}

// Next reads a line of at most MaxStreamAnswer bytes, without its newline. A
// descriptor that came with it is in File; one that nobody has taken from there
// before is closed.
func (s *Stream) Next() ([]byte, error) {
	if end := bytes.IndexByte(s.early, '\n'); end >= 0 {
		line := s.early[:end]
		s.early = s.early[end+1:]
		return line, nil
	}
	line, early, passed, err := ReceiveLine(s.Conn, MaxStreamAnswer)
	if err != nil {
		return nil, err
	}
	line, s.early = append(s.early, line...), early
	if passed != nil && s.File != nil {
		_ = s.File.Close() // nobody wanted it
	}
	if passed != nil {
		s.File = passed
	}
	return line, nil
}

// Close ends the stream and closes the passed descriptor.
func (s *Stream) Close() error {
	err := s.Conn.Close()
	if s.File != nil {
		err = errors.Join(err, s.File.Close())
	}
	return err
}

// Stream opens a stream on a connection of its own. file, if not nil, is passed
// with the request; it stays the caller's.
func (c *Client) Stream(ctx context.Context, r StreamRequest, file *os.File) (*Stream, error) {
	if c.path == "" {
		return nil, errclass.Errorf(errdefs.ErrFailedPrecondition, "open stream %s: this client is within the engine", r.Op)
	}
	return DialStream(ctx, streamSocket(c.path), r, file)
}

// OpenStream opens a stream of the engine at host, as Client.Stream does of the
// one it is connected to. meanwhile, if not nil, is called while the engine answers.
func OpenStream(ctx context.Context, host string, r StreamRequest, meanwhile func()) (*Stream, error) {
	path, err := socketOf(host)
	if err != nil {
		return nil, err
	}
	return dialStream(ctx, streamSocket(path), path, r, nil, meanwhile)
}

// socketOf is the path of the host's socket.
func socketOf(host string) (string, error) {
	if host == "" {
		host = DefaultHost
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok || path == "" {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "%q is no host: want unix:///path/of/the.sock", host)
	}
	return path, nil
}

// streamSocket is the socket for streams beside the one at path.
func streamSocket(path string) string {
	if filepath.Base(path) == ReadSocket {
		return filepath.Join(filepath.Dir(path), ReadStreamSocket)
	}
	return filepath.Join(filepath.Dir(path), StreamSocket)
}

// DialStream opens a stream at the socket of that path.
func DialStream(ctx context.Context, path string, r StreamRequest, file *os.File) (*Stream, error) {
	return dialStream(ctx, path, path, r, file, nil)
}

// dialStream opens a stream at path; an error to connect names the socket that the
// caller knows.
func dialStream(ctx context.Context, path, known string, r StreamRequest, file *os.File, meanwhile func()) (*Stream, error) {
	line, err := sparsejson.Marshal(r)
	if err != nil || len(line) >= MaxStreamLine {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "open stream %s: %d bytes (%v)", r.Op, len(line), err)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, dialError(known, err)
	}
	conn := nc.(*net.UnixConn) // the network is "unix"
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s, err := begin(conn, append(line, '\n'), file, meanwhile)
	if !stop() && err == nil {
		err = ctx.Err()
		_ = s.Close() // the first error is the one that matters
	}
	if err != nil {
		_ = conn.Close() // the first error is the one that matters
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("open stream %s: %w", r.Op, err)
	}
	return s, nil
}

func begin(conn *net.UnixConn, line []byte, file *os.File, meanwhile func()) (*Stream, error) {
	if err := SendLine(conn, line, file); err != nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "send the request: %w", err)
	}
	if meanwhile != nil {
		meanwhile()
	}
	line, early, passed, err := ReceiveLine(conn, MaxStreamAnswer)
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "read the answer: %w", err)
	}
	var a Answer
	if err = json.Unmarshal(line, &a); err != nil {
		err = errclass.Errorf(errdefs.ErrInternal, "read the answer: %w", err)
	} else {
		err = a.Error.Err()
	}
	if err != nil {
		if passed != nil {
			_ = passed.Close() // it comes with no error
		}
		return nil, err
	}
	return &Stream{Conn: conn, Body: a.Body, File: passed, early: early}, nil
}

// SendLine sends a line, whose newline is in it, and passes the file if it is
// not nil.
func SendLine(conn *net.UnixConn, line []byte, file *os.File) error {
	if file == nil {
		_, err := conn.Write(line)
		return err
	}
	raw, err := file.SyscallConn() // Fd would make the file a blocking one
	if err != nil {
		return err
	}
	var n int
	var sent error
	err = raw.Control(func(fd uintptr) {
		n, _, sent = conn.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
	})
	if err = errors.Join(err, sent); err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	return err
}

// OpenedStream is the server's end of a stream, with what ReceiveLine gave.
func OpenedStream(conn *net.UnixConn, body json.RawMessage, file *os.File, early []byte) *Stream {
	return &Stream{Conn: conn, Body: body, File: file, early: early}
}

// ReceiveLine reads a line, without its newline, and the descriptor that came
// with it, if there was one. The second slice is what came behind the line. Of
// several descriptors all are closed, and the line is refused, as one of more
// than limit bytes is.
func ReceiveLine(conn *net.UnixConn, limit int) ([]byte, []byte, *os.File, error) {
	var line []byte
	var passed *os.File
	fail := func(err error) ([]byte, []byte, *os.File, error) {
		if passed != nil {
			_ = passed.Close() // the first error is the one that matters
		}
		return nil, nil, nil, err
	}
	buf, oob := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*4))
	for {
		n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
		files := received(oob[:oobn])
		if len(files) == 1 && passed == nil && flags&unix.MSG_CTRUNC == 0 {
			passed, files = files[0], nil
		}
		if len(files) > 0 || flags&unix.MSG_CTRUNC != 0 {
			for _, f := range files {
				_ = f.Close() // not wanted
			}
			return fail(errclass.Errorf(errdefs.ErrInvalidArgument, "more than one descriptor was passed"))
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			return fail(err)
		}
		if end := bytes.IndexByte(buf[:n], '\n'); end >= 0 {
			line = append(line, buf[:end]...)
			return line, bytes.Clone(buf[end+1 : n]), passed, nil
		}
		if line = append(line, buf[:n]...); len(line) >= limit {
			return fail(errclass.Errorf(errdefs.ErrInvalidArgument, "a line of more than %d bytes", limit))
		}
	}
}

// received takes the descriptors out of the control messages. Go's ReadMsgUnix
// asks for close-on-exec.
func received(oob []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files
}
