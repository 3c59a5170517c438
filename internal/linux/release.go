package linux

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelSince reports whether the release of the running kernel is at least
// that. It only says what is likely: distributions change their kernels.
func kernelSince(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true // only a bad address fails
	}
	return releaseSince(unix.ByteSliceToString(u.Release[:]), major, minor)
}

// releaseSince compares the first two numbers of what uname -r says. A release
// that does not begin with numbers is taken for a new one.
func releaseSince(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	if i := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' }); i >= 0 {
		rest = rest[:i]
	}
	a, err := strconv.Atoi(first)
	b, also := strconv.Atoi(rest)
	if err != nil || also != nil {
		return true
	}
	return a > major || a == major && b >= minor
}
