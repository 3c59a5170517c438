package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// Attach attaches to a run, or to an exec in it, for its output, all of it.
func (c *Client) Attach(ctx context.Context, in query.AttachIn) (*stdio.Conn, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	s, err := c.Stream(ctx, bus.StreamRequest{Op: query.OpAttach, Body: body}, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if s.File == nil {
		return nil, errors.New("attach: no descriptor was passed")
	}
	nc, err := net.FileConn(s.File)
	if err != nil {
		return nil, err
	}
	conn, _, err := stdio.Attach(ctx, nc, stdio.Hello{Stdout: true, Stderr: true, Lossless: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach: %w", err), nc.Close())
	}
	return conn, nil
}

// Output reads what an attached program writes, to its end.
func Output(c *stdio.Conn) (string, stdio.Exit, error) {
	var out []byte
	for {
		f, err := c.Next()
		if err != nil {
			return string(out), stdio.Exit{}, err
		}
		switch f.Type {
		case stdio.FrameStdout, stdio.FrameStderr:
			out = append(out, f.Payload...)
		case stdio.FrameExit:
			exit, err := stdio.ParseExit(f.Payload)
			return string(out), exit, err
		}
	}
}
