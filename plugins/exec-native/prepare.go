package execnative

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// Defaults of the log.
const (
	logName         = "output.log"
	defaultLogBytes = 20 << 20
	defaultLogFiles = 5
	leastLogBytes   = 4096
	mostLogFiles    = 99
	defaultBuffer   = 1 << 20
	leastBuffer     = 64 << 10
	mostBuffer      = 64 << 20
	longestAge      = 10 * 365 * 24 * time.Hour
)

// logOf reads how output is to be kept; nil for not at all.
func logOf(c execdriver.LogConfig) (*plan.Log, error) {
	switch c.Driver {
	case "none":
		return nil, nil
	case "", "local", "json-file": // the format is ours under either name
	default:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Stdio.Log.Driver %q: want local, json-file or none", c.Driver)
	}
	log := &plan.Log{Name: logName, MaxBytes: defaultLogBytes, MaxFiles: defaultLogFiles, Offset: c.From}
	if c.MaxBytes != 0 {
		log.MaxBytes = uint64(c.MaxBytes)
	}
	if c.MaxFiles != 0 {
		log.MaxFiles = uint32(c.MaxFiles)
	}
	if c.MaxBytes < 0 || log.MaxBytes < leastLogBytes || c.MaxFiles < 0 || c.MaxFiles > mostLogFiles {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Stdio.Log of %d files of %d bytes: want 1 to %d of at least %d", c.MaxFiles, c.MaxBytes, mostLogFiles, leastLogBytes)
	}
	return log, nil
}

// policyOf says more about a log; nil for no more.
func policyOf(c execdriver.LogConfig) (*plan.LogPolicy, error) {
	if !c.NonBlocking && c.MaxAge == 0 && c.MaxBufferBytes == 0 {
		return nil, nil
	}
	p := plan.LogPolicy{NonBlocking: c.NonBlocking, BufferBytes: defaultBuffer, MaxAge: uint32(c.MaxAge / time.Second)}
	if n := c.MaxBufferBytes; n != 0 {
		if n < leastBuffer || n > mostBuffer || !c.NonBlocking {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Stdio.Log.MaxBufferBytes %d: want %d to %d, of non-blocking delivery", n, leastBuffer, mostBuffer)
		}
		p.BufferBytes = uint32(n)
	}
	if a := c.MaxAge; a != 0 && (a < time.Second || a > longestAge) {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Stdio.Log.MaxAge %v: want 1s to %v", a, longestAge)
	}
	return &p, nil
}

// prepareLog opens the directory of the container's log, makes the file, which
// takes the disk longer than the shim has time, and finds the offset where an
// earlier run has ended.
func (d *native) prepareLog(one *run, b *oci.Files, log *plan.Log, a *ahead) error {
	dir := filepath.Dir(one.log)
	named := a.nameLog(dir)
	var err error
	if !named {
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, os.ErrExist) {
		var end uint64
		end, err = stdio.RepairLog(one.log)
		log.Offset = max(log.Offset, end)
	}
	if err != nil {
		return fmt.Errorf("prepare log: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("prepare log: %w", err)
	}
	log.Dir = b.Add(f)
	if named {
		return nil
	}
	fd, err := unix.Openat(int(f.Fd()), logName, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("prepare log: %w", err)
	}
	return unix.Close(fd)
}
