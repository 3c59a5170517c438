package stdio

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// mostAddress is how long a unix socket's path may be (sun_path without its NUL,
// unix(7)).
const mostAddress = 107

// DialSocket connects to a unix socket by a path of any length: where an address
// does not hold it, the way goes through its directory's descriptor.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= mostAddress {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open directory of socket: %w", err)
	}
	defer dir.Close()
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}
