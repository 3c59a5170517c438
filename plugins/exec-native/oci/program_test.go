package oci

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestProgramPaths(t *testing.T) {
	for _, c := range []struct {
		program, path string
		want          []string
	}{
		{"/bin/x", "/a", []string{"/bin/x"}},
		{"./x", "/a", []string{"./x"}},
		{"x", "/a:/b/", []string{"/a/x", "/b/x"}},
		{"x", "::rel:.", nil},
	} {
		got, err := ProgramPaths(&specs.Process{Args: []string{c.program}, Env: []string{"PATH=" + c.path}})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s in %s: %q %v, want %q", c.program, c.path, got, err, c.want)
		}
	}
	long := "PATH=" + strings.Repeat("/a:", 65)
	if _, err := ProgramPaths(&specs.Process{Args: []string{"x"}, Env: []string{long}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a PATH of 65 directories: %v", err)
	}
}
