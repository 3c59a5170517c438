package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// imageName is what the image is run as.
const imageName = "busybox"

// testImage is busybox as an archive for gantry, and unpacked for crun.
type testImage struct {
	archive string
	rootfs  string
}

// entry is one file of the image.
type entry struct {
	name string
	dir  bool
	link string
	data []byte
	mode int64
}

// makeImage makes both from the machine's static busybox.
func makeImage(dir string) (testImage, error) {
	im := testImage{filepath.Join(dir, "busybox.tar"), filepath.Join(dir, "rootfs")}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return im, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return im, err
	}
	var entries []entry
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		entries = append(entries, entry{name: d, dir: true, mode: 0o755})
	}
	entries = append(entries, entry{name: "bin/busybox", data: program, mode: 0o755})
	for _, l := range []string{"true", "sh", "sleep", "cat", "echo", "id", "ip", "mount", "ps"} {
		entries = append(entries, entry{name: "bin/" + l, link: "busybox", mode: 0o777})
	}
	entries = append(entries,
		entry{name: "etc/passwd", data: []byte("root:x:0:0:root:/root:/bin/sh\n"), mode: 0o644},
		entry{name: "etc/group", data: []byte("root:x:0:\n"), mode: 0o644},
		// Docker makes these before it calls the runtime.
		entry{name: "etc/hosts", mode: 0o644}, entry{name: "etc/hostname", mode: 0o644}, entry{name: "etc/resolv.conf", mode: 0o644})
	if err := unpack(im.rootfs, entries); err != nil {
		return im, err
	}
	return im, archive(im.archive, entries)
}

func unpack(root string, entries []entry) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(root, e.name)
		var err error
		switch {
		case e.dir:
			err = os.MkdirAll(path, 0o755)
		case e.link != "":
			err = os.Symlink(e.link, path)
		default:
			err = os.WriteFile(path, e.data, os.FileMode(e.mode))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// archive writes the image as docker save does.
func archive(path string, entries []entry) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if e.dir {
			h.Typeflag = tar.TypeDir
		}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := errors.Join(w.WriteHeader(h), write(w, e.data)); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer.Bytes())}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": sum(config) + ".json", "RepoTags": []string{imageName + ":latest"}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w = tar.NewWriter(f)
	for _, part := range []entry{{name: sum(config) + ".json", data: config}, {name: "layer.tar", data: layer.Bytes()}, {name: "manifest.json", data: manifest}} {
		h := &tar.Header{Name: part.name, Mode: 0o644, Size: int64(len(part.data)), Typeflag: tar.TypeReg}
		if err := errors.Join(w.WriteHeader(h), write(w, part.data)); err != nil {
			return err
		}
	}
	return w.Close()
}

func write(w *tar.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
