package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	_ "crypto/sha256" // for go-digest
	_ "crypto/sha512" // for go-digest
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	maxMembers      = 100_000   // of an archive: their names are kept in memory
	maxLinks        = 16        // followed from one member to the next
	zstdWindowBytes = 128 << 20 // what "zstd --long" makes
)

// LoadOptions says what of an archive is wanted.
type LoadOptions struct {
	Platform string                               // "linux/amd64"
	Progress func(done, total int64, what string) // bytes of the archive; may be nil
}

// Load reads an archive, an OCI layout or a docker-archive as a tar, plain or
// compressed with gzip or zstd, and stores the images in it for a platform:
// all of them, or none.
//
// DataLoss: truncated, or a blob that does not match its digest, by name.
// InvalidArgument: not an image archive, or hostile. NotFound: no image for
// the platform. ResourceExhausted: the disk is full.
func (s *Store) Load(ctx context.Context, archive string, o LoadOptions) ([]Image, error) {
	f, err := os.OpenFile(archive, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errclass.Errorf(errdefs.ErrNotFound, "open archive: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "archive %s is %v", archive, fi.Mode().Type())
	}
	dir, err := s.stage()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &reading{ctx: ctx.Err, dir: dir, total: fi.Size(), progress: o.Progress, members: make(map[string]member)}
	all, err := r.images(f, o.Platform)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", filepath.Base(archive), err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.take(all, r.content())
}

// member is a file of an archive. Its name is never used as a path.
type member struct {
	file   string        // where its bytes were written to; empty for a link
	digest digest.Digest // of its bytes
	size   int64
	link   string // of a link: the member it stands for
}

// reading is an archive being read.
type reading struct {
	ctx      func() error
	dir      string // files are written there, by number
	total    int64  // bytes of the archive
	done     int64
	progress func(done, total int64, what string)
	source   error // the first error of reading the archive itself
	zeros    int64 // zero bytes that the tar ended with so far
	members  map[string]member
	blobs    map[digest.Digest]string // content, once everything is read
	count    int
	barren   map[string]bool // media types and digests of what is no image for the platform
}

// images reads the archive and tells what images are in it.
func (r *reading) images(f io.Reader, platform string) ([]found, error) {
	plain, closePlain, err := decompress(bufio.NewReaderSize(readerFunc(func(p []byte) (int, error) { return r.read(f, p) }), 256<<10))
	if err != nil {
		return nil, r.broken("its beginning", err)
	}
	defer closePlain()
	if err := r.readAll(readerFunc(func(p []byte) (int, error) { return r.readTar(plain, p) })); err != nil {
		return nil, err
	}
	r.blobs, r.barren = make(map[digest.Digest]string), make(map[string]bool)
	for _, m := range r.members {
		if m.file != "" {
			r.blobs[m.digest] = m.file
		}
	}
	for _, list := range []struct {
		name string
		read func(member, string) ([]found, error)
	}{{v1.ImageIndexFile, r.layout}, {"manifest.json", r.dockerArchive}} {
		if _, ok := r.members[list.name]; ok {
			m, err := r.resolve(list.name)
			if err != nil {
				return nil, err
			}
			return list.read(m, platform)
		}
	}
	if _, ok := r.members[v1.ImageLayoutFile]; ok || r.zeros < 512 && len(r.members) > 0 {
		return nil, errclass.Errorf(errdefs.ErrDataLoss, "the archive is truncated: it has neither index.json nor manifest.json")
	}
	return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "not an image archive: it has neither index.json nor manifest.json")
}

// readerFunc is a reader made of a function.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// read reads the archive's file.
func (r *reading) read(f io.Reader, p []byte) (int, error) {
	if err := r.ctx(); err != nil {
		return 0, err
	}
	n, err := f.Read(p)
	r.done += int64(n)
	if r.progress != nil {
		r.progress(r.done, r.total, "read archive")
	}
	if err != nil && !errors.Is(err, io.EOF) && r.source == nil {
		r.source = err
	}
	return n, err
}

// readTar reads the tar and counts the zeros at its end so far: a tar ends
// with two blocks of them, and one that was cut at a block's border does not.
func (r *reading) readTar(plain io.Reader, p []byte) (int, error) {
	n, err := plain.Read(p)
	rest := len(bytes.TrimRight(p[:n], "\x00"))
	if rest > 0 {
		r.zeros = 0
	}
	r.zeros += int64(n - rest)
	return n, err
}

// decompress tells the compression by the first bytes.
func decompress(b *bufio.Reader) (io.Reader, func(), error) {
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case bytes.Equal(magic, []byte("\x28\xb5\x2f\xfd")):
		z, err := newZstd(b)
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return b, func() {}, nil
}

// newZstd decompresses with bounded memory and without goroutines.
func newZstd(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderMaxWindow(zstdWindowBytes), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
}

// broken says that the archive cannot be read on.
func (r *reading) broken(where string, err error) error {
	if ctxErr := r.ctx(); ctxErr != nil {
		return ctxErr
	}
	switch {
	case r.source != nil:
		return fmt.Errorf("read archive: %w", r.source)
	case errors.Is(err, tar.ErrHeader) && len(r.members) == 0:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "not a tar: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errclass.Errorf(errdefs.ErrDataLoss, "the archive is truncated at %s: %w", where, err)
	}
	return errclass.Errorf(errdefs.ErrDataLoss, "the archive is damaged at %s: %w", where, err)
}

// readAll writes every member to a file of its own.
func (r *reading) readAll(plain io.Reader) error {
	t := tar.NewReader(plain)
	last := "its beginning"
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r.broken("the member after "+last, err)
		}
		last = strconv.Quote(clip(h.Name))
		if err := r.member(h, t); err != nil {
			return err
		}
	}
	// What follows the end of the tar is read for a compressed one's checksum.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return r.broken("its end", err)
	}
	return nil
}

// member reads one member.
func (r *reading) member(h *tar.Header, t io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if len(r.members) >= maxMembers {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "more than %d members", maxMembers)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			// A few bytes could claim to be exbibytes of zeros.
			return errclass.Errorf(errdefs.ErrInvalidArgument, "member %q is a sparse file", clip(h.Name))
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		m, err := r.write(name, h.Size, t)
		if err != nil {
			return err
		}
		r.members[name] = m
	case tar.TypeSymlink:
		r.members[name] = member{link: path.Join(path.Dir(name), h.Linkname)}
	case tar.TypeLink:
		r.members[name] = member{link: path.Clean(h.Linkname)}
	case tar.TypeDir, tar.TypeXGlobalHeader:
	default:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "member %q has type %q, which no image archive has", clip(h.Name), h.Typeflag)
	}
	return nil
}

// cleanName refuses names that would lead out of a directory. They could do
// no harm here; but nobody honest writes them.
func cleanName(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains("/"+name+"/", "/../") {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "member %q leads out of the archive", clip(name))
	}
	return clean, nil
}

// write writes a member to a file and computes its digest. A member that a
// layout names by its digest must have it.
func (r *reading) write(name string, size int64, t io.Reader) (member, error) {
	want := digestOfName(name)
	d := digest.Canonical.Digester()
	if want != "" {
		d = want.Algorithm().Digester()
	}
	r.count++
	file := filepath.Join(r.dir, strconv.Itoa(r.count))
	n, err := r.copy(file, d.Hash(), t)
	if err != nil {
		var tarErr *tarError
		if errors.As(err, &tarErr) {
			if want != "" {
				name = "blob " + want.String()
			}
			return member{}, r.broken(name, tarErr.err)
		}
		return member{}, fmt.Errorf("write member %q: %w", clip(name), class(err))
	}
	if got := d.Digest(); want != "" && got != want {
		return member{}, errclass.Errorf(errdefs.ErrDataLoss, "blob %s has digest %s", want, got)
	}
	if n != size {
		return member{}, r.broken(strconv.Quote(clip(name)), io.ErrUnexpectedEOF)
	}
	return member{file: file, digest: d.Digest(), size: n}, nil
}

// tarError is an error of the archive, not of the file written.
type tarError struct{ err error }

func (e *tarError) Error() string { return e.err.Error() }

func (r *reading) copy(file string, h hash.Hash, t io.Reader) (int64, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	source := readerFunc(func(p []byte) (int, error) {
		n, err := t.Read(p)
		h.Write(p[:n])
		if err != nil && !errors.Is(err, io.EOF) {
			err = &tarError{err}
		}
		return n, err
	})
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, source, make([]byte, 128<<10))
	if err != nil {
		return n, err
	}
	return n, errors.Join(r.sync(f), f.Close())
}

// sync writes a file to the disk; meanwhile it says that it is alive.
func (r *reading) sync(f *os.File) error {
	done := make(chan error, 1)
	go func() { done <- f.Sync() }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if r.progress != nil {
				r.progress(r.done, r.total, "sync")
			}
		}
	}
}

// digestOfName is the digest that a layout names a member by; empty for others.
func digestOfName(name string) digest.Digest {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != v1.ImageBlobsDir {
		return ""
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[2])
	if d.Validate() != nil {
		return ""
	}
	return d
}

// content reads what was found in the archive.
func (r *reading) content() content {
	return func(d digest.Digest) string {
		if file, ok := r.blobs[d]; ok {
			return file
		}
		return filepath.Join(r.dir, "absent")
	}
}

// resolve finds a member by name, through links between members.
func (r *reading) resolve(name string) (member, error) {
	clean, err := cleanName(name)
	if err != nil {
		return member{}, err
	}
	for range maxLinks {
		m, ok := r.members[clean]
		if !ok {
			return member{}, errclass.Errorf(errdefs.ErrDataLoss, "the archive lacks %q", clip(name))
		}
		if m.file != "" {
			return m, nil
		}
		clean = m.link
	}
	return member{}, errclass.Errorf(errdefs.ErrInvalidArgument, "member %q is a link to itself", clip(name))
}
