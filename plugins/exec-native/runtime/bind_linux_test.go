package runtime

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostTmpfs mounts a tmpfs on a new directory for the time of a test.
func hostTmpfs(t *testing.T, dir string, propagation uintptr) string {
	t.Helper()
	err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, ""), unix.Mount("", dir, "", propagation, ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// bindMount is a bind mount of a specification.
func bindMount(at, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: at, Type: "bind", Source: source, Options: options}
}

// mountPoints are the mount points of a mount table in its order; a mount is after
// the one that it is on.
func mountPoints(t *testing.T, table string) (points []string) {
	t.Helper()
	var numbers []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		if len(numbers) > 0 && !slices.Contains(numbers, f[1]) {
			t.Errorf("before the mount that it is on: %s", line)
		}
		numbers, points = append(numbers, f[0]), append(points, f[4])
	}
	return points
}

// TestMountsInOrder: mountinfo lists the mounts in the specification's order,
// bind mounts of all kinds among those of the container's own namespaces. Before
// Linux 6.8 that is how they were attached, since then how old they are.
func TestMountsInOrder(t *testing.T) {
	source := hostTmpfs(t, t.TempDir(), unix.MS_PRIVATE)
	shared := hostTmpfs(t, t.TempDir(), unix.MS_SHARED)
	hostTmpfs(t, source+"/below", unix.MS_PRIVATE)
	err := errors.Join(os.WriteFile(source+"/file", nil, 0o644), os.Symlink(source+"/below", source+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t, "cat /proc/self/mountinfo")
	tmpfs := func(at string) specs.Mount { return specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs"} }
	for i, m := range []specs.Mount{
		bindMount("dir", source, "bind", "ro"), bindMount("tree", source, "rbind"), bindMount("file", source+"/file", "bind"),
		bindMount("link", source+"/link", "rbind"), bindMount("unbindable", source, "rbind", "runbindable"),
		bindMount("slave", shared, "rbind", "rslave"), bindMount("shared", shared, "bind", "shared"), bindMount("rshared", shared, "rbind", "rshared"),
		bindMount("not shared", source, "rbind", "rshared"),
	} {
		m.Destination = "/m/" + m.Destination
		b.spec.Mounts = slices.Insert(b.spec.Mounts, 2*i, m, tmpfs(fmt.Sprintf("/t%d", i)))
	}
	// /proc is late: nothing may depend on its being there.
	o := b.run()
	if o.code != 0 {
		t.Fatal(o)
	}
	points := mountPoints(t, o.out)
	last, before := -1, "the root"
	for _, m := range b.spec.Mounts {
		at := slices.Index(points, strings.ReplaceAll(m.Destination, " ", `\040`))
		if at < last {
			t.Errorf("%s is listed as number %d, %s before it as %d", m.Destination, at, before, last)
		}
		last, before = max(at, last), m.Destination
	}
	if !slices.Contains(points, "/m/tree/below") || slices.Contains(points, "/m/dir/below") {
		t.Errorf("mounts below the source: %v", points)
	}
}

// TestPeersOfTheHost: what is mounted in a shared bind mount appears on the host,
// also where only a mount below the source is shared.
func TestPeersOfTheHost(t *testing.T) {
	for name, top := range map[string]uintptr{"one": unix.MS_SHARED, "with one below": unix.MS_PRIVATE} {
		t.Run(name, func(t *testing.T) {
			source := hostTmpfs(t, t.TempDir(), top)
			place := "/in"
			if top == unix.MS_PRIVATE {
				hostTmpfs(t, source+"/below", unix.MS_SHARED)
				place = "/below/in"
			}
			if err := os.Mkdir(source+place, 0o755); err != nil {
				t.Fatal(err)
			}
			b := newBox(t, "mount -t tmpfs inside /m"+place+" && sleep 100")
			b.spec.Process.Capabilities.Bounding = append(b.spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
			b.spec.Process.Capabilities.Permitted, b.spec.Process.Capabilities.Effective = b.spec.Process.Capabilities.Bounding, b.spec.Process.Capabilities.Bounding
			b.addMount(bindMount("/m", source, "rbind", "rshared"))
			b.start()
			awaitText(t, "/proc/self/mountinfo", source+place+" ")
			_ = unix.Unmount(source+place, unix.MNT_DETACH)
		})
	}
}

// TestBindSources: sources that have no name of their own, or that only we can
// name.
func TestBindSources(t *testing.T) {
	dir := t.TempDir()
	gone, odd := dir+"/gone", dir+"/a (deleted)"
	err := errors.Join(os.Mkdir(gone, 0o755), os.WriteFile(gone+"/file", []byte("gone\n"), 0o644), os.Mkdir(odd, 0o755),
		os.WriteFile(odd+"/file", []byte("odd\n"), 0o644),
		os.Symlink("../../../../../../../../../../.."+odd, dir+"/up"), os.Symlink("a (deleted)", dir+"/relative"))
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(gone + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	ownFile, err := os.Open(odd + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer ownFile.Close()
	b := newBox(t, "cat /m/*/file /f /h; ls /root-of-host; cat '/root-of-host"+odd+"/file'")
	// The image has the same names: links of the host must not lead here.
	if err := os.MkdirAll(b.bundle+"/rootfs"+odd, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, source := range []string{odd, dir + "/up", dir + "/relative", dir + "/../" + dir[strings.LastIndex(dir, "/")+1:] + "//up/."} {
		b.addMount(bindMount(fmt.Sprintf("/m/%d", i), source, "bind"))
	}
	b.addMount(bindMount("/f", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ownFile.Fd()), "bind"))
	b.addMount(bindMount("/h", "/proc/self/mounts", "bind")) // the runtime's own
	b.addMount(bindMount("/root-of-host", "/", "rbind"))
	o := b.run()
	if n := strings.Count(o.out, "odd\n"); n != 6 || !strings.Contains(o.out, "etc\n") {
		t.Errorf("%d times what is expected: %+v", n, o)
	}
	for _, source := range []string{fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), held.Fd()), dir + "/none"} {
		b := newBox(t, "cat /f")
		b.addMount(bindMount("/f", source, "bind"))
		if o := b.run(); o.code == 0 || !strings.Contains(o.err, "/f: ") || !strings.Contains(o.err, "no such file or directory") {
			t.Errorf("%s: %+v", source, o)
		}
	}
}

// TestBindAlone: a bind mount that is not recursive shows nothing of what the host
// has mounted below its source, and neither is a user looked up in that.
func TestBindAlone(t *testing.T) {
	source := t.TempDir()
	err := errors.Join(os.WriteFile(source+"/passwd", []byte("root:x:0:0::/underneath:\n"), 0o644),
		os.WriteFile(source+"/other", []byte("root:x:0:0::/mounted:\n"), 0o644), unix.Mount(source+"/other", source+"/passwd", "", unix.MS_BIND, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(source+"/passwd", unix.MNT_DETACH)
	for option, want := range map[string]string{"bind": "/underneath", "rbind": "/mounted"} {
		b := newBox(t, "echo $HOME; cat /etc/passwd")
		b.addMount(bindMount("/etc", source, option))
		if o := b.run(); o.out != want+"\nroot:x:0:0::"+want+":\n" {
			t.Errorf("%s: %+v", option, o)
		}
	}
}
