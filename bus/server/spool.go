package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Spool is the handler of bus.OpUpload: it writes what a client sends into a
// file of the directory, of at most limit bytes, and tells where. The file is
// removed when the client goes; whoever wants to keep it renames it before.
func Spool(dir string, limit int64) StreamHandler {
	return func(ctx context.Context, call *StreamCall) error {
		if call.Role != bus.RoleControl {
			return errclass.Errorf(errdefs.ErrPermissionDenied, "uploads are for those who may control the engine")
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		f, err := os.CreateTemp(dir, "upload-")
		if err != nil {
			return spoolError(err)
		}
		defer os.Remove(f.Name())
		defer f.Close()
		stream, err := call.Accept(nil, nil)
		if err != nil {
			return err
		}
		size, err := spool(f, stream, call.File, limit)
		if err != nil {
			err = spoolError(err)
			return errors.Join(err, sendAnswer(stream.Conn, nil, nil, err))
		}
		if err := sendAnswer(stream.Conn, bus.Uploaded{Path: f.Name(), Size: size}, nil, nil); err != nil {
			return err
		}
		// The client holds the upload by its connection. The door closes that at the end.
		_, err = io.Copy(io.Discard, stream)
		return err
	}
}

// spoolError gives a full disk its class.
func spoolError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errclass.WithHint(errclass.Errorf(errdefs.ErrResourceExhausted, "no space for the upload"),
			"free some space in the engine's directory")
	}
	return err
}

// spool fills f from the passed file, or from the stream's chunks.
func spool(f *os.File, stream io.Reader, passed *os.File, limit int64) (int64, error) {
	if passed != nil {
		return spoolFile(f, passed, limit)
	}
	r := bufio.NewReaderSize(stream, 256<<10)
	var total int64
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return total, fmt.Errorf("the upload breaks off after %d bytes: %w", total, err)
		}
		n := int64(binary.BigEndian.Uint32(head[:]))
		if n == 0 {
			return total, nil
		}
		if n > bus.MaxChunk {
			return total, errclass.Errorf(errdefs.ErrInvalidArgument, "a chunk of %d bytes: the limit is %d", n, bus.MaxChunk)
		}
		if total += n; total > limit {
			return total, tooLarge(limit)
		}
		if _, err := io.CopyN(f, r, n); err != nil {
			return total, err
		}
	}
}

// spoolFile copies a regular file; anything else could keep us waiting for ever.
func spoolFile(f, passed *os.File, limit int64) (int64, error) {
	info, err := passed.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "what was passed is no regular file (%s)", info.Mode())
	}
	if info.Size() > limit {
		return 0, tooLarge(limit)
	}
	// It may grow while it is read.
	n, err := io.Copy(f, io.NewSectionReader(passed, 0, limit+1))
	if err == nil && n > limit {
		err = tooLarge(limit)
	}
	return n, err
}

func tooLarge(limit int64) error {
	return errclass.Errorf(errdefs.ErrResourceExhausted, "the upload has more than %d bytes", limit)
}
