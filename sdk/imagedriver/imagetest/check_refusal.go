package imagetest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

func refusalChecks() []check {
	return []check{
		{Name: "load-truncated", Promise: "A truncated archive is DataLoss, and the store is as before.", Run: checkTruncated},
		{Name: "load-wrong-digest", Promise: "A blob whose digest does not match is DataLoss, and the error names it.", Run: checkWrongDigest},
		{Name: "load-missing-blob", Promise: "A blob that the archive lacks is DataLoss; no other image of the archive is stored.", Run: checkMissingBlob},
		{Name: "load-no-archive", Promise: "What is not an image archive is InvalidArgument.", Run: checkNoArchive},
		{Name: "load-hostile-names", Promise: "Names that would leave the store touch nothing outside of it.", Run: checkHostile},
	}
}

// refuse wants Load to fail with a class and to leave the store as it was.
func refuse(ctx context.Context, b *bench, r imagedriver.Load, class string, held ...string) error {
	b.Helper()
	before := treeOf(b, b.Config.Root)
	_, err := b.Driver().Load(ctx, r, nothing)
	conform.WantClass(b, "Load", err, class)
	wantItems(ctx, b, held...)
	if after := treeOf(b, b.Config.Root); after != before {
		b.Errorf("a refused Load has changed the store from\n%sto\n%s", before, after)
	}
	return err
}

// treeOf lists the files of a store that hold something: empty directories
// and files, locks for instance, do not count.
func treeOf(t conform.T, root string) string {
	var out strings.Builder
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out.WriteString("\t" + strings.TrimPrefix(path, root) + " " + digestOf(raw) + "\n")
		}
		return err
	})
	if err != nil {
		t.Errorf("read the store: %v", err)
	}
	return out.String()
}

func checkTruncated(ctx context.Context, b *bench) {
	other := two().build(b)
	load(ctx, b, saveOCI(b, other))
	m := one().build(b)
	for _, c := range []struct{ raw, inside []byte }{
		{packTar(b, ociMembers(b, m)), m.layers[1].data}, {packTar(b, dockerMembers(b, m)), m.plain[1]},
	} {
		// In the middle of a blob: at a block's border a tar without its end
		// looks whole.
		cut := bytes.Index(c.raw, c.inside) + len(c.inside)/2
		refuse(ctx, b, save(b, c.raw[:cut]), "data-loss", other.id())
		packed := compress(c.raw)
		refuse(ctx, b, save(b, packed[:len(packed)/2]), "data-loss", other.id())
	}
	wantOneMore(ctx, b, m, other)
}

// wantOneMore loads an image beside another one: no refusal was a hindrance.
func wantOneMore(ctx context.Context, b *bench, m, other made) {
	b.Helper()
	images := load(ctx, b, saveOCI(b, m))
	if len(images) != 1 {
		b.Fatalf("Load found %d images, want 1", len(images))
	}
	wantImage(b, images[0], m)
	wantItems(ctx, b, m.id(), other.id())
}

func checkWrongDigest(ctx context.Context, b *bench) {
	other := two().build(b)
	load(ctx, b, saveOCI(b, other))
	m := one().build(b)
	for _, victim := range []blob{m.layers[1], m.config, m.manifest} {
		members := ociMembers(b, m)
		for i := range members {
			if members[i].name == blobName(victim) {
				members[i].data = bytes.Clone(members[i].data)
				members[i].data[len(members[i].data)/2] ^= 1
			}
		}
		err := refuse(ctx, b, save(b, packTar(b, members)), "data-loss", other.id())
		if err != nil && !strings.Contains(err.Error(), strings.TrimPrefix(digestOf(victim.data), "sha256:")) {
			b.Errorf("the error does not name the blob %s: %v", digestOf(victim.data), err)
		}
	}
	wantOneMore(ctx, b, m, other)
}

func checkMissingBlob(ctx context.Context, b *bench) {
	m, other := one().build(b), two().build(b)
	for _, missing := range []blob{m.layers[1], m.config, m.manifest} {
		var members []member
		for _, f := range ociMembers(b, other, m) {
			if f.name != blobName(missing) {
				members = append(members, f)
			}
		}
		refuse(ctx, b, save(b, packTar(b, members)), "data-loss")
	}
}

func checkNoArchive(ctx context.Context, b *bench) {
	for _, raw := range [][]byte{
		[]byte(strings.Repeat("this is not a tar\n", 100)),
		packTar(b, []member{{"readme", []byte("a tar, but not an image")}}),
		compress(packTar(b, []member{{"readme", []byte("a tar, but not an image")}})),
		packTar(b, []member{{"manifest.json", []byte(`{"not": "a list"`)}}),
	} {
		refuse(ctx, b, save(b, raw), "invalid-argument")
	}
}

// checkHostile leaves it to the driver to refuse a member with a bad name or
// to pass it over; only the outside counts, and the class of a refusal.
func checkHostile(ctx context.Context, b *bench) {
	outside := b.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		b.Fatalf("make a file: %v", err)
	}
	m := one().build(b)
	up := "../../../../../../../../../.." + outside
	for _, name := range []string{up + "/evil", up + "/victim", "blobs/sha256/../../" + up + "/evil", outside + "/evil"} {
		members := append(ociMembers(b, m), member{name, []byte("evil")})
		if _, err := b.Driver().Load(ctx, save(b, packTar(b, members)), nothing); err != nil {
			conform.WantClass(b, "Load", err, "invalid-argument")
		}
		wantOutside(b, outside, victim)
	}
	// A manifest.json whose names lead out of the archive.
	config := strings.TrimPrefix(m.id(), "sha256:") + ".json"
	for _, layer := range []string{up + "/victim", "/etc/passwd", "../layer.tar"} {
		manifest := encode(b, []any{map[string]any{"Config": config, "RepoTags": []string{m.name}, "Layers": []string{layer, layer}}})
		raw := packTar(b, []member{{config, m.config.data}, {"manifest.json", manifest}})
		if _, err := b.Driver().Load(ctx, save(b, raw), nothing); err == nil {
			b.Errorf("Load took a manifest.json that names %s", layer)
		}
		wantOutside(b, outside, victim)
	}
}

func wantOutside(b *bench, outside, victim string) {
	b.Helper()
	if raw, err := os.ReadFile(victim); err != nil || string(raw) != "untouched" {
		b.Errorf("a file outside of the store was changed: %q, %v", raw, err)
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
		b.Errorf("something was made outside of the store: %v, %v", names, err)
	}
}
