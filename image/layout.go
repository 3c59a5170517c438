package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// errOther says that something is no image for the platform; it is passed over.
var errOther = errors.New("no image for the platform")

// layout finds the images of an OCI layout.
func (r *reading) layout(index member, platform string) ([]found, error) {
	want, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	var i v1.Index
	if err := r.decode(index, "index.json", &i); err != nil {
		return nil, err
	}
	var out []found
	for _, d := range i.Manifests {
		f, err := r.find(d, want, 0)
		if errors.Is(err, errOther) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if name := nameOf(d.Annotations); name != "" {
			f.names = []string{name}
		}
		same := slices.IndexFunc(out, func(o found) bool { return o.image.ID == f.image.ID })
		if same >= 0 {
			out[same].names = append(out[same].names, f.names...)
			continue
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, errclass.Errorf(errdefs.ErrNotFound, "the archive has no image for %s", platform)
	}
	return out, nil
}

// decode reads a small member as JSON.
func (r *reading) decode(m member, name string, v any) error {
	if m.size > maxDocument {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%s has %d bytes, more than %d", name, m.size, maxDocument)
	}
	raw, err := readBounded(m.file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%s: %w", name, err)
	}
	return nil
}

// parsePlatform reads "os/architecture" or "os/architecture/variant".
func parsePlatform(s string) (v1.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return v1.Platform{}, errclass.Errorf(errdefs.ErrInvalidArgument, "platform %q is not like linux/amd64", clip(s))
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// fits reports whether an image of platform p runs where want is. Without a
// variant wanted, any will do: the index's order says which is preferred.
func fits(p, want v1.Platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture && (want.Variant == "" || p.Variant == want.Variant)
}

// find finds the image that an entry of an index stands for.
func (r *reading) find(d v1.Descriptor, want v1.Platform, depth int) (found, error) {
	if depth > maxIndexDepth {
		return found{}, errclass.Errorf(errdefs.ErrInvalidArgument, "index %s is more than %d deep", d.Digest, maxIndexDepth)
	}
	if d.Platform != nil && !fits(*d.Platform, want) {
		return found{}, errOther
	}
	if err := r.ctx(); err != nil {
		return found{}, err
	}
	// Each is looked at once: of indexes in each other that all name the same
	// there would be millions.
	key := d.MediaType + " " + d.Digest.String()
	if r.barren[key] {
		return found{}, errOther
	}
	f, err := r.look(d, want, depth)
	if errors.Is(err, errOther) {
		r.barren[key] = true
	}
	return f, err
}

// look is find for what was not looked at before.
func (r *reading) look(d v1.Descriptor, want v1.Platform, depth int) (found, error) {
	switch d.MediaType {
	case v1.MediaTypeImageIndex, dockerIndex:
		var i v1.Index
		if err := r.content().decode(d, &i); err != nil {
			return found{}, fmt.Errorf("index: %w", err)
		}
		for _, m := range i.Manifests {
			if f, err := r.find(m, want, depth+1); !errors.Is(err, errOther) {
				return f, err
			}
		}
		return found{}, errOther
	case v1.MediaTypeImageManifest, dockerManifest:
		return r.manifest(d, want)
	}
	return found{}, errOther
}

// manifest describes one image, if it is one and for the platform.
func (r *reading) manifest(d v1.Descriptor, want v1.Platform) (found, error) {
	var m v1.Manifest
	if err := r.content().decode(d, &m); err != nil {
		return found{}, fmt.Errorf("manifest: %w", err)
	}
	switch m.Config.MediaType {
	case v1.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json":
	default:
		return found{}, errOther // a signature, a chart, …
	}
	var config v1.Image
	if err := r.content().decode(m.Config, &config); err != nil {
		return found{}, fmt.Errorf("configuration: %w", err)
	}
	if !fits(v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}, want) {
		return found{}, errOther
	}
	img, err := describe(r.content(), d)
	if err != nil {
		return found{}, err
	}
	d.Annotations, d.URLs = nil, nil
	d.Platform = &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
	return found{descriptor: d, image: img}, nil
}

// saved is an entry of manifest.json, as "docker save" writes it.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerArchive finds the images of a docker-archive and makes manifests for
// them. Their layers stay as they are.
func (r *reading) dockerArchive(list member, platform string) ([]found, error) {
	want, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	var entries []saved
	if err := r.decode(list, "manifest.json", &entries); err != nil {
		return nil, err
	}
	var out []found
	for _, e := range entries {
		d, err := r.convert(e)
		if err != nil {
			return nil, err
		}
		f, err := r.manifest(d, want)
		if errors.Is(err, errOther) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, tag := range e.RepoTags {
			name, err := Normalize(tag)
			if err != nil {
				return nil, fmt.Errorf("manifest.json: %w", err)
			}
			f.names = append(f.names, name)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, errclass.Errorf(errdefs.ErrNotFound, "the archive has no image for %s", platform)
	}
	return out, nil
}

// convert makes the manifest of an image that has none.
func (r *reading) convert(e saved) (v1.Descriptor, error) {
	config, err := r.resolve(e.Config)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("manifest.json: configuration: %w", err)
	}
	if named := configName(e.Config); named != "" && named != config.digest {
		return v1.Descriptor{}, errclass.Errorf(errdefs.ErrDataLoss, "configuration %s has digest %s", named, config.digest)
	}
	var said v1.Image
	if err := r.decode(config, "configuration", &said); err != nil {
		return v1.Descriptor{}, err
	}
	if len(said.RootFS.DiffIDs) != len(e.Layers) {
		return v1.Descriptor{}, errclass.Errorf(errdefs.ErrInvalidArgument, "configuration %s tells of %d layers, manifest.json of %d", config.digest, len(said.RootFS.DiffIDs), len(e.Layers))
	}
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: config.digest, Size: config.size},
	}
	for i, name := range e.Layers {
		layer, err := r.resolve(name)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("manifest.json: layer %d: %w", i, err)
		}
		media, diff, err := r.examine(layer)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("layer %d, %q: %w", i, clip(name), err)
		}
		if diff != said.RootFS.DiffIDs[i] {
			return v1.Descriptor{}, errclass.Errorf(errdefs.ErrDataLoss, "layer %d, %q, has DiffID %s, not %s", i, clip(name), diff, said.RootFS.DiffIDs[i])
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: media, Digest: layer.digest, Size: layer.size})
	}
	return r.add(m)
}

// configName is the digest that "docker save" names a configuration by.
func configName(name string) digest.Digest {
	hex, ok := strings.CutSuffix(name, ".json")
	d := digest.NewDigestFromEncoded(digest.SHA256, hex)
	if !ok || d.Validate() != nil {
		return ""
	}
	return d
}

// examine tells a layer's media type and computes its DiffID.
func (r *reading) examine(layer member) (string, digest.Digest, error) {
	f, err := os.Open(layer.file)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", "", err
	}
	switch magic = magic[:n]; {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		d, err := r.diffID(f, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
		return v1.MediaTypeImageLayerGzip, d, err
	case bytes.Equal(magic, []byte("\x28\xb5\x2f\xfd")):
		d, err := r.diffID(f, func(r io.Reader) (io.Reader, error) { return newZstd(r) })
		return v1.MediaTypeImageLayerZstd, d, err
	}
	return v1.MediaTypeImageLayer, layer.digest, nil
}

// diffID is the digest of what a compressed layer holds.
func (r *reading) diffID(f *os.File, open func(io.Reader) (io.Reader, error)) (digest.Digest, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	plain, err := open(f)
	d := digest.Canonical.Digester()
	if err == nil {
		_, err = io.Copy(d.Hash(), readerFunc(func(p []byte) (int, error) {
			if err := r.ctx(); err != nil {
				return 0, err
			}
			return plain.Read(p)
		}))
	}
	if ctxErr := r.ctx(); ctxErr != nil {
		return "", ctxErr
	}
	if err != nil {
		return "", errclass.Errorf(errdefs.ErrDataLoss, "decompress: %w", err)
	}
	return d.Digest(), nil
}

// add puts a manifest of ours beside what the archive holds.
func (r *reading) add(m v1.Manifest) (v1.Descriptor, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("make manifest: %w", err)
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	r.count++
	file := filepath.Join(r.dir, fmt.Sprint(r.count))
	if err := writeFile(file, raw); err != nil {
		return v1.Descriptor{}, err
	}
	r.blobs[d.Digest] = file
	return d, nil
}
