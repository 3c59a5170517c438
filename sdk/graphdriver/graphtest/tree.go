package graphtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/gantryd/gantry/sdk/conform"
)

// tree describes every file below root in a line each: kind, mode, owner,
// content. Two trees are equal if their lines are.
func tree(t conform.T, root string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		line, err := describe(path, strings.TrimPrefix(path, root+"/"))
		lines = append(lines, line)
		return err
	})
	if err != nil {
		t.Fatalf("read the root filesystem: %v", err)
	}
	slices.Sort(lines)
	return lines
}

func describe(path, name string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%s %s %d:%d", name, info.Mode(), st.Uid, st.Gid)
	switch {
	case info.Mode().IsRegular():
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if len(content) > 64 {
			return line + " " + digestOf(content), nil
		}
		return fmt.Sprintf("%s %q", line, content), nil
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		return line + " -> " + to, err
	}
	return line, nil
}

// wantTree compares a tree with what it should be.
func wantTree(t conform.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s: missing\n\t%s", what, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s: unexpected\n\t%s", what, line)
		}
	}
}

// write writes a file of a root filesystem as a container would.
func write(t conform.T, path, content string) {
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Errorf("write into the root filesystem: %v", err)
	}
}

// read is the content of a file, or a word that says there is none.
func read(path string) string {
	content, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return "(absent)"
	}
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return string(content)
}
