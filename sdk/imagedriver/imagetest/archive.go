package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

// The media types of the OCI image specification, "media-types.md".
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func stamp() time.Time { return time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC) }

// picture is an image to be put into archives, and what a driver should say
// of it.
type picture struct {
	name     string
	platform string   // architecture; empty for this machine's
	layers   []string // content of the one file in each layer, lowest first
}

// made is a picture's blobs.
type made struct {
	picture
	layers   []blob // as stored: compressed
	plain    [][]byte
	config   blob
	manifest blob
}

type blob struct {
	media string
	data  []byte
}

// descriptor points at a blob.
func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.media, "digest": digestOf(b.data), "size": len(b.data)}
}

// build makes a picture's blobs.
func (p picture) build(t conform.T) made {
	t.Helper()
	m := made{picture: p}
	var diffIDs []string
	var descriptors []any
	for i, content := range p.layers {
		plain := packTar(t, []member{{fmt.Sprintf("file%d", i), []byte(content)}})
		layer := blob{mediaLayer, compress(plain)}
		m.plain, m.layers = append(m.plain, plain), append(m.layers, layer)
		diffIDs, descriptors = append(diffIDs, digestOf(plain)), append(descriptors, layer.descriptor())
	}
	m.config = blob{mediaConfig, encode(t, map[string]any{
		"architecture": p.architecture(), "os": "linux", "created": stamp().Format(time.RFC3339),
		"config": map[string]any{
			"User": "nobody", "Env": []string{"PATH=/bin", "NAME=" + p.name}, "Entrypoint": []string{"/bin/entry"},
			"Cmd": []string{"one", "two"}, "WorkingDir": "/work", "StopSignal": "SIGQUIT",
			"Labels":       map[string]string{"label": p.name},
			"ExposedPorts": map[string]any{"80/tcp": map[string]any{}}, "Volumes": map[string]any{"/data": map[string]any{}},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})}
	m.manifest = blob{mediaManifest, encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": m.config.descriptor(), "layers": descriptors,
	})}
	return m
}

func (p picture) architecture() string {
	if p.platform != "" {
		return p.platform
	}
	return runtime.GOARCH
}

// id is the image's key.
func (m made) id() string { return digestOf(m.config.data) }

// chain computes the chain ids (OCI image specification, "Layer ChainID").
func (m made) chain() []string {
	var ids []string
	for i, plain := range m.plain {
		id := digestOf(plain)
		if i > 0 {
			id = digestOf([]byte(ids[i-1] + " " + id))
		}
		ids = append(ids, id)
	}
	return ids
}

// wantConfig is what the driver should say of the image's configuration.
func (m made) wantConfig() imagedriver.Config {
	return imagedriver.Config{
		User: "nobody", Env: []string{"PATH=/bin", "NAME=" + m.name}, Entrypoint: []string{"/bin/entry"},
		Cmd: []string{"one", "two"}, WorkingDir: "/work", StopSignal: "SIGQUIT",
		Labels: map[string]string{"label": m.name}, ExposedPorts: []string{"80/tcp"}, Volumes: []string{"/data"},
	}
}

// member is one file of a tar.
type member struct {
	name string
	data []byte
}

func packTar(t conform.T, members []member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: 0o644, Size: int64(len(m.data)), ModTime: stamp()}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("make an archive: %v", err)
		}
		w.Write(m.data) // a bytes.Buffer never fails
	}
	w.Close()
	return out.Bytes()
}

func compress(plain []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(plain) // a bytes.Buffer never fails
	w.Close()
	return out.Bytes()
}

func encode(t conform.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("make an archive: %v", err)
	}
	return raw
}

// blobName is where a layout keeps a blob.
func blobName(b blob) string {
	return "blobs/sha256/" + strings.TrimPrefix(digestOf(b.data), "sha256:")
}

// ociMembers is an OCI layout of pictures (OCI image specification,
// "image-layout.md").
func ociMembers(t conform.T, pictures ...made) []member {
	t.Helper()
	members := []member{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	var manifests []any
	have := map[string]bool{}
	for _, p := range pictures {
		d := p.manifest.descriptor()
		d["annotations"] = map[string]string{
			"org.opencontainers.image.ref.name": tagOf(p.name), "io.containerd.image.name": p.name,
		}
		d["platform"] = map[string]string{"os": "linux", "architecture": p.architecture()}
		manifests = append(manifests, d)
		for _, b := range append([]blob{p.manifest, p.config}, p.layers...) {
			if name := blobName(b); !have[name] {
				have[name] = true
				members = append(members, member{name, b.data})
			}
		}
	}
	return append(members, member{"index.json", encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": mediaIndex, "manifests": manifests,
	})})
}

func tagOf(name string) string { return name[strings.LastIndex(name, ":")+1:] }

// dockerMembers is what "docker save" made before it spoke OCI: a
// manifest.json beside configurations and uncompressed layers.
func dockerMembers(t conform.T, pictures ...made) []member {
	t.Helper()
	var members []member
	var manifest []any
	have := map[string]bool{}
	add := func(name string, data []byte) string {
		if !have[name] {
			have[name] = true
			members = append(members, member{name, data})
		}
		return name
	}
	for _, p := range pictures {
		var layers []string
		for _, plain := range p.plain {
			layers = append(layers, add(strings.TrimPrefix(digestOf(plain), "sha256:")+"/layer.tar", plain))
		}
		manifest = append(manifest, map[string]any{
			"Config":   add(strings.TrimPrefix(p.id(), "sha256:")+".json", p.config.data),
			"RepoTags": []string{p.name}, "Layers": layers,
		})
	}
	return append(members, member{"manifest.json", encode(t, manifest)})
}

// save writes an archive to a file.
func save(t conform.T, raw []byte) imagedriver.Load {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatalf("write an archive: %v", err)
	}
	return imagedriver.Load{Archive: path}
}

// saveOCI writes an OCI layout of pictures to a file.
func saveOCI(t conform.T, pictures ...made) imagedriver.Load {
	t.Helper()
	return save(t, packTar(t, ociMembers(t, pictures...)))
}
