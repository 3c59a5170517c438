package graphtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// stamp is the time of every entry, so that digests are the same each run.
func stamp() time.Time { return time.Unix(1_500_000_000, 0) }

const (
	mediaPlain = "application/vnd.oci.image.layer.v1.tar"
	mediaGzip  = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// file, dir, link and so on make the entries of a layer's tar.
func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, ""}
}

func symlink(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}

func hardlink(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}, ""}
}

// mode gives the entry other permission bits, owner gives it another owner.
func (e entry) mode(m int64) entry {
	e.header.Mode = m
	return e
}

func (e entry) owner(uid, gid int) entry {
	e.header.Uid, e.header.Gid = uid, gid
	return e
}

// entry is one member of a tar.
type entry struct {
	header  tar.Header
	content string
}

// layerTar is the uncompressed tar of entries.
func layerTar(t conform.T, entries []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := e.header
		h.ModTime, h.Size = stamp(), int64(len(e.content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("make a layer: %v", err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatalf("make a layer: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("make a layer: %v", err)
	}
	return out.Bytes()
}

// digestOf is the digest of data as the OCI specifications write it.
func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// chainID is the id of a layer on top of a parent (OCI image specification,
// "Layer ChainID").
func chainID(parent, diffID string) string {
	if parent == "" {
		return diffID
	}
	return digestOf([]byte(parent + " " + diffID))
}

// archive writes a gzip-compressed layer and says how to apply it.
func archive(t conform.T, parent string, entries ...entry) graphdriver.ApplyLayer {
	t.Helper()
	return archiveOf(t, parent, layerTar(t, entries))
}

func archiveOf(t conform.T, parent string, plain []byte) graphdriver.ApplyLayer {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(plain) // a bytes.Buffer never fails
	w.Close()
	diffID := digestOf(plain)
	return graphdriver.ApplyLayer{
		ID: chainID(parent, diffID), Parent: parent, Archive: store(t, packed.Bytes()),
		Digest: digestOf(packed.Bytes()), DiffID: diffID, MediaType: mediaGzip,
	}
}

// plainArchive is archive without compression.
func plainArchive(t conform.T, parent string, entries ...entry) graphdriver.ApplyLayer {
	t.Helper()
	plain := layerTar(t, entries)
	diffID := digestOf(plain)
	return graphdriver.ApplyLayer{
		ID: chainID(parent, diffID), Parent: parent, Archive: store(t, plain),
		Digest: diffID, DiffID: diffID, MediaType: mediaPlain,
	}
}

// store writes a blob to a file.
func store(t conform.T, blob []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, blob, 0o600); err != nil {
		t.Fatalf("write a layer's blob: %v", err)
	}
	return path
}
