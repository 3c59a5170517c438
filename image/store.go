// Package image keeps the content of images in a directory that is an OCI
// image layout (OCI image specification, "image-layout.md"), so that other
// tools can read it, and reads images from archives into it.
//
//	oci-layout               {"imageLayoutVersion":"1.0.0"}; made with the first index.json
//	index.json               one entry for each name of each image
//	blobs/ALGORITHM/HEX      manifests, configurations, layers
//	ingest/N/                an archive being read
//
// An entry of index.json points at an image's manifest and bears its name as
// org.opencontainers.image.ref.name and as io.containerd.image.name. An image
// without names has one entry without.
//
// The rename of index.json is the point at which a change counts. Before it,
// every blob is written, verified against its digest, synced, and renamed
// into blobs/; what a crash leaves there unreferenced, and everything in
// ingest/, is removed when the store is opened. Blobs never change.
//
// Manifests, configurations and indexes are read into memory and so bounded
// to 4 MiB each, as registries do. Layers are only ever streamed.
package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	maxDocument    = 4 << 20 // bytes of a manifest, configuration or index
	maxIndexDepth  = 4       // of an index in an index
	annotationRef  = v1.AnnotationRefName
	annotationName = "io.containerd.image.name"
)

// Media types of Docker's, beside those of the specification.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// Store is an open store. One process at a time uses a directory.
type Store struct {
	root string

	mu     sync.Mutex // guards everything below, and blobs/ and index.json
	images []*entry   // in the order of index.json
	next   uint64     // number of the next directory in ingest/

	// foreign are entries of index.json that are no whole image for running:
	// another tool's, or damaged. They stay, with the blobs they have.
	foreign []v1.Descriptor
}

// entry is one image as held.
type entry struct {
	image      Image
	descriptor v1.Descriptor // of the manifest, without names
	names      []string
}

// Open opens the store at root, making it if it is not there, and removes
// what a crash has left.
func Open(root string) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "image store %q is not an absolute path", root)
	}
	s := &Store{root: root}
	if err := sweep(root); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	for _, dir := range []string{"blobs/sha256", "ingest"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open image store: %w", class(err))
		}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.collect(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

// sweep removes what was being written when a process ended.
func sweep(root string) error {
	unfinished := func(name string) bool { // of writeFile
		return strings.HasPrefix(name, "."+v1.ImageIndexFile+".") || strings.HasPrefix(name, "."+v1.ImageLayoutFile+".")
	}
	return errors.Join(removeIn(root, unfinished), removeIn(filepath.Join(root, "ingest"), func(string) bool { return true }))
}

// removeIn removes what bears such names in a directory, which may be missing.
func removeIn(dir string, which func(name string) bool) error {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		if which(n.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, n.Name())))
		}
	}
	return err
}

// load reads index.json. There is none before the first image came.
func (s *Store) load() error {
	raw, err := readBounded(filepath.Join(s.root, v1.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var index v1.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return errclass.Errorf(errdefs.ErrDataLoss, "index.json: %w", err)
	}
	for _, d := range index.Manifests {
		name := nameOf(d.Annotations)
		if held := s.byManifest(d.Digest); held != nil {
			held.addName(name)
			continue
		}
		img, err := describe(s.content(), d)
		if err != nil {
			s.foreign = append(s.foreign, d)
			continue
		}
		d.Annotations = nil
		e := &entry{image: img, descriptor: d}
		e.addName(name)
		s.images = append(s.images, e)
	}
	return nil
}

func (e *entry) addName(name string) {
	if name != "" && !slices.Contains(e.names, name) {
		e.names = append(e.names, name)
	}
}

func (s *Store) byManifest(d digest.Digest) *entry {
	for _, e := range s.images {
		if e.descriptor.Digest == d {
			return e
		}
	}
	return nil
}

func (s *Store) byID(id string) *entry {
	for _, e := range s.images {
		if e.image.ID == id {
			return e
		}
	}
	return nil
}

// content reads blobs of the store.
func (s *Store) content() content {
	return func(d digest.Digest) string { return filepath.Join(s.root, blobPath(d)) }
}

// blobPath is where a layout keeps a blob. The digest must be valid.
func blobPath(d digest.Digest) string {
	return filepath.Join(v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Images lists what is held, in the order in which it came.
func (s *Store) Images() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Image
	for _, e := range s.images {
		img := e.image
		img.Names = slices.Clone(e.names)
		out = append(out, img)
	}
	return out
}

// Name sets the names of an image to exactly these full references. A name
// that another image has is taken from it.
// NotFound: no such image. InvalidArgument: no full reference.
func (s *Store) Name(id string, names []string) error {
	for _, name := range names {
		if full, err := Normalize(name); err != nil {
			return err
		} else if full != name {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "image name %q is short for %s", name, full)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byID(id)
	if e == nil {
		return errclass.Errorf(errdefs.ErrNotFound, "image %s is not there", id)
	}
	next := s.without(names)
	for _, n := range next {
		if n.image.ID == id {
			n.names = nil
			for _, name := range names {
				n.addName(name)
			}
		}
	}
	return s.commit(next)
}

// without is a copy of the images with names taken away.
func (s *Store) without(names []string) []*entry {
	var out []*entry
	for _, e := range s.images {
		c := *e
		c.names = slices.DeleteFunc(slices.Clone(e.names), func(n string) bool { return slices.Contains(names, n) })
		out = append(out, &c)
	}
	return out
}

// Remove gives an image back, with the blobs that no other image uses.
func (s *Store) Remove(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID(id) != nil {
		next := slices.DeleteFunc(s.without(nil), func(e *entry) bool { return e.image.ID == id })
		if err := s.commit(next); err != nil {
			return err
		}
	}
	return s.collect()
}

// commit makes images what the store holds.
func (s *Store) commit(images []*entry) error {
	if err := s.writeIndex(images); err != nil {
		return err
	}
	s.images = images
	return nil
}

func (s *Store) writeIndex(images []*entry) error {
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	for _, d := range s.foreign {
		if !slices.ContainsFunc(images, func(e *entry) bool { return e.descriptor.Digest == d.Digest }) {
			index.Manifests = append(index.Manifests, d)
		}
	}
	for _, e := range images {
		if len(e.names) == 0 {
			index.Manifests = append(index.Manifests, e.descriptor)
		}
		for _, name := range e.names {
			d := e.descriptor
			d.Annotations = map[string]string{annotationRef: name, annotationName: name}
			index.Manifests = append(index.Manifests, d)
		}
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	if len(raw) > maxDocument {
		return errclass.Errorf(errdefs.ErrResourceExhausted, "write index.json: %d bytes, more than %d", len(raw), maxDocument)
	}
	layout := filepath.Join(s.root, v1.ImageLayoutFile)
	if _, err := os.Stat(layout); errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(layout, []byte(`{"imageLayoutVersion":"`+v1.ImageLayoutVersion+`"}`)); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(s.root, v1.ImageIndexFile), raw)
}

// collect removes blobs that no image uses.
func (s *Store) collect() error {
	used := make(map[string]bool)
	for _, d := range s.foreign {
		s.reach(d, used, 0)
	}
	for _, e := range s.images {
		for _, d := range append(e.image.blobs, e.descriptor.Digest) {
			used[blobPath(d)] = true
		}
	}
	algorithms, err := os.ReadDir(filepath.Join(s.root, v1.ImageBlobsDir))
	if err != nil {
		return fmt.Errorf("remove unused blobs: %w", err)
	}
	for _, a := range algorithms {
		blobs, err := os.ReadDir(filepath.Join(s.root, v1.ImageBlobsDir, a.Name()))
		if err != nil {
			return fmt.Errorf("remove unused blobs: %w", err)
		}
		for _, b := range blobs {
			rel := filepath.Join(v1.ImageBlobsDir, a.Name(), b.Name())
			if used[rel] {
				continue
			}
			if err := os.RemoveAll(filepath.Join(s.root, rel)); err != nil {
				return fmt.Errorf("remove unused blobs: %w", err)
			}
		}
	}
	return nil
}

// reach marks what a foreign entry of the index needs, as far as it can be
// read: an index's manifests, a manifest's configuration and layers.
func (s *Store) reach(d v1.Descriptor, used map[string]bool, depth int) {
	if depth > maxIndexDepth || d.Digest.Validate() != nil {
		return
	}
	used[blobPath(d.Digest)] = true
	var document struct {
		Manifests []v1.Descriptor `json:"manifests"`
		Config    v1.Descriptor   `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
	}
	if d.Size > maxDocument || s.content().decode(d, &document) != nil {
		return
	}
	for _, m := range document.Manifests {
		s.reach(m, used, depth+1)
	}
	for _, b := range append(document.Layers, document.Config) {
		if b.Digest.Validate() == nil {
			used[blobPath(b.Digest)] = true
		}
	}
}

// stage makes a directory in ingest/.
func (s *Store) stage() (string, error) {
	s.mu.Lock()
	s.next++
	dir := filepath.Join(s.root, "ingest", strconv.FormatUint(s.next, 10))
	s.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory for the archive: %w", class(err))
	}
	return dir, nil
}

// found is one image of an archive, its blobs still where they were read to.
type found struct {
	descriptor v1.Descriptor
	image      Image
	names      []string
}

// take moves the blobs of what was found into the store and names the images,
// all of them or none. An image that is held stays as it is: its layers are
// known by path elsewhere.
func (s *Store) take(all []found, from content) ([]Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, f := range all {
		names = append(names, f.names...)
	}
	next := s.without(names)
	var out []Image
	for _, f := range all {
		i := slices.IndexFunc(next, func(e *entry) bool { return e.image.ID == f.image.ID })
		if i >= 0 {
			if _, err := describe(s.content(), next[i].descriptor); err != nil {
				next = slices.Delete(next, i, i+1) // damaged since: take this one
				i = -1
			}
		}
		if i < 0 {
			if err := s.move(f, from); err != nil {
				return nil, errors.Join(err, s.collect())
			}
			next = append(next, &entry{image: f.image, descriptor: f.descriptor})
			i = len(next) - 1
		}
		for _, name := range f.names {
			for _, e := range next { // of two images with one name, the later one has it
				e.names = slices.DeleteFunc(e.names, func(n string) bool { return n == name })
			}
			next[i].addName(name)
		}
		img := next[i].image
		img.Names = slices.Clone(f.names)
		out = append(out, img)
	}
	err := s.syncBlobs()
	if err == nil {
		err = s.commit(next)
	}
	if err != nil {
		return nil, errors.Join(err, s.collect())
	}
	return out, nil
}

// move renames an image's blobs into the store.
func (s *Store) move(f found, from content) error {
	for _, d := range append(slices.Clone(f.image.blobs), f.descriptor.Digest) {
		to := filepath.Join(s.root, blobPath(d))
		if there, err := os.Lstat(to); err == nil {
			if fresh, err := os.Lstat(from(d)); err == nil && fresh.Size() == there.Size() || err != nil {
				continue // another image has it
			}
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("store blob %s: %w", d, class(err))
		}
		if err := os.Rename(from(d), to); err != nil {
			return fmt.Errorf("store blob %s: %w", d, class(err))
		}
	}
	return nil
}

func (s *Store) syncBlobs() error {
	algorithms, err := os.ReadDir(filepath.Join(s.root, v1.ImageBlobsDir))
	if err != nil {
		return fmt.Errorf("sync blobs: %w", err)
	}
	for _, a := range algorithms {
		if err := syncDir(filepath.Join(s.root, v1.ImageBlobsDir, a.Name())); err != nil {
			return fmt.Errorf("sync blobs: %w", err)
		}
	}
	return nil
}

// writeFile replaces a file by one that is complete and durable.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), class(err))
	}
	defer os.Remove(f.Name()) // gone when the rename has succeeded
	_, err = io.Copy(f, bytes.NewReader(data))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), class(err))
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// class gives an error of the disk its class.
func class(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errclass.Errorf(errdefs.ErrResourceExhausted, "%w", err)
	}
	return err
}
