package execdriver

import "path/filepath"

// CopySocket is the path of the socket that a Copy names, below the driver's Run
// directory. It is short, since a socket's address holds at most 107 bytes.
func CopySocket(driverRun, name string) string { return filepath.Join(driverRun, "copy-"+name) }
