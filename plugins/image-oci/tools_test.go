package oci

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

// TestOtherTools has skopeo and umoci make archives for us and read our store.
func TestOtherTools(t *testing.T) {
	for _, tool := range []string{"skopeo", "umoci", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED with other tools: %v", err)
		}
	}
	dir := t.TempDir()
	run := func(name string, args ...string) string { return runIn(t, dir, name, args...) }
	busybox := makeArchives(t, dir)
	d, err := New(driver.Config{EngineID: "e1", Root: filepath.Join(dir, "root")})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	load := func(name string) imagedriver.Image {
		t.Helper()
		images, err := d.Load(ctx, imagedriver.Load{Archive: filepath.Join(dir, name)}, nil)
		if err != nil || len(images) != 1 {
			t.Fatalf("load %s: %d images, %v", name, len(images), err)
		}
		return images[0]
	}
	docker, oci, plain := load("docker.tar"), load("oci.tar"), load("layout.tar.gz")
	if !slices.Equal(docker.Names, []string{"docker.io/library/busybox:1"}) || !slices.Equal(oci.Names, []string{"docker.io/library/busybox:2"}) || plain.Names != nil {
		t.Errorf("names %q %q %q", docker.Names, oci.Names, plain.Names)
	}
	if oci.ID != plain.ID || len(docker.Layers) != 1 || docker.Layers[0].ChainID != oci.Layers[0].ChainID {
		t.Errorf("not one image:\n%+v\n%+v\n%+v", docker, oci, plain)
	}
	if !slices.Equal(oci.Config.Cmd, []string{"/bin/sh"}) || !slices.Equal(oci.Config.Env, []string{"PATH=/bin"}) {
		t.Errorf("configuration %+v", oci.Config)
	}
	for name, want := range map[string]imagedriver.Image{"1": docker, "2": oci} {
		var seen struct{ Layers []string }
		raw := run("skopeo", "inspect", "oci:root/layout:docker.io/library/busybox:"+name)
		if err := json.Unmarshal([]byte(raw), &seen); err != nil || !slices.Equal(seen.Layers, []string{want.Layers[0].Digest}) {
			t.Errorf("skopeo sees %s, %v", raw, err)
		}
	}
	run("skopeo", "copy", "oci:root/layout:docker.io/library/busybox:2", "dir:copied")
	if err := d.Name(ctx, oci.ID, []string{"docker.io/library/other:3"}); err != nil {
		t.Fatal(err)
	}
	run("umoci", "unpack", "--image", "root/layout:docker.io/library/other:3", "again")
	if got, err := os.ReadFile(filepath.Join(dir, "again/rootfs/bin/busybox")); err != nil || len(got) != len(busybox) {
		t.Errorf("umoci unpacked %d bytes, %v", len(got), err)
	}
	if list := run("umoci", "list", "--layout", "root/layout"); !strings.Contains(list, "docker.io/library/other:3") {
		t.Errorf("umoci lists %s", list)
	}
}

func runIn(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// makeArchives has the tools make an image in three forms, and returns the
// program in it.
func makeArchives(t *testing.T, dir string) []byte {
	t.Helper()
	run := func(name string, args ...string) { runIn(t, dir, name, args...) }
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		busybox = []byte("not a program, but a file")
	}
	run("umoci", "init", "--layout", "made")
	run("umoci", "new", "--image", "made:latest")
	run("umoci", "unpack", "--image", "made:latest", "bundle")
	for name, data := range map[string][]byte{"busybox": busybox, "sh": nil} {
		file := filepath.Join(dir, "bundle/rootfs/bin", name)
		os.MkdirAll(filepath.Dir(file), 0o755)
		if err := os.WriteFile(file, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run("umoci", "repack", "--image", "made:latest", "bundle")
	run("umoci", "config", "--image", "made:latest", "--config.cmd", "/bin/sh", "--config.env", "PATH=/bin")
	run("skopeo", "copy", "oci:made:latest", "docker-archive:docker.tar:busybox:1")
	run("skopeo", "copy", "oci:made:latest", "oci-archive:oci.tar:docker.io/library/busybox:2")
	run("tar", "-C", "made", "-czf", "layout.tar.gz", ".")
	return busybox
}
