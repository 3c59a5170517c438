package execnative

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// copyOf asks for a copy of a running run, or of the container that it was.
func copyOf(r execdriver.Start, path string, running bool) execdriver.Copy {
	c := execdriver.Copy{Key: r.Key, Rootfs: r.Rootfs, Mounts: r.Mounts, IDMap: r.IDMap, Path: path, Socket: fmt.Sprintf("%016x", time.Now().UnixNano())}
	if !running {
		c.Run = 0
	}
	return c
}

// dialCopy connects to a copy as soon as it listens; nil when it has ended before.
func (b *bench) dialCopy(c execdriver.Copy, done <-chan error) (net.Conn, error) {
	for {
		conn, err := stdio.DialSocket(context.Background(), execdriver.CopySocket(b.cfg.Run, c.Socket))
		if err == nil {
			return conn, nil
		}
		select {
		case err := <-done:
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
}

// copyOut lists what a copy sends: name, type, owner and content.
func (b *bench) copyOut(c execdriver.Copy) ([]string, error) {
	done := make(chan error, 1)
	go func() { done <- b.d.CopyOut(context.Background(), c) }()
	conn, err := b.dialCopy(c, done)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var out []string
	tr := tar.NewReader(conn)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, errors.Join(err, <-done)
		}
		text, _ := io.ReadAll(tr)
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %c %o %d:%d %s%s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, text)))
	}
	return out, <-done
}

// entry is one of a tar that is copied in.
type entry struct {
	tar.Header
	text string
}

func (b *bench) copyIn(c execdriver.Copy, entries ...entry) error {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size = int64(len(e.text))
		if err := tw.WriteHeader(&e.Header); err != nil {
			return err
		}
		tw.Write([]byte(e.text))
	}
	tw.Close()
	done := make(chan error, 1)
	go func() { done <- b.d.CopyIn(context.Background(), c) }()
	conn, err := b.dialCopy(c, done)
	if err != nil {
		return err
	}
	_, _ = conn.Write(buf.Bytes()) // the driver's answer says what is wrong
	conn.(*net.UnixConn).CloseWrite()
	err = <-done
	conn.Close()
	return err
}

func file(name, text string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o640, Uid: 7, Gid: 8, ModTime: time.Unix(1000, 0)}, text}
}

// TestCopy of a running container and of one that has ended.
func TestCopy(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	r := b.request("mkdir -p /data/sub; echo one > /data/f; ln -s f /data/l; ln /data/f /data/h; mkfifo /data/p; echo two > /data/sub/g; chmod 750 /data/sub; chown 5:6 /data/f; mkdir /tmp/ready; sleep 1000")
	b.links("mkfifo", "ln", "chown")
	r.Mounts = []driver.Mount{{Type: "bind", Source: host, Target: "/volume", Options: []string{"rbind"}}, {Type: "bind", Source: host, Target: "/locked", Options: []string{"rbind", "ro"}}}
	if err := os.WriteFile(host+"/v", []byte("volume"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is ready", func() bool {
		_, err := b.d.Stat(context.Background(), copyOf(r, "/tmp/ready", true))
		return err == nil
	})
	for _, running := range []bool{true, false} {
		if !running {
			if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
				t.Fatal(err)
			}
			b.wait(r.Key)
			if err := b.d.Release(context.Background(), r.Key); err != nil {
				t.Fatal(err)
			}
		}
		b.checkCopies(r, running)
		if _, err := os.Stat(host + "/mine"); err != nil {
			t.Errorf("running %v: what was copied into a volume: %v", running, err)
		}
		os.Remove(host + "/mine")
	}
	if left, _ := filepath.Glob(b.cfg.Run + "/copy-*"); len(left) > 0 {
		t.Errorf("sockets left: %v", left)
	}
}

func (b *bench) checkCopies(r execdriver.Start, running bool) {
	t := b.t
	t.Helper()
	out, err := b.copyOut(copyOf(r, "/data", running))
	want := []string{"data/ 5 755 0:0", "data/f 0 644 5:6 one", "data/h 1 644 5:6 data/f", "data/l 2 777 0:0 f", "data/p 6 644 0:0", "data/sub/ 5 750 0:0", "data/sub/g 0 644 0:0 two"}
	if err != nil || !slices.Equal(out, want) {
		t.Errorf("running %v: %q %v", running, out, err)
	}
	if out, err := b.copyOut(copyOf(r, "/volume/v", running)); err != nil || !slices.Equal(out, []string{"v 0 644 0:0 volume"}) {
		t.Errorf("running %v: a volume's file: %q %v", running, out, err)
	}
	whole := copyOf(r, "/", running)
	whole.WholeRoot = true
	out, err = b.copyOut(whole)
	if err != nil || !slices.Contains(out, "data/f 0 644 5:6 one") || slices.ContainsFunc(out, func(l string) bool {
		return strings.HasPrefix(l, "volume/v") || strings.HasPrefix(l, "proc/1") || strings.HasPrefix(l, "/") || strings.HasPrefix(l, ".")
	}) {
		t.Errorf("running %v: the whole root: %q %v", running, out, err)
	}
	for _, path := range []string{"/nope", "/data/f/x", "/nope/x"} {
		if _, err := b.copyOut(copyOf(r, path, running)); !errdefs.IsNotFound(err) {
			t.Errorf("running %v: %s: %v", running, path, err)
		}
		if err := b.copyIn(copyOf(r, path, running), file("x", "")); !errdefs.IsNotFound(err) {
			t.Errorf("running %v: into %s: %v", running, path, err)
		}
	}
	if st, err := b.d.Stat(context.Background(), copyOf(r, "/data/l", running)); err != nil || st.Name != "l" || st.Link != "/data/f" || st.Mode&0o170000 != 0o120000 {
		t.Errorf("running %v: stat of a link: %+v %v", running, st, err)
	}
	// In: owners are root's or the tar's, a file is replaced, a directory stays.
	c := copyOf(r, "/data", running)
	if err := b.copyIn(c, entry{tar.Header{Typeflag: tar.TypeDir, Name: "sub", Mode: 0o750, ModTime: time.Unix(2000, 0)}, ""}, file("sub/new", "fresh"), file("l", "no link")); err != nil {
		t.Errorf("running %v: copy in: %v", running, err)
	}
	c = copyOf(r, "/data/sub", running)
	c.KeepIDs = true
	if err := b.copyIn(c, file("kept", "mine"), file("deep/er", "x")); err != nil {
		t.Errorf("running %v: copy in: %v", running, err)
	}
	out, err = b.copyOut(copyOf(r, "/data", running))
	for _, want := range []string{"data/l 0 640 0:0 no link", "data/sub/g 0 644 0:0 two", "data/sub/new 0 640 0:0 fresh", "data/sub/kept 0 640 7:8 mine", "data/sub/deep/er 0 640 7:8 x", "data/f 0 644 5:6 one"} {
		if err != nil || !slices.Contains(out, want) {
			t.Errorf("running %v: after the copy in, %q is not in %q (%v)", running, want, out, err)
		}
	}
	if err := b.copyIn(copyOf(r, "/data", running), file("sub", "")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("running %v: a file in a directory's place: %v", running, err)
	}
	if err := b.copyIn(copyOf(r, "/locked", running), file("x", "")); !errdefs.IsPermissionDenied(err) {
		t.Errorf("running %v: into what is read-only: %v", running, err)
	}
	if err := b.copyIn(copyOf(r, "/volume", running), file("mine", "")); err != nil {
		t.Errorf("running %v: into a volume: %v", running, err)
	}
	// As it was, for the next round.
	back := copyOf(r, "/data", running)
	back.Overwrite = true
	if err := b.copyIn(back, file("sub", ""), entry{tar.Header{Typeflag: tar.TypeDir, Name: "sub", Mode: 0o750}, ""},
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "sub/g", Mode: 0o644}, "two\n"}, entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "f", Mode: 0o777}, ""}); err != nil {
		t.Errorf("running %v: overwrite: %v", running, err)
	}
}

// TestCopyStaysInside: neither links of the image nor of the tar, nor names with
// "..", nor a process that changes links meanwhile lead outside.
func TestCopyStaysInside(t *testing.T) {
	b := newBench(t)
	b.links("ln", "mv", "rm")
	outside := t.TempDir()
	secret := outside + "/secret"
	if err := os.WriteFile(secret, []byte("secret of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := b.request(`ln -s ` + secret + ` /link; ln -s ` + outside + ` /dir; ln -s ../../../../../../.. /up; mkdir /real /swap
		echo mine > /real/secret; ln -s ` + outside + ` /evil; echo ready > /ready
		while :; do mv /swap /t1; ln -s ` + outside + ` /swap; rm /swap; mv /t1 /swap; done`)
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is ready", func() bool {
		_, err := b.d.Stat(context.Background(), copyOf(r, "/ready", true))
		return err == nil
	})
	if out, err := b.copyOut(copyOf(r, "/link", true)); err != nil || len(out) != 1 || strings.Contains(out[0], "secret of") {
		t.Errorf("a link: %q %v", out, err)
	}
	for _, path := range []string{"/dir/secret", "/up" + secret, "/evil/secret", "/link/.."} {
		if out, err := b.copyOut(copyOf(r, path, true)); err == nil && strings.Contains(fmt.Sprint(out), "secret of") {
			t.Errorf("%s: %q", path, out)
		}
		if _, err := b.d.Stat(context.Background(), copyOf(r, path, true)); err == nil && path == "/dir/secret" {
			t.Errorf("stat %s of the host", path)
		}
	}
	hostile := []entry{
		file("../../../../../../../.."+outside+"/a", ""), file("/"+outside+"/b", ""),
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: outside}, ""}, file("s/c", ""),
		{tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../../../../../../.." + secret}, ""},
	}
	for _, e := range hostile {
		_ = b.copyIn(copyOf(r, "/real", true), e) // some are refused, some end below /real
	}
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		_ = b.copyIn(copyOf(r, "/swap", true), file("raced", "")) // it may not be there just then
		if out, err := b.copyOut(copyOf(r, "/swap/secret", true)); err == nil {
			t.Errorf("raced: %q", out)
		}
	}
	names, err := os.ReadDir(outside)
	if err != nil || len(names) != 1 {
		t.Errorf("the host's directory has %v (%v)", names, err)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "secret of the host" {
		t.Errorf("the host's file says %q (%v)", text, err)
	}
}

// TestCopyOpensNoDevice: one that comes in a file's place while that is copied is not
// opened, in the container's own files or on a mount.
func TestCopyOpensNoDevice(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	r := b.request("mknod /null c 1 3; mknod /volume/null c 1 3; mkdir /tmp/ready; sleep 1000")
	r.Mounts = []driver.Mount{{Type: "bind", Source: host, Target: "/volume", Options: []string{"rbind"}}}
	if _, err := b.d.Start(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is ready", func() bool {
		_, err := b.d.Stat(t.Context(), copyOf(r, "/tmp/ready", true))
		return err == nil
	})
	if err := mknod(b.lower+"/etc/null", 1, 3); err != nil {
		t.Fatal(err)
	}
	for _, running := range []bool{true, false} {
		if !running {
			if err := b.d.Release(t.Context(), r.Key); err != nil {
				t.Fatal(err)
			}
		}
		c := copyOf(r, "/", running)
		err := b.d.inContainer(forReading(c), linux.RootToRead, func(root *os.File) error {
			for _, name := range []string{"/null", "/volume/null", "/etc/null"} {
				f, err := linux.OpenInRoot(root, name, unix.O_RDONLY)
				if err == nil {
					f.Close()
				}
				if !errors.Is(err, unix.EACCES) {
					t.Errorf("running %v: %s was opened: %v", running, name, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := b.copyOut(copyOf(r, "/null", running)); err != nil || len(out) != 1 || !strings.HasPrefix(out[0], "null 3 ") {
			t.Errorf("running %v: the device itself: %q %v", running, out, err)
		}
	}
}

// TestCopyGivenUp ends, and leaves nothing.
func TestCopyGivenUp(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	c := copyOf(r, "/bin", true)
	if err := b.d.CopyOut(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody came: %v", err)
	}
	if _, err := os.Stat(execdriver.CopySocket(b.cfg.Run, c.Socket)); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
}
