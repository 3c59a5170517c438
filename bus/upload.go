package bus

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// OpUpload is the stream that takes an archive. If a regular file is passed
// with the request, the server reads that. Otherwise the client sends chunks, each with
// its length before it (4 bytes, big endian, at most MaxChunk); length 0 is the
// end. Then the server sends a line, an Answer with an Uploaded. The upload is
// there until the client closes the stream, unless the engine has taken it.
const OpUpload = "upload"

// MaxChunk bounds a chunk of an upload, in bytes.
const MaxChunk = 1 << 20

// Uploaded is where an upload is on the engine's machine.
type Uploaded struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// Upload sends what r has to the engine. A regular file is passed as it is. The upload
// is there until the Stream is closed: do that when the command that uses it
// has been answered.
func (c *Client) Upload(ctx context.Context, r io.Reader) (Uploaded, *Stream, error) {
	var up Uploaded
	file := regular(r)
	s, err := c.Stream(ctx, StreamRequest{Op: OpUpload}, file)
	if err != nil {
		return up, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Conn.Close() }) // wakes whatever waits
	defer stop()
	if file == nil {
		err = sendChunks(s, r)
	}
	// A refusal (no space) comes while we still write: what the server has said is the
	// reason. When there is nothing more to send for want of it, nothing is said.
	if !errors.As(err, &unreadable{}) {
		if answer := readAnswer(s, &up); answer != nil || err == nil {
			err = answer
		}
	}
	if err != nil {
		_ = s.Close() // the first error is the one that matters
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return up, nil, fmt.Errorf("upload: %w", err)
	}
	return up, s, nil
}

// regular is r if it is a regular file that is at its beginning.
func regular(r io.Reader) *os.File {
	f, ok := r.(*os.File)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		return nil
	}
	return f
}

// unreadable says that what is to be sent cannot be read.
type unreadable struct{ error }

func (e unreadable) Unwrap() error { return e.error }

func sendChunks(w io.Writer, r io.Reader) error {
	buf := make([]byte, 4+256<<10)
	for {
		n, err := io.ReadFull(r, buf[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n))
			if _, err := w.Write(buf[:4+n]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			_, err = w.Write(make([]byte, 4))
			return err
		}
		if err != nil {
			return unreadable{err}
		}
	}
}

func readAnswer(s *Stream, out any) error {
	line, err := bufio.NewReaderSize(io.LimitReader(s, MaxStreamLine), MaxStreamLine).ReadSlice('\n')
	if err != nil {
		return errclass.Errorf(errdefs.ErrUnavailable, "read the answer: %w", err)
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return errclass.Errorf(errdefs.ErrInternal, "read the answer: %w", err)
	}
	if a.Error != nil {
		return a.Error.Err()
	}
	return json.Unmarshal(a.Body, out)
}
