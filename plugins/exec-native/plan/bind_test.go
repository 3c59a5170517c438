package plan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// bindOf is an operation that binds a directory or file as it is now.
func bindOf(t *testing.T, source, target string, create uint32, attrs ...Attr) Bind {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		t.Fatal(err)
	}
	return Bind{
		Source: source, Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev), Inode: st.Ino, Peer: NoFD,
		Target: target, Create: create, Attrs: attrs,
	}
}

// TestBind: the source is the host's while the root covers "/" already, and the
// mounts are listed in the order of the plan.
func TestBind(t *testing.T) {
	root, source := box(t), t.TempDir()
	if err := errors.Join(os.WriteFile(source+"/file", []byte("host\n"), 0o644), os.MkdirAll(root+source, 0o755), os.WriteFile(root+source+"/file", []byte("image\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 1<<20).contain(root, allNamespaces)
	ro := Attr{Set: unix.MOUNT_ATTR_RDONLY}
	s.Add(StageMounts, bindOf(t, source, "/a/b", CreateDir, ro, Attr{Propagation: unix.MS_UNBINDABLE}),
		Filesystem{Type: "tmpfs", Target: "/c", Create: CreateDir}, bindOf(t, source+"/file", "/d", CreateFile),
		Bind{Source: source, Peer: NoFD, Target: "/e", Create: CreateDir}, Pivot{})
	got := s.sh("cat /a/b/file /d /e/file; touch /a/b/x 2>/dev/null || echo read-only; touch /e/x; cat /proc/self/mountinfo").output()
	table, ok := strings.CutPrefix(got, "host\nhost\nhost\nread-only\n")
	if !ok || !strings.Contains(table, "unbindable") {
		t.Errorf("%q", got)
	}
	var points []string
	for line := range strings.Lines(table) {
		points = append(points, strings.Fields(line)[4])
	}
	want := []string{"/", "/proc", "/dev", "/dev/pts", "/sys", "/dev/mqueue", "/a/b", "/c", "/d", "/e"}
	if !slices.Equal(points, want) {
		t.Errorf("in the order %v, want %v", points, want)
	}
	if _, err := os.Stat(source + "/x"); err != nil {
		t.Error(err)
	}
}

// TestBindRefuses: what is not what was looked at is not bound, and a source is
// never looked for inside the container.
func TestBindRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/source", 0o755); err != nil {
		t.Fatal(err)
	}
	replaced := bindOf(t, dir+"/source", "/a", CreateDir)
	if err := errors.Join(os.Rename(dir+"/source", dir+"/old"), os.Symlink("/etc", dir+"/source")); err != nil {
		t.Fatal(err)
	}
	at := func(source string) Bind { return Bind{Source: source, Peer: NoFD, Target: "/a", Create: CreateDir} }
	for name, c := range map[string]struct {
		ops   []Op
		errno syscall.Errno
	}{
		"replaced":        {[]Op{replaced, Pivot{}}, syscall.ESTALE},
		"gone":            {[]Op{at(filepath.Join(dir, "none")), Pivot{}}, syscall.ENOENT},
		"file upon dir":   {[]Op{bindOf(t, "/etc/passwd", "/bin", CreateFile), Pivot{}}, syscall.EINVAL},
		"not clean":       {[]Op{at("/etc/../etc"), Pivot{}}, syscall.EINVAL},
		"after the pivot": {[]Op{Pivot{}, at("/etc")}, syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t, Monitor{}, 1<<20).contain(box(t), allNamespaces)
			s.Add(StageMounts, c.ops...)
			s.sh("true").start()
			for {
				r, err := s.next()
				if err != nil {
					t.Fatal(err)
				}
				if r.Kind == ReportError && (!errors.Is(r.Err(), c.errno) || r.Op != KindBind) || r.Kind == ReportExited {
					t.Errorf("%+v: want %v of %v", r, c.errno, KindBind)
				}
				if r.Kind == ReportError || r.Kind == ReportExited {
					return
				}
			}
		})
	}
}

// TestBindPeer: a mount made in the container appears outside, though the init's
// own mounts are deaf and dumb.
func TestBindPeer(t *testing.T) {
	source := t.TempDir()
	err := errors.Join(unix.Mount("peers", source, "tmpfs", 0, ""), unix.Mount("", source, "", unix.MS_SHARED, ""), os.Mkdir(source+"/in", 0o755))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(source, unix.MNT_DETACH)
	for _, peer := range []bool{true, false} {
		s := newShim(t, Monitor{}, 1<<20).contain(box(t), allNamespaces)
		b := bindOf(t, source, "/m", CreateDir, Attr{Propagation: unix.MS_SHARED})
		if peer {
			b.Peer = s.add(tree(t, source))
		}
		s.Add(StageMounts, b, Pivot{})
		s.sh("mount -t tmpfs inside /m/in").start().until(ReportExited)
		table, _ := os.ReadFile("/proc/self/mountinfo")
		if got := strings.Contains(string(table), fmt.Sprintf(" %s/in ", source)); got != peer {
			t.Errorf("peer %v: what is mounted inside is outside: %v", peer, got)
		}
		_ = unix.Unmount(source+"/in", unix.MNT_DETACH)
	}
}
