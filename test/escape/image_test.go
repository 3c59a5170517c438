package escape

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rightClasses are those about what a program may, and about what an image says
// of its users.
func rightClasses() []class {
	return []class{
		{
			name: "CVE-2022-29162", attack: "a capability given to an exec is inheritable: a file of the image turns it into a right of any user",
			off: []weak.Protection{weak.NoInheritable}, try: inherit,
		},
		{
			name: "containerd CVE-2024-40635", attack: "a user's number beyond 32 bits comes round to root's",
			off: []weak.Protection{weak.IDRange}, try: overflowUser,
		},
		{
			name: "passwd is a FIFO", attack: "/etc/passwd of the image is a FIFO: whoever reads it waits for ever",
			off: []weak.Protection{weak.UserFiles}, try: passwdFIFO,
		},
		{
			name: "passwd of 1 GB", attack: "/etc/passwd of the image is huge: whoever reads it runs out of memory",
			off: []weak.Protection{weak.UserFiles}, try: passwdHuge,
		},
		{
			name: "passwd is a link", attack: "/etc/passwd of the image is a link to a file of the host's, which is read in its place",
			off: []weak.Protection{weak.UserFiles}, try: passwdLink,
		},
	}
}

// inheritable is the file attribute that turns an inheritable capability into an
// effective one (struct vfs_cap_data, revision 2).
func inheritable(bit int) []byte {
	const revision2, effective = 0x02000000, 1
	var b []byte
	for _, word := range []uint32{revision2 | effective, 0, 1 << bit, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return b
}

func inherit(w *world) bool {
	b := w.bundle("sleep", "300")
	w.write(filepath.Join(b.root, "mark"), secret)
	dir := filepath.Join(b.root, "reader")
	w.must(os.Mkdir(dir, 0o755))
	copyFile(w.t, "/bin/busybox", filepath.Join(dir, "cat"))
	w.must(unix.Setxattr(filepath.Join(dir, "cat"), "security.capability", inheritable(unix.CAP_DAC_READ_SEARCH), 0))
	b.begin()
	r := w.oci(nil, "exec", "--user", "1000:1000", "--cap", "CAP_DAC_READ_SEARCH", b.id, "/reader/cat", "/mark")
	if !strings.Contains(r.out, secret) && !strings.Contains(r.out, "Permission denied") {
		w.t.Errorf("the reader: %s", r.out)
	}
	return strings.Contains(r.out, secret)
}

func overflowUser(w *world) bool {
	b := w.bundle("sleep", "300")
	w.write(filepath.Join(b.root, "mark"), secret)
	b.Process.User = specs.User{UID: 1000, GID: 1000}
	b.begin()
	return strings.Contains(w.oci(nil, "exec", "--user", strconv.FormatInt(1<<32, 10), b.id, "cat", "/mark").out, secret)
}

func passwdFIFO(w *world) bool {
	b := w.bundle("echo", "ran")
	w.must(unix.Mkfifo(filepath.Join(b.root, "etc/passwd"), 0o644))
	b.save()
	return w.within(8*time.Second, nil, b.args("run")...).late
}

func passwdHuge(w *world) bool {
	const size, much = 1 << 30, 512 << 10 // bytes; kB
	b := w.bundle("echo", "ran")
	name := filepath.Join(b.root, "etc/passwd")
	w.write(name, "")
	w.must(os.Truncate(name, size))
	r := b.make("run")
	return r.peak > much
}

func passwdLink(w *world) bool {
	b := w.bundle("env")
	w.write(filepath.Join(w.path("host"), "passwd"), "root:x:0:0:root:/"+secret+":/bin/sh\n")
	w.must(os.Symlink(filepath.Join(w.path("host"), "passwd"), filepath.Join(b.root, "etc/passwd")))
	return strings.Contains(b.make("run").out, secret)
}
