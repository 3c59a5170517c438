package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// binEnv names a directory of programs that are taken as they are.
const binEnv = "GANTRY_BIN"

// Build builds the programs from what is in the tree, and lets engines that are
// started from now on run them. Several test programs may do so at once: one
// builds, the others find it done. It belongs into TestMain.
func Build() error {
	if os.Getenv(binEnv) != "" {
		return nil
	}
	root, err := Module()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return os.Setenv(binEnv, dir)
}

// Bin is the directory of the programs.
func Bin() (string, error) {
	dir := os.Getenv(binEnv)
	if dir == "" {
		return "", errors.New("the programs are not built: call rig.Build in TestMain")
	}
	return filepath.Abs(dir)
}

// Module is the directory of the module's sources.
func Module() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("the sources' place is not known: built with -trimpath?")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file))), nil
}
