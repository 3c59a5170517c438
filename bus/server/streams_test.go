package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// startStreams serves uploads, "echo" (bytes back), "pipe" (a passed descriptor)
// and "refuse".
func startStreams(t *testing.T, limit int64) (*Server, *bus.Client, string) {
	t.Helper()
	s := startWith(t, testConfig(t), echo())
	dir := filepath.Join(t.TempDir(), "spool")
	err := s.ServeStreams(map[string]StreamHandler{
		bus.OpUpload: Spool(dir, limit),
		"echo": func(ctx context.Context, c *StreamCall) error {
			st, err := c.Accept(c.Call, nil)
			if err != nil {
				return err
			}
			_, err = io.Copy(st, st)
			return err
		},
		"pipe": func(ctx context.Context, c *StreamCall) error {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer r.Close()
			defer w.Close()
			if _, err := c.Accept(nil, r); err != nil {
				return err
			}
			_, err = w.WriteString("through the pipe")
			return err
		},
		"refuse": func(context.Context, *StreamCall) error {
			return errclass.WithHint(errclass.Errorf(errdefs.ErrNotFound, "no such container: x"), "gantry ps -a lists them")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, dial(t, s.ControlSocket()), dir
}

func TestStreamCarriesBytes(t *testing.T) {
	_, c, _ := startStreams(t, 1)
	st, err := c.Stream(within(t), bus.StreamRequest{Op: "echo"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if !strings.Contains(string(st.Body), `"control"`) {
		t.Errorf("the caller is %s", st.Body)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		st.Write(sent)
		st.Conn.CloseWrite()
	}()
	var got bytes.Buffer
	if _, err := io.Copy(&got, st); err != nil || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d of %d bytes, %v", got.Len(), len(sent), err)
	}
}

func TestStreamEarlyBytesAndLongLines(t *testing.T) {
	s, _, _ := startStreams(t, 1)
	path := filepath.Join(s.cfg.Run, bus.StreamSocket)
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, `{"op":"echo"}`+"\nearly"); err != nil {
		t.Fatal(err)
	}
	nc.(*net.UnixConn).CloseWrite()
	got, err := io.ReadAll(nc)
	if err != nil || !strings.HasSuffix(string(got), "}\nearly") {
		t.Errorf("got %q, %v", got, err)
	}
	if nc, err = net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.Write(bytes.Repeat([]byte("x"), bus.MaxStreamLine))
	nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a line without an end: %v, want the connection closed", err)
	}
}

func TestStreamPassesDescriptors(t *testing.T) {
	_, c, _ := startStreams(t, 1)
	st, err := c.Stream(within(t), bus.StreamRequest{Op: "pipe"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if st.File == nil {
		t.Fatal("no descriptor came")
	}
	got, err := io.ReadAll(st.File)
	if err != nil || string(got) != "through the pipe" {
		t.Errorf("%q, %v", got, err)
	}
	if flags, err := unix.FcntlInt(st.File.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor would be inherited: %#x, %v", flags, err)
	}
}

func TestStreamRefusals(t *testing.T) {
	s, c, _ := startStreams(t, 1)
	_, err := c.Stream(within(t), bus.StreamRequest{Op: "refuse"}, nil)
	if !errdefs.IsNotFound(err) || errclass.Hint(err) == "" {
		t.Errorf("%v, hint %q", err, errclass.Hint(err))
	}
	if _, err = c.Stream(within(t), bus.StreamRequest{Op: "dance"}, nil); !errdefs.IsNotImplemented(err) {
		t.Errorf("an unknown operation: %v", err)
	}
	reader := dial(t, s.ReadSocket())
	if _, _, err = reader.Upload(within(t), strings.NewReader("x")); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a reader's upload: %v", err)
	}
}

func spooled(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestUpload(t *testing.T) {
	_, c, dir := startStreams(t, 4<<20)
	content := bytes.Repeat([]byte("gantry!"), 1<<18)
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, r := range map[string]io.Reader{"bytes": bytes.NewReader(content), "a file": f} {
		up, st, err := c.Upload(within(t), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := os.ReadFile(up.Path)
		if err != nil || up.Size != int64(len(content)) || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes at %s, %v", name, up.Size, up.Path, err)
		}
		st.Close()
		eventually(t, name+": the upload stays when the client goes", func() bool { return spooled(t, dir) == 0 })
	}
}

func TestUploadTooLargeOrBrokenOff(t *testing.T) {
	s, c, dir := startStreams(t, 1<<20)
	big := bytes.Repeat([]byte("x"), 3<<20)
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, big, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, r := range map[string]io.Reader{"bytes": bytes.NewReader(big), "a file": f} {
		if _, _, err := c.Upload(within(t), r); !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	devNull, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	st, err := c.Stream(within(t), bus.StreamRequest{Op: bus.OpUpload}, devNull)
	if err != nil {
		t.Fatal(err)
	}
	line, _ := io.ReadAll(st)
	if !strings.Contains(string(line), "no regular file") {
		t.Errorf("a device: %s", line)
	}
	st.Close()

	// What breaks off while it is read here is the client's own failure, told at once.
	broken := errors.New("the disk is broken")
	for name, r := range map[string]io.Reader{"at once": iotest.ErrReader(broken), "later": io.MultiReader(bytes.NewReader(big[:1<<19]), iotest.ErrReader(broken))} {
		if _, _, err := c.Upload(within(t), r); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "what broke off stays", func() bool { return spooled(t, dir) == 0 })

	// A client that vanishes in the middle.
	st, err = c.Stream(within(t), bus.StreamRequest{Op: bus.OpUpload}, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte{0, 0, 1, 0, 'x'})
	eventually(t, "nothing is spooled", func() bool { return spooled(t, dir) == 1 })
	st.Close()
	eventually(t, "the half upload stays", func() bool { return spooled(t, dir) == 0 })

	// And a server that ends: nothing hangs, nothing stays.
	if st, err = c.Stream(within(t), bus.StreamRequest{Op: bus.OpUpload}, nil); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	done := make(chan struct{})
	go func() { s.Close(); close(done) }()
	select {
	case <-done:
	case <-within(t).Done():
		t.Fatal("Close hangs")
	}
	if n := spooled(t, dir); n != 0 {
		t.Errorf("%d uploads stay", n)
	}
}
