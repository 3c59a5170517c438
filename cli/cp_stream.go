package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// copyStream is a copy that is under way: the tar goes over a connection to the
// driver, how it ends is told on the stream.
type copyStream struct {
	st   *bus.Stream
	tar  net.Conn
	said query.Copying
}

func (a *app) openCopy(ctx context.Context, op string, in query.CopyIn) (*copyStream, error) {
	st, err := a.stream(ctx, op, in)
	if err != nil {
		return nil, err
	}
	d := &copyStream{st: st}
	err = json.Unmarshal(st.Body, &d.said)
	switch {
	case err != nil:
		err = fmt.Errorf("read the answer to %s: %w", op, err)
	case st.File == nil:
		err = errclass.Errorf(errdefs.ErrInternal, "%s: the engine has passed no connection", op)
	default:
		d.tar, err = net.FileConn(st.File)
		// tar has a descriptor of its own; with another one left open its end would
		// not be the driver's.
		err = errors.Join(err, st.File.Close())
		st.File = nil
	}
	if err != nil {
		_ = st.Close() // the first error is the one that matters
		return nil, err
	}
	return d, nil
}

func (d *copyStream) Read(p []byte) (int, error) { return d.tar.Read(p) }

func (d *copyStream) Write(p []byte) (int, error) { return d.tar.Write(p) }

// closeWrite tells the driver that the tar is whole.
func (d *copyStream) closeWrite() error {
	if c, ok := d.tar.(*net.UnixConn); ok {
		return c.CloseWrite()
	}
	return d.tar.Close()
}

// end waits for how the copy ended. What the driver says comes before what
// went wrong here, which mostly follows from it.
func (d *copyStream) end(ours error) error {
	if ours != nil {
		_ = d.tar.Close() // the driver need not go on
	} else if _, err := io.Copy(io.Discard, d.tar); err != nil {
		ours = err // what stands behind the end of the archive is padding
	}
	var over query.CopyEnd
	err := json.NewDecoder(bufio.NewReader(d.st)).Decode(&over)
	switch {
	case over.Error != nil && (ours == nil || isHangup(ours)):
		return errclass.Errorf(errclass.ByName(over.Error.Class), "%s", over.Error.Message)
	case ours != nil:
		return ours
	case err != nil:
		return errclass.Errorf(errdefs.ErrUnavailable, "copy: the connection to the engine was lost: %w", err)
	}
	return nil
}

func (d *copyStream) close() {
	_ = d.tar.Close() // the end was told already, or nobody listens
	_ = d.st.Close()
}
