package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

// file is one member of a test archive.
type file struct {
	name, link string
	kind       byte // 0 for a regular file
	data       []byte
}

func pack(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Linkname: f.link, Mode: 0o644, Size: int64(len(f.data))}
		if f.kind != 0 {
			h.Typeflag = f.kind
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write(f.data)
	}
	w.Close()
	return b.Bytes()
}

func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func blob(data []byte) file {
	d := digest.FromBytes(data)
	return file{name: blobPath(d), data: data}
}

func descriptor(media string, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: media, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// picture makes the blobs of an image with one layer.
func picture(t testing.TB, arch, content string) (v1.Descriptor, []file) {
	t.Helper()
	layer := pack(t, file{name: "f", data: []byte(content)})
	config := mustJSON(t, v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}})
	manifest := mustJSON(t, v1.Manifest{MediaType: v1.MediaTypeImageManifest,
		Config: descriptor(v1.MediaTypeImageConfig, config), Layers: []v1.Descriptor{descriptor(v1.MediaTypeImageLayerGzip, gz(layer))}})
	return descriptor(v1.MediaTypeImageManifest, manifest), []file{blob(manifest), blob(config), blob(gz(layer))}
}

func layoutOf(t testing.TB, files []file, entries ...v1.Descriptor) []byte {
	t.Helper()
	all := append([]file{{name: "./oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}, files...)
	return pack(t, append(all, file{name: "index.json", data: mustJSON(t, v1.Index{Manifests: entries})})...)
}

func named(d v1.Descriptor, name string) v1.Descriptor {
	d.Annotations = map[string]string{annotationName: name}
	return d
}

func open(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t testing.TB, s *Store, archive []byte) ([]Image, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.Load(ctx, path, LoadOptions{Platform: "linux/amd64"})
}

// blobs lists the store's blobs.
func blobs(t *testing.T, s *Store) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(filepath.Join(s.root, "blobs/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                  "docker.io/library/busybox:latest",
		"busybox:1.36":             "docker.io/library/busybox:1.36",
		"me/app":                   "docker.io/me/app:latest",
		"host.example:5000/a/b":    "host.example:5000/a/b:latest",
		"localhost/a:t":            "localhost/a:t",
		"docker.io/library/a:b":    "docker.io/library/a:b",
		"a@sha256:" + zeros:        "docker.io/library/a@sha256:" + zeros,
		"a:tag@sha256:" + zeros:    "docker.io/library/a@sha256:" + zeros,
		"UPPER":                    "",
		"":                         "",
		"a b":                      "",
		"../etc":                   "",
		zeros:                      "",
		"a:" + zeros + zeros + "0": "",
	} {
		got, err := Normalize(in)
		if got != want || (want == "") != errdefs.IsInvalidArgument(err) {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func TestPlatformIsPicked(t *testing.T) {
	arm, armFiles := picture(t, "arm64", "arm")
	amd, amdFiles := picture(t, "amd64", "amd")
	armWith, amdWith := arm, amd
	armWith.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	amdWith.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	attested := amd
	attested.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	inner := mustJSON(t, v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{attested, armWith, amdWith}})
	files := append(append(armFiles, amdFiles...), blob(inner))
	archive := layoutOf(t, files, named(descriptor(v1.MediaTypeImageIndex, inner), "docker.io/library/multi:latest"))
	s := open(t, t.TempDir())
	images, err := load(t, s, archive)
	if err != nil || len(images) != 1 || images[0].Architecture != "amd64" || images[0].Manifest != amd.Digest.String() {
		t.Fatalf("%+v, %v", images, err)
	}
	if got := blobs(t, s); len(got) != 3 {
		t.Errorf("blobs of other platforms were stored: %v", got)
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	os.WriteFile(path, archive, 0o600)
	if _, err := s.Load(ctx, path, LoadOptions{Platform: "linux/riscv64"}); !errdefs.IsNotFound(err) {
		t.Errorf("riscv64: %v", err)
	}
	if _, err := s.Load(ctx, path, LoadOptions{Platform: "amd64"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no platform: %v", err)
	}
	if images, err := s.Load(ctx, path, LoadOptions{Platform: "linux/arm64"}); err != nil || len(images) != 1 {
		t.Errorf("arm64: %v", err)
	}
	held := s.Images()
	if len(held) != 2 || len(held[0].Names) != 0 || !slices.Equal(held[1].Names, []string{"docker.io/library/multi:latest"}) {
		t.Errorf("a name was not moved: %+v", held)
	}
}

// dockerSave makes a docker-archive as old dockers do: layers as links.
func dockerSave(t testing.TB, layer []byte, layers []file, paths ...string) []byte {
	t.Helper()
	config := mustJSON(t, v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: slices.Repeat([]digest.Digest{digest.FromBytes(layer)}, len(paths))}})
	name := digest.FromBytes(config).Encoded() + ".json"
	list := mustJSON(t, []saved{{Config: name, RepoTags: []string{"app:1", "app:2"}, Layers: paths}})
	return pack(t, append(layers, file{name: name, data: config}, file{name: "manifest.json", data: list})...)
}

func TestDockerArchiveForms(t *testing.T) {
	layer := pack(t, file{name: "f", data: []byte("x")})
	enc, _ := zstd.NewWriter(nil)
	for name, c := range map[string]struct {
		archive []byte
		media   string
		want    func(error) bool
	}{
		"plain":    {dockerSave(t, layer, []file{{name: "a/layer.tar", data: layer}}, "a/layer.tar"), v1.MediaTypeImageLayer, nil},
		"gzip":     {dockerSave(t, layer, []file{{name: "a/layer.tar", data: gz(layer)}}, "a/layer.tar"), v1.MediaTypeImageLayerGzip, nil},
		"zstd":     {dockerSave(t, layer, []file{{name: "a/layer.tar", data: enc.EncodeAll(layer, nil)}}, "a/layer.tar"), v1.MediaTypeImageLayerZstd, nil},
		"symlink":  {dockerSave(t, layer, []file{{name: "a/layer.tar", data: layer}, {name: "b/layer.tar", kind: tar.TypeSymlink, link: "../a/layer.tar"}}, "a/layer.tar", "b/layer.tar"), v1.MediaTypeImageLayer, nil},
		"hardlink": {dockerSave(t, layer, []file{{name: "a", data: layer}, {name: "b", kind: tar.TypeLink, link: "a"}}, "b"), v1.MediaTypeImageLayer, nil},
		"outside":  {dockerSave(t, layer, []file{{name: "b/layer.tar", kind: tar.TypeSymlink, link: "../../../etc/passwd"}}, "b/layer.tar"), "", errdefs.IsDataLoss},
		"loop":     {dockerSave(t, layer, []file{{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"}}, "a"), "", errdefs.IsInvalidArgument},
		"dotdot":   {dockerSave(t, layer, []file{{name: "a", data: layer}}, "x/../../a"), "", errdefs.IsInvalidArgument},
		"changed":  {dockerSave(t, layer, []file{{name: "a", data: append(slices.Clone(layer), 0)}}, "a"), "", errdefs.IsDataLoss},
		"cut gzip": {dockerSave(t, layer, []file{{name: "a", data: gz(layer)[:40]}}, "a"), "", errdefs.IsDataLoss},
		"device":   {dockerSave(t, layer, []file{{name: "a", data: layer}, {name: "d", kind: tar.TypeChar}}, "a"), "", errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			images, err := load(t, s, c.archive)
			if c.want != nil {
				if !c.want(err) || len(blobs(t, s)) != 0 {
					t.Errorf("%v, blobs %v", err, blobs(t, s))
				}
				return
			}
			if err != nil || len(images) != 1 || images[0].Layers[0].MediaType != c.media || images[0].Layers[0].DiffID != digest.FromBytes(layer).String() {
				t.Fatalf("%+v, %v", images, err)
			}
			if !slices.Equal(images[0].Names, []string{"docker.io/library/app:1", "docker.io/library/app:2"}) {
				t.Errorf("names %q", images[0].Names)
			}
			if again := open(t, s.root).Images(); len(again) != 1 || again[0].ID != images[0].ID || len(again[0].Names) != 2 {
				t.Errorf("after opening again: %+v", again)
			}
		})
	}
}

func TestOpenRemovesWhatACrashLeft(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "[a store")) // a path, no pattern
	d, files := picture(t, "amd64", "one")
	if _, err := load(t, s, layoutOf(t, files, d)); err != nil {
		t.Fatal(err)
	}
	before := blobs(t, s)
	os.WriteFile(filepath.Join(s.root, "blobs/sha256", zeros), []byte("unreferenced"), 0o644)
	os.MkdirAll(filepath.Join(s.root, "ingest/1"), 0o755)
	os.WriteFile(filepath.Join(s.root, "ingest/1/3"), []byte("half"), 0o644)
	os.WriteFile(filepath.Join(s.root, ".index.json.123"), []byte("half"), 0o644)
	s = open(t, s.root)
	if after := blobs(t, s); !slices.Equal(before, after) {
		t.Errorf("blobs %v, were %v", after, before)
	}
	if _, err := os.Stat(filepath.Join(s.root, ".index.json.123")); err == nil {
		t.Error("a half-written index.json is left")
	}
	if left, _ := os.ReadDir(filepath.Join(s.root, "ingest")); len(left) != 0 {
		t.Errorf("left in ingest: %v", left)
	}
}

func TestDamagedImageIsLoadedAnew(t *testing.T) {
	s := open(t, t.TempDir())
	d, files := picture(t, "amd64", "one")
	archive := layoutOf(t, files, named(d, "docker.io/library/one:latest"))
	images, err := load(t, s, archive)
	if err != nil {
		t.Fatal(err)
	}
	os.Truncate(s.BlobPath(images[0].Layers[0]), 3)
	for range 2 { // as it is, and after a restart
		if _, err := load(t, s, archive); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(s.BlobPath(images[0].Layers[0])); err != nil || fi.Size() != images[0].Layers[0].Size {
			t.Errorf("the layer was not replaced: %v", err)
		}
		os.Truncate(s.BlobPath(images[0].Layers[0]), 3)
		s = open(t, s.root)
		if len(s.Images()) != 0 {
			t.Errorf("a damaged image is listed")
		}
	}
}

func TestForeignEntriesStay(t *testing.T) {
	s := open(t, t.TempDir())
	d, files := picture(t, "amd64", "one")
	if _, err := load(t, s, layoutOf(t, files, named(d, "docker.io/library/one:latest"))); err != nil {
		t.Fatal(err)
	}
	artifact := mustJSON(t, v1.Manifest{Config: descriptor("application/x-other", []byte("config")), Layers: []v1.Descriptor{descriptor("text/plain", []byte("text"))}})
	for _, data := range [][]byte{artifact, []byte("config"), []byte("text")} {
		os.WriteFile(filepath.Join(s.root, blob(data).name), data, 0o644)
	}
	var index v1.Index
	raw, _ := os.ReadFile(filepath.Join(s.root, "index.json"))
	json.Unmarshal(raw, &index)
	index.Manifests = append(index.Manifests, descriptor(v1.MediaTypeImageManifest, artifact))
	os.WriteFile(filepath.Join(s.root, "index.json"), mustJSON(t, index), 0o644)
	s = open(t, s.root)
	id := s.Images()[0].ID
	if err := s.Remove(id); err != nil {
		t.Fatal(err)
	}
	if got := blobs(t, s); len(got) != 3 {
		t.Errorf("blobs %v", got)
	}
	if raw, _ := os.ReadFile(filepath.Join(s.root, "index.json")); !strings.Contains(string(raw), digest.FromBytes(artifact).String()) {
		t.Errorf("the foreign entry is gone: %s", raw)
	}
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir())
	d, files := picture(t, "amd64", "one")
	images, err := load(t, s, layoutOf(t, files, named(d, "docker.io/library/one:latest")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Name(images[0].ID, []string{"one"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a short name: %v", err)
	}
	if err := s.Name("sha256:"+zeros, nil); !errdefs.IsNotFound(err) {
		t.Errorf("no image: %v", err)
	}
	a, b := "docker.io/library/a:latest", "docker.io/library/b:latest"
	if err := s.Name(images[0].ID, []string{a, b, a}); err != nil {
		t.Fatal(err)
	}
	if held := s.Images(); !slices.Equal(held[0].Names, []string{a, b}) {
		t.Errorf("a name given twice: %v", held[0].Names)
	}
	if err := s.Name(images[0].ID, nil); err != nil {
		t.Fatal(err)
	}
	if held := open(t, s.root).Images(); len(held) != 1 || len(held[0].Names) != 0 {
		t.Errorf("held %+v", held)
	}
}

func TestFullDiskLeavesTheStoreAsItWas(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	s := open(t, root)
	d, files := picture(t, "amd64", "one")
	if _, err := load(t, s, layoutOf(t, files, d)); err != nil {
		t.Fatal(err)
	}
	big := append([]file{{name: "blobs/other", data: make([]byte, 2<<20)}}, files...)
	if _, err := load(t, s, layoutOf(t, big, d)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "ingest")); len(left) != 0 || len(s.Images()) != 1 {
		t.Errorf("left %v, holds %d", left, len(s.Images()))
	}
}

func TestCutAnywhereIsRefused(t *testing.T) {
	d, files := picture(t, "amd64", "one")
	whole := layoutOf(t, files, d)
	s := open(t, t.TempDir())
	for cut := 512; cut < len(whole)-1024-512; cut += 256 {
		if _, err := load(t, s, whole[:cut]); !errdefs.IsDataLoss(err) {
			t.Fatalf("cut to %d of %d bytes: %v", cut, len(whole), err)
		}
	}
	if len(blobs(t, s)) != 0 {
		t.Errorf("blobs %v", blobs(t, s))
	}
}

func FuzzLoad(f *testing.F) {
	d, files := picture(f, "amd64", "one")
	layer := pack(f, file{name: "f", data: []byte("x")})
	f.Add(layoutOf(f, files, named(d, "docker.io/library/one:latest")))
	f.Add(gz(layoutOf(f, files, d)))
	f.Add(dockerSave(f, layer, []file{{name: "a/layer.tar", data: layer}}, "a/layer.tar"))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		s := open(t, t.TempDir())
		images, err := load(t, s, archive)
		if (err == nil) != (len(s.Images()) > 0) || len(images) < len(s.Images()) {
			t.Fatalf("%v, answered %d images, holds %d", err, len(images), len(s.Images()))
		}
		if err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
			t.Fatalf("without a class: %v", err)
		}
		if left, _ := os.ReadDir(filepath.Join(s.root, "ingest")); len(left) != 0 {
			t.Fatal(fmt.Sprint("left ", left))
		}
	})
}

func TestAnImagesHealthcheckIsRead(t *testing.T) {
	layer := pack(t, file{name: "f", data: []byte("x")})
	config := mustJSON(t, map[string]any{
		"os": "linux", "architecture": "amd64",
		"config": map[string]any{"User": "app", "Healthcheck": map[string]any{
			"Test": []string{"CMD-SHELL", "true"}, "Interval": 5e9, "Timeout": 1e9, "StartPeriod": 2e9, "StartInterval": 3e8, "Retries": 4,
		}},
		"rootfs": v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	manifest := mustJSON(t, v1.Manifest{MediaType: v1.MediaTypeImageManifest,
		Config: descriptor(v1.MediaTypeImageConfig, config), Layers: []v1.Descriptor{descriptor(v1.MediaTypeImageLayerGzip, gz(layer))}})
	d := descriptor(v1.MediaTypeImageManifest, manifest)
	archive := layoutOf(t, []file{blob(manifest), blob(config), blob(gz(layer))}, named(d, "docker.io/library/h:latest"))
	images, err := load(t, open(t, t.TempDir()), archive)
	if err != nil || len(images) != 1 {
		t.Fatal(images, err)
	}
	h := images[0].Health
	if h == nil || len(h.Test) != 2 || h.Interval != 5*time.Second || h.Timeout != time.Second || h.StartPeriod != 2*time.Second ||
		h.StartInterval != 300*time.Millisecond || h.Retries != 4 || images[0].Config.User != "app" {
		t.Errorf("%+v, user %q", h, images[0].Config.User)
	}
}

// Indexes that name each other's again and again are each read once.
func TestIndexesInIndexes(t *testing.T) {
	var files []file
	inner := descriptor("application/vnd.example", []byte("no image"))
	for range maxIndexDepth {
		i := mustJSON(t, v1.Index{Manifests: slices.Repeat([]v1.Descriptor{inner}, 300)})
		files = append(files, blob(i))
		inner = descriptor(v1.MediaTypeImageIndex, i)
	}
	ended := make(chan error, 1)
	s, archive := open(t, t.TempDir()), layoutOf(t, files, inner)
	go func() {
		_, err := load(t, s, archive)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it is still looking")
	}
}

// What lists the images may be a link to another member, and is an error with a
// class where that is missing.
func TestListThatIsALink(t *testing.T) {
	d, files := picture(t, "amd64", "linked")
	list := mustJSON(t, v1.Index{Manifests: []v1.Descriptor{named(d, "docker.io/library/linked:latest")}})
	link := file{name: "index.json", kind: tar.TypeSymlink, link: "real.json"}
	images, err := load(t, open(t, t.TempDir()), pack(t, append(files, link, file{name: "real.json", data: list})...))
	if err != nil || len(images) != 1 {
		t.Errorf("%+v %v", images, err)
	}
	if _, err := load(t, open(t, t.TempDir()), pack(t, append(files, link)...)); !errdefs.IsDataLoss(err) {
		t.Errorf("a link to nothing: %v", err)
	}
}
