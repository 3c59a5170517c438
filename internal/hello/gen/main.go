// Command gen builds the image of package hello: it compiles the program and
// packs it as a tar of an OCI image layout (image-spec 1.1). Nothing in it
// depends on time, place or user: with the same compiler the same bytes come.
package main

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // for go-digest
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// compilerLabel says in the image's configuration what compiled it.
const compilerLabel = "io.gantry.hello.compiler"

func main() {
	source := flag.String("source", "program/hello.c", "the program")
	out := flag.String("o", "hello.tar", "the archive to write")
	flag.Parse()
	data, err := build(*source)
	if err == nil {
		err = os.WriteFile(*out, data, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// build returns the archive.
func build(source string) ([]byte, error) {
	version, err := compiler()
	if err != nil {
		return nil, err
	}
	program, err := compile(source)
	if err != nil {
		return nil, err
	}
	return pack(program, version)
}

// compiler says what compiles here, with the distribution's own version:
// "gcc (Debian 12.2.0-14) 12.2.0 amd64".
func compiler() (string, error) {
	out, err := exec.Command("gcc", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask gcc for its version: %w", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first + " " + runtime.GOARCH, nil
}

func compile(source string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "gantry-hello")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, "hello")
	cmd := exec.Command("gcc", "-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror",
		"-ffreestanding", "-fno-builtin", "-nostdlib", "-static", "-fno-pie", "-no-pie",
		"-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-ident",
		"-Wl,--build-id=none", "-Wl,-z,noexecstack,-z,noseparate-code", "-s", "-o", program, source)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("compile %s: %w", source, err)
	}
	return os.ReadFile(program)
}

// epoch is the time of everything in the image.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

// file is one file of a tar.
type file struct {
	name string
	mode int64
	data []byte
}

func archive(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: epoch(), Format: tar.FormatUSTAR}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// pack makes the layout: layer, configuration, manifest, index.
func pack(program []byte, version string) ([]byte, error) {
	layer, err := archive([]file{{"hello", 0o755, program}})
	if err != nil {
		return nil, err
	}
	created := epoch()
	config, err := json.Marshal(v1.Image{
		Created:  &created,
		Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config: v1.ImageConfig{
			Entrypoint: []string{"/hello"}, WorkingDir: "/",
			Env:    []string{"PATH=/"},
			Labels: map[string]string{compilerLabel: version},
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    describe(v1.MediaTypeImageConfig, config),
		Layers:    []v1.Descriptor{describe(v1.MediaTypeImageLayer, layer)},
	})
	if err != nil {
		return nil, err
	}
	top := describe(v1.MediaTypeImageManifest, manifest)
	top.Platform = &v1.Platform{Architecture: "amd64", OS: "linux"}
	top.Annotations = map[string]string{v1.AnnotationRefName: "hello:latest"}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{top},
	})
	if err != nil {
		return nil, err
	}
	files := []file{
		{v1.ImageLayoutFile, 0o644, []byte(`{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`)},
		{v1.ImageIndexFile, 0o644, index},
		{"blobs/", 0o755, nil},
		{"blobs/sha256/", 0o755, nil},
	}
	for _, blob := range [][]byte{manifest, config, layer} {
		files = append(files, file{"blobs/sha256/" + digest.FromBytes(blob).Encoded(), 0o644, blob})
	}
	return archive(files)
}

func describe(mediaType string, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
