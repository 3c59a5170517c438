// Package e2e runs what a user would type against a private engine on the real
// kernel: the stories of testdata, and what is too big for a story.
package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// imagesEnv names the directory of the archives, which are made once:
// layout/ and layout.tar (umoci), busybox.tar (OCI archive) and docker.tar
// (docker archive; both by skopeo).
const imagesEnv = "IMAGES"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root")
		return 1
	}
	dir, err := os.MkdirTemp("", "gantry-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	for _, prepare := range []func() error{rig.SweepDead, rig.Build, func() error { return makeImages(dir) }} {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func makeImages(dir string) error {
	layout, err := rig.BusyboxLayout(dir)
	if err != nil {
		return err
	}
	if err := rig.Archive(layout, "oci-archive", filepath.Join(dir, "busybox.tar"), rig.Busybox); err != nil {
		return err
	}
	if err := rig.Archive(layout, "docker-archive", filepath.Join(dir, "docker.tar"), "from-docker:1.2"); err != nil {
		return err
	}
	if err := rig.Tar(layout, filepath.Join(dir, "layout.tar")); err != nil {
		return err
	}
	return os.Setenv(imagesEnv, dir)
}

// start starts an engine that goes away with the test.
func start(t *testing.T, o rig.Options) *rig.Engine {
	t.Helper()
	e, err := rig.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.Account())
		}
		if err := e.Close(); err != nil {
			t.Errorf("take the engine away: %v", err)
		}
	})
	return e
}

// gantry runs the command and wants it to succeed.
func gantry(t *testing.T, e *rig.Engine, args ...string) string {
	t.Helper()
	out, err := e.CLI(t.Context(), args...).Output()
	if err != nil {
		t.Fatalf("gantry %s: %v", strings.Join(args, " "), rig.Explain(err))
	}
	return string(out)
}
