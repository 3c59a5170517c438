package layertar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// OpenBlob opens a layer's archive and tells its size. Only a regular file is
// taken: opening anything else might block.
// NotFound: there is none. InvalidArgument: it is no regular file.
func OpenBlob(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("open layer archive: %w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open layer archive: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is %v: %w", path, fi.Mode().Type(), errdefs.ErrInvalidArgument)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("open layer archive: %w", err)
	}
	return f, fi.Size(), nil
}

// CopyAttributes gives the directory to owner (mapped from the container's to the
// host's by m), mode and extended attributes of the directory from.
// InvalidArgument: the owner is not in m.
func CopyAttributes(from, to *os.File, m driver.IDMap) error {
	if err := copyAttributes(int(from.Fd()), int(to.Fd()), m); err != nil {
		return fmt.Errorf("copy attributes of %s: %w", from.Name(), class(err))
	}
	return nil
}
