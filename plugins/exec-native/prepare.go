package execnative

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"golang.org/x/sys/unix"
)

// Defaults of the log.
const (
	logName         = "output.log"
	defaultLogBytes = 20 << 20
	defaultLogFiles = 5
	leastLogBytes   = 4096
	mostLogFiles    = 99
)

// prepareNetwork opens the network namespace to join, and makes sure that it is
// the one meant: a path below /proc may have come to mean another.
func (d *native) prepareNetwork(r execdriver.Start, b *oci.Files, h *handles) error {
	if r.Network.Mode != netdriver.NamespacePath {
		return nil
	}
	f, err := os.OpenFile(r.Network.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return driver.Errorf(errdefs.ErrInvalidArgument, "open network namespace: %w", err)
	}
	h.Network = b.Add(f)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return driver.Errorf(errdefs.ErrInvalidArgument, "Network.Path %s: not a namespace", r.Network.Path)
	}
	if r.Network.Inode != 0 && st.Ino != r.Network.Inode {
		return driver.Errorf(errdefs.ErrInvalidArgument, "Network.Path %s: inode %d, not %d: another namespace", r.Network.Path, st.Ino, r.Network.Inode)
	}
	return nil
}

// logOf reads how output is to be kept; nil for not at all.
func logOf(c execdriver.LogConfig) (*plan.Log, error) {
	switch c.Driver {
	case "none":
		return nil, nil
	case "", "local":
	default:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Stdio.Log.Driver %q: want local or none", c.Driver)
	}
	log := &plan.Log{Name: logName, MaxBytes: defaultLogBytes, MaxFiles: defaultLogFiles}
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

// prepareLog opens the directory of the container's log, and finds the offset
// where an earlier run has ended.
func (d *native) prepareLog(one *run, b *oci.Files, log *plan.Log) error {
	dir := filepath.Dir(one.log)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		log.Offset, err = stdio.RepairLog(one.log)
	}
	if err != nil {
		return fmt.Errorf("prepare log: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("prepare log: %w", err)
	}
	log.Dir = b.Add(f)
	return nil
}
