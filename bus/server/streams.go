package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/peercred"
)

// streamBegin bounds the time for the line that opens a stream, and for the
// one that answers it.
const streamBegin = 10 * time.Second

// StreamCall is a stream that a client wants to open.
type StreamCall struct {
	Call
	Request bus.StreamRequest
	File    *os.File // passed by the client; nil if none was

	conn     *net.UnixConn
	early    []byte
	accepted bool
}

// StreamHandler serves one stream: it refuses with an error, or accepts and
// carries bytes until it returns. It ends when ctx does. The connection and the passed
// file are closed when it returns.
type StreamHandler func(context.Context, *StreamCall) error

// Accept answers that the stream is open. body may be nil. file, if not nil, is
// passed to the client, and stays the caller's.
func (c *StreamCall) Accept(body any, file *os.File) (*bus.Stream, error) {
	if c.accepted {
		return nil, errclass.Errorf(errdefs.ErrInternal, "stream %s was accepted already", c.Request.Op)
	}
	c.accepted = true
	if err := sendAnswer(c.conn, body, file, nil); err != nil {
		return nil, err
	}
	return bus.OpenedStream(c.conn, c.Request.Body, nil, c.early), nil
}

// sendAnswer writes one line.
func sendAnswer(conn *net.UnixConn, body any, file *os.File, failed error) error {
	a := bus.Answer{Error: bus.NewError(failed)}
	if body != nil && failed == nil {
		var err error
		if a.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	line, err := json.Marshal(a)
	if err == nil && len(line) >= bus.MaxStreamAnswer {
		err = errclass.Errorf(errdefs.ErrInternal, "an answer of %d bytes", len(line))
	}
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(streamBegin)); err != nil {
		return err
	}
	if err := bus.SendLine(conn, append(line, '\n'), file); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// ServeStreams opens the two sockets for streams. Each operation has its
// handler; an unknown one is NotImplemented.
func (s *Server) ServeStreams(handlers map[string]StreamHandler) error {
	for _, k := range []struct {
		name string
		role bus.Role
		gid  *int
	}{
		{bus.StreamSocket, bus.RoleControl, s.cfg.ControlGID},
		{bus.ReadStreamSocket, bus.RoleRead, s.cfg.ReadGID},
	} {
		path := filepath.Join(s.cfg.Run, k.name)
		l, err := listenFor(path, k.gid)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		d := &door{listener: l, path: path, log: s.log, conns: map[net.Conn]bool{}}
		d.lead = func(ctx context.Context, c net.Conn) error {
			return s.serveStream(ctx, c.(*net.UnixConn), k.role, handlers)
		}
		s.open(d)
	}
	return nil
}

// serveStream serves one connection.
func (s *Server) serveStream(ctx context.Context, conn *net.UnixConn, role bus.Role, handlers map[string]StreamHandler) error {
	call, err := readCall(conn, role)
	if err != nil {
		return err
	}
	if call.File != nil {
		defer func() {
			if call.File != nil { // a handler that keeps it takes it out
				_ = call.File.Close() // it was only read
			}
		}()
	}
	handler := handlers[call.Request.Op]
	if handler == nil {
		handler = func(context.Context, *StreamCall) error {
			return errclass.Errorf(errdefs.ErrNotImplemented, "there is no stream %q", call.Request.Op)
		}
	}
	err = handler(ctx, call)
	if err != nil && !call.accepted {
		return sendAnswer(conn, nil, nil, err)
	}
	return err
}

// readCall reads who asks, and what for.
func readCall(conn *net.UnixConn, role bus.Role) (*StreamCall, error) {
	cred, err := peercred.Of(conn)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(streamBegin)); err != nil {
		return nil, err
	}
	line, early, file, err := bus.ReceiveLine(conn, bus.MaxStreamLine)
	if err != nil {
		return nil, err
	}
	call := &StreamCall{conn: conn, early: early, File: file}
	call.Role, call.Actor = role, bus.Actor{UID: cred.UID, GID: cred.GID, PID: cred.PID, Start: cred.Start}
	if err = json.Unmarshal(line, &call.Request); err != nil {
		err = errclass.Errorf(errdefs.ErrInvalidArgument, "read the request: %w", err)
		_ = sendAnswer(conn, nil, nil, err) // the error is returned anyway
	} else {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil && file != nil {
		_ = file.Close() // it was only read
	}
	return call, err
}
