package layertar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

const (
	xattrRecord = "SCHILY.xattr." // prefix of PAX records, as star and GNU tar write them
	capability  = "security.capability"
	opaqueXattr = "trusted.overlay.opaque"
)

// The form of security.capability, from linux/capability.h.
const (
	v2bytes, v3bytes = 20, 24
	v2, v3           = 0x02000000, 0x03000000
	revision         = 0xff000000
)

// Dropped is an extended attribute that a layer holds and the directory does
// not.
type Dropped struct {
	Entry, Xattr, Reason string
}

// isPrivate reports whether overlayfs keeps the attribute for itself.
func isPrivate(xattr string) bool {
	return strings.HasPrefix(xattr, "trusted.overlay.") || strings.HasPrefix(xattr, "user.overlay.")
}

// mapID maps an id of the container to the host's.
func mapID(maps []driver.IDMapping, id int64) (int, error) {
	if id < 0 || id >= math.MaxUint32 {
		return 0, fmt.Errorf("id %d: %w", id, errdefs.ErrInvalidArgument)
	}
	if len(maps) == 0 {
		return int(id), nil
	}
	for _, m := range maps {
		if off := id - int64(m.Container); off >= 0 && off < int64(m.Size) {
			return int(int64(m.Host) + off), nil
		}
	}
	return 0, fmt.Errorf("id %d is not in the id map: %w", id, errdefs.ErrInvalidArgument)
}

// unmapID maps an id of the host to the container's; one that it cannot have
// is the overflow id, as the kernel shows it inside.
func unmapID(maps []driver.IDMapping, id uint32) int {
	if len(maps) == 0 {
		return int(id)
	}
	for _, m := range maps {
		if off := int64(id) - int64(m.Host); off >= 0 && off < int64(m.Size) {
			return int(int64(m.Container) + off)
		}
	}
	return 65534
}

// MapOwner maps an owner of the container to the host's.
// InvalidArgument: an id that is not in the map.
func MapOwner(m driver.IDMap, uid, gid int) (int, int, error) {
	u, err := mapID(m.UIDs, int64(uid))
	if err != nil {
		return 0, 0, fmt.Errorf("user %w", err)
	}
	g, err := mapID(m.GIDs, int64(gid))
	if err != nil {
		return 0, 0, fmt.Errorf("group %w", err)
	}
	return u, g, nil
}

// mapXattr turns an attribute's value into what the host must store for a
// container with map m, or says why it cannot.
func mapXattr(name string, value []byte, m driver.IDMap) ([]byte, string) {
	switch {
	case isPrivate(name):
		return nil, "overlayfs keeps it for itself"
	case m.IsZero():
		return value, ""
	case strings.HasPrefix(name, "system.posix_acl_"):
		return nil, "holds ids, which are not mapped"
	case name == capability:
		return mapCapability(value, m)
	}
	return value, ""
}

// mapCapability makes file capabilities belong to the container's root:
// version 3 of capabilities(7) ends with that user's id on the host.
func mapCapability(value []byte, m driver.IDMap) ([]byte, string) {
	root, err := mapID(m.UIDs, 0)
	if err != nil {
		return nil, "the id map has no root"
	}
	if len(value) != v2bytes && len(value) != v3bytes {
		return nil, "of an unknown form"
	}
	magic := binary.LittleEndian.Uint32(value)
	if magic&revision != v2 && magic&revision != v3 {
		return nil, "of an unknown version"
	}
	out := make([]byte, v3bytes)
	copy(out, value[:v2bytes])
	binary.LittleEndian.PutUint32(out, magic&^uint32(revision)|v3)
	binary.LittleEndian.PutUint32(out[v2bytes:], uint32(root))
	return out, ""
}

// unmapXattr undoes mapXattr: capabilities of the container's root are anybody's.
func unmapXattr(name, value string, m driver.IDMap) string {
	root, err := mapID(m.UIDs, 0)
	if m.IsZero() || name != capability || err != nil || len(value) != v3bytes {
		return value
	}
	b := []byte(value)
	magic := binary.LittleEndian.Uint32(b)
	if magic&revision != v3 || binary.LittleEndian.Uint32(b[v2bytes:]) != uint32(root) {
		return value
	}
	binary.LittleEndian.PutUint32(b, magic&^uint32(revision)|v2)
	return string(b[:v2bytes])
}

// procPath is a path of name in the directory dir for calls that take no
// descriptor. Only its last component could be a link, and is not followed by
// the l-calls it is given to.
func procPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// setXattr sets one attribute of name in dir. It returns the reason when the
// filesystem or the file's kind does not take it.
func setXattr(dir int, name, xattr string, value []byte) (string, error) {
	err := unix.Lsetxattr(procPath(dir, name), xattr, value, 0)
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return err.Error(), nil
	}
	return "", err
}

// getXattrs reads the attributes of name in dir, without those of overlayfs.
func getXattrs(dir int, name string) (map[string]string, error) {
	path := procPath(dir, name)
	buf := make([]byte, 1024)
	n, err := unix.Llistxattr(path, buf)
	for errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 2*len(buf))
		n, err = unix.Llistxattr(path, buf)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil || n == 0 {
		return nil, err
	}
	out := make(map[string]string)
	for xattr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if isPrivate(xattr) {
			continue
		}
		value, err := getXattr(path, xattr)
		if errors.Is(err, unix.ENODATA) {
			continue // went away in between
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", xattr, err)
		}
		out[xattr] = string(value)
	}
	return out, nil
}

func getXattr(path, xattr string) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(path, xattr, buf)
	for errors.Is(err, unix.ERANGE) {
		if n, err = unix.Lgetxattr(path, xattr, nil); err != nil {
			break
		}
		buf = make([]byte, n+64)
		n, err = unix.Lgetxattr(path, xattr, buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}
