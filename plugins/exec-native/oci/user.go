package oci

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"golang.org/x/sys/unix"
)

// Bounds of what is read from an image about its users.
const (
	userFileLimit = 16 << 20 // bytes of /etc/passwd, of /etc/group
	maxUserID     = math.MaxInt32
	maxGroups     = 1024 // plan.MaxGroups
)

// User is who the program runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, the primary group first
	Home     string
}

// FileReader reads a small regular file of the container's root.
type FileReader func(path string, limit int64) ([]byte, error)

// LookUpUser finds a user by the image's own files. The forms are "", "name",
// "uid", each with ":group" or ":gid". Numbers need no entry. As Docker does, a
// named group replaces the supplementary ones.
func LookUpUser(want string, read FileReader) (User, error) {
	passwd, err := userFile(read, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := userFile(read, "/etc/group")
	if err != nil {
		return User{}, err
	}
	name, groupName, hasGroup := strings.Cut(want, ":")
	u, login, err := findUser(name, passwd)
	if err != nil {
		return User{}, err
	}
	if hasGroup && groupName != "" {
		if u.GID, err = findGroup(groupName, group); err != nil {
			return User{}, err
		}
		u.Groups = []uint32{u.GID}
		return u, nil
	}
	u.Groups = []uint32{u.GID}
	for _, g := range memberships(login, group) {
		if !slices.Contains(u.Groups, g) {
			u.Groups = append(u.Groups, g)
		}
	}
	if len(u.Groups) > maxGroups {
		return User{}, errclass.Errorf(errdefs.ErrInvalidArgument, "user %q is in %d groups, at most %d", want, len(u.Groups), maxGroups)
	}
	return u, nil
}

// userFile reads one of the files; an image without it is fine.
func userFile(read FileReader, path string) ([]byte, error) {
	text, err := read(path, userFileLimit)
	switch {
	case err == nil:
		return text, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case errors.Is(err, linux.ErrNotRegular), errors.Is(err, linux.ErrTooLong), errors.Is(err, unix.ELOOP):
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "look up user: %w", err)
	}
	return nil, fmt.Errorf("look up user: %w", err)
}

// findUser finds a name or number in passwd; the login name is "" when a
// number has no entry.
func findUser(name string, passwd []byte) (u User, login string, err error) {
	if name == "" {
		name = "0"
	}
	id, numeric := parseID(name)
	for line := range bytes.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 4 {
			continue
		}
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 || (f[0] != name && !(numeric && uid == id)) {
			continue
		}
		home := "/"
		if len(f) > 5 && f[5] != "" {
			home = f[5]
		}
		return User{UID: uid, GID: gid, Home: home}, f[0], nil
	}
	if !numeric {
		return User{}, "", errclass.Errorf(errdefs.ErrInvalidArgument, "unable to find user %s: no matching entries in passwd file", name)
	}
	return User{UID: id, Home: "/"}, "", nil
}

// findGroup finds a name or number in group.
func findGroup(name string, group []byte) (uint32, error) {
	id, numeric := parseID(name)
	for line := range bytes.Lines(group) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if gid, ok := parseID(f[2]); ok {
			return gid, nil
		}
	}
	if !numeric {
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "unable to find group %s: no matching entries in group file", name)
	}
	return id, nil
}

// memberships lists the groups that name a login as a member.
func memberships(login string, group []byte) []uint32 {
	if login == "" {
		return nil
	}
	var out []uint32
	for line := range bytes.Lines(group) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), login) {
			continue
		}
		if gid, ok := parseID(f[2]); ok {
			out = append(out, gid)
		}
	}
	return out
}

// parseID reads an id, within what all tools understand.
func parseID(s string) (uint32, bool) {
	if weak.Off(weak.IDRange) {
		n, err := strconv.ParseUint(s, 10, 64)
		return uint32(n), err == nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= maxUserID
}
