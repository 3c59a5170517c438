// Package crash kills the engine, its drivers and its shims at named points,
// and holds the machine against the log afterwards.
package crash

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// archiveEnv names the image that all tests load, otherEnv one with another
// layer; both are made once.
const (
	archiveEnv = "GANTRY_CRASH_ARCHIVE"
	otherEnv   = "GANTRY_CRASH_OTHER"
	otherName  = "docker.io/library/other:latest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gantry-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	for _, prepare := range []func() error{rig.SweepDead, rig.Build, func() error {
		file, err := rig.BusyboxArchive(dir)
		if err != nil {
			return err
		}
		other, err := rig.OtherArchive(dir, otherName)
		if err != nil {
			return err
		}
		return errors.Join(os.Setenv(archiveEnv, file), os.Setenv(otherEnv, other))
	}} {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}
