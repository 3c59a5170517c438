// Package hard gives a private engine bad input and hard cases: what is asked
// for that cannot be, and programs that do not want to end. Errors must be
// clear, exit codes right, nothing may be left, and the engine must answer all
// the while.
package hard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// archiveEnv names the image that all tests load, helperEnv the directory with
// the program of testdata/ill.c; both are made once.
const (
	archiveEnv = "GANTRY_HARD_ARCHIVE"
	helperEnv  = "GANTRY_HARD_HELPER"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root")
		return 1
	}
	dir, err := os.MkdirTemp("", "gantry-hard-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	for _, prepare := range []func() error{rig.SweepDead, rig.Build, func() error { return makeImage(dir) }} {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func makeImage(dir string) error {
	file, err := rig.BusyboxArchive(dir)
	if err != nil {
		return err
	}
	helper := filepath.Join(dir, "helper")
	if err := os.Mkdir(helper, 0o755); err != nil {
		return err
	}
	cc := exec.Command("gcc", "-std=gnu11", "-Os", "-static", "-Wall", "-Wextra", "-Werror", "-s", "-o", filepath.Join(helper, "ill"), "testdata/ill.c")
	if out, err := cc.CombinedOutput(); err != nil {
		return fmt.Errorf("build the helper: %w: %s", err, out)
	}
	return errors.Join(os.Setenv(archiveEnv, file), os.Setenv(helperEnv, helper))
}
