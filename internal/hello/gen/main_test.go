package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/internal/hello"
)

// layout reads the committed archive and checks every blob against its name.
func layout(t *testing.T) (map[string][]byte, v1.Image, []byte) {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(strings.NewReader(hello.Archive())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = data
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hex != "" && digest.FromBytes(data).Encoded() != hex {
			t.Errorf("blob %s has other content", hex)
		}
	}
	blob := func(d v1.Descriptor, into any) []byte {
		data := files["blobs/sha256/"+d.Digest.Encoded()]
		if int64(len(data)) != d.Size {
			t.Fatalf("blob %s has %d bytes, not %d", d.Digest, len(data), d.Size)
		}
		if into != nil {
			if err := json.Unmarshal(data, into); err != nil {
				t.Fatal(err)
			}
		}
		return data
	}
	var index v1.Index
	if err := json.Unmarshal(files[v1.ImageIndexFile], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations[v1.AnnotationRefName] != hello.Name {
		t.Fatalf("index %+v", index)
	}
	var manifest v1.Manifest
	var image v1.Image
	blob(index.Manifests[0], &manifest)
	blob(manifest.Config, &image)
	layer := blob(manifest.Layers[0], nil)
	if image.RootFS.DiffIDs[0] != digest.FromBytes(layer) {
		t.Error("the configuration names another layer")
	}
	return files, image, layer
}

func TestTheArchiveIsWhatTheSourceSays(t *testing.T) {
	if n := len(hello.Archive()); n > 32<<10 {
		t.Errorf("the archive has %d bytes", n)
	}
	_, image, _ := layout(t)
	here, err := compiler()
	if err != nil {
		t.Fatal(err)
	}
	if made := image.Config.Labels[compilerLabel]; made != here {
		t.Skipf("the archive was made with %s, here is %s: the bytes may differ", made, here)
	}
	data, err := build("../program/hello.c")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, []byte(hello.Archive())) {
		t.Error("internal/hello/hello.tar is not made from program/hello.c as it is: go generate ./internal/hello")
	}
}

func TestItSaysHello(t *testing.T) {
	_, _, layer := layout(t)
	r := tar.NewReader(bytes.NewReader(layer))
	if h, err := r.Next(); err != nil || h.Name != "hello" || h.Mode != 0o755 {
		t.Fatalf("first file %+v, %v", h, err)
	}
	program := filepath.Join(t.TempDir(), "hello")
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Hello from gantry.\n", "hostname   " + host + "\n", fmt.Sprintf("pid        %d\n", cmd.Process.Pid),
		fmt.Sprintf("user       %d\n", os.Getuid()), "lo 127.0.0.1",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	cmd = exec.Command(program)
	cmd.Stdout = full
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("with nowhere to write it ended with %v", err)
	}
}
