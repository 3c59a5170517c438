package layertar

import (
	"bufio"
	"context"
	_ "crypto/sha256" // for go-digest
	_ "crypto/sha512" // for go-digest
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

const (
	chunkBytes = 256 << 10 // of one read ahead
	chunkCount = 4         // read ahead at most

	// zstdWindowBytes bounds the decoder's memory. It is what "zstd --long"
	// makes; nothing in common use asks for more.
	zstdWindowBytes = 128 << 20
)

// stream reads a blob: it counts and hashes the stored bytes, decompresses
// them, hashes the tar, and hands it out. Reading, hashing and decompressing
// happen in a goroutine of their own, while the reader waits for the disk.
type stream struct {
	ctx    func() error // the context's error
	cancel context.CancelFunc
	full   chan []byte   // decompressed chunks, in order; closed at the end
	free   chan []byte   // chunks to fill again
	done   chan struct{} // closed when the goroutine has ended
	cur    []byte        // rest of the chunk being read
	whole  []byte        // that chunk, to be given back

	// Written by the goroutine before done is closed.
	err       error // why decompressing ended, nil at the end of the tar
	sourceErr error // the blob could not be read at all

	source   *countingReader
	blobHash digest.Digester
	tarHash  digest.Digester
}

// countingReader hashes and counts what is read of the blob.
type countingReader struct {
	r   io.Reader
	h   hash.Hash
	n   atomic.Int64 // read by whoever tells progress
	err error        // the first that is not io.EOF
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.h.Write(p[:n])
	c.n.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) && c.err == nil {
		c.err = err
	}
	return n, err
}

// digester returns one for the algorithm of want, which may be empty.
func digester(want string) (digest.Digester, error) {
	if want == "" {
		return digest.Canonical.Digester(), nil
	}
	d := digest.Digest(want)
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", clip(want), err, errdefs.ErrInvalidArgument)
	}
	return d.Algorithm().Digester(), nil
}

// openStream begins to read blob. The caller must call close.
func openStream(ctx context.Context, blob io.Reader, o Options) (*stream, error) {
	blobHash, err := digester(o.Digest)
	if err != nil {
		return nil, err
	}
	tarHash, err := digester(o.DiffID)
	if err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancel(ctx)
	s := &stream{
		ctx:      ctx.Err,
		cancel:   cancel,
		full:     make(chan []byte, chunkCount),
		free:     make(chan []byte, chunkCount),
		done:     make(chan struct{}),
		source:   &countingReader{r: blob, h: blobHash.Hash()},
		blobHash: blobHash,
		tarHash:  tarHash,
	}
	for range chunkCount {
		s.free <- make([]byte, chunkBytes)
	}
	go s.pump(inner)
	return s, nil
}

// pump fills chunks until the tar ends, then reads what is left of the blob,
// so that its digest is of all of it.
func (s *stream) pump(ctx context.Context) {
	defer close(s.done)
	defer close(s.full)
	s.err = s.decompress(ctx)
	if ctx.Err() == nil {
		if _, err := io.Copy(io.Discard, until(ctx, s.source)); err != nil && s.err == nil {
			s.err = err
		}
	}
	s.sourceErr = s.source.err
}

func (s *stream) decompress(ctx context.Context) error {
	r, closeReader, err := decompressor(bufio.NewReaderSize(s.source, 128<<10))
	if err != nil {
		return err
	}
	defer closeReader()
	for {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := fill(r, buf[:chunkBytes])
		s.tarHash.Hash().Write(buf[:n])
		if n > 0 {
			select {
			case s.full <- buf[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill reads until p is full. Unlike io.ReadFull it passes every error on as
// it is: a decompressor's io.ErrUnexpectedEOF is not a tar that just ended.
func fill(r io.Reader, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// decompressor tells the compression by the first bytes: media types are
// wrong often enough in the wild, magic numbers are not.
func decompressor(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(6)
	if len(magic) == 0 && err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	has := func(prefix string) bool { return len(magic) >= len(prefix) && string(magic[:len(prefix)]) == prefix }
	switch {
	case has("\x1f\x8b"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case has("\x28\xb5\x2f\xfd"), len(magic) >= 4 && magic[0]&0xf0 == 0x50 && string(magic[1:4]) == "\x2a\x4d\x18":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(zstdWindowBytes),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case has("BZh"), has("\xfd7zXZ\x00"):
		return nil, nil, fmt.Errorf("compressed with bzip2 or xz, which layers may not be: %w", errdefs.ErrInvalidArgument)
	}
	return r, func() {}, nil
}

// Read reads the tar.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.cur) == 0 {
		if s.whole != nil {
			s.free <- s.whole[:chunkBytes]
			s.whole = nil
		}
		buf, ok := <-s.full
		if !ok {
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		s.cur, s.whole = buf, buf
	}
	n := copy(p, s.cur)
	s.cur = s.cur[n:]
	return n, nil
}

// close ends the goroutine; afterwards the blob may be closed.
func (s *stream) close() {
	s.cancel()
	<-s.done
}

// verify reads the rest of the blob and compares digests. parseErr is what
// reading the tar ended with, nil if it was read to its end: a damaged blob
// is the better explanation of a tar that cannot be read.
func (s *stream) verify(o Options, parseErr error) error {
	_, drainErr := io.Copy(io.Discard, s)
	<-s.done
	if err := s.ctx(); err != nil {
		return err
	}
	if s.sourceErr != nil {
		return fmt.Errorf("read layer: %w", s.sourceErr)
	}
	blob, diff := s.blobHash.Digest().String(), s.tarHash.Digest().String()
	if o.Digest != "" && blob != o.Digest {
		return fmt.Errorf("layer has digest %s, not %s: %w", blob, o.Digest, errdefs.ErrDataLoss)
	}
	if s.err != nil || drainErr != nil {
		err := errors.Join(s.err)
		if err == nil {
			err = drainErr
		}
		if errdefs.IsInvalidArgument(err) {
			return fmt.Errorf("read layer: %w", err)
		}
		return fmt.Errorf("decompress layer after %d bytes: %w: %w", s.source.n.Load(), err, errdefs.ErrDataLoss)
	}
	if o.DiffID != "" && diff != o.DiffID {
		return fmt.Errorf("tar of the layer has digest %s, not %s: %w", diff, o.DiffID, errdefs.ErrDataLoss)
	}
	return parseErr
}

// readerFunc is a reader made of a function.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// until returns a reader of r that ends when ctx does.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

// clip shortens a stranger's string for a message.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
